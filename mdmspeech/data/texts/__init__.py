"""The texts of the corpus: open sentences for the voice, questions and answers for the
conversation, and their splits.
"""
