"""The raw store (`record_store`), into which recordings are put first, safe against being killed;
texts in JSON lines (`json_lines`); and which record is in which split (`splits`). What training reads
are the `datasets` made of it.
"""
