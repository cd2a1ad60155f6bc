"""What is kept before it is a dataset: the raw store (`record_store`), into which recordings are
put first, safe against being killed; texts in JSON lines (`json_lines`); which record is in which
split (`splits`).
"""
