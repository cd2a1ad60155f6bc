"""Drafts of what a text LLM writes next, looked up in what it has read (prompt lookup decoding,
Saxena 2023): an answer often repeats words of its question.

A draft costs little and is only kept where the model says the same (`models.generation.verify`).
"""

from collections.abc import Sequence

LONGEST = 3  # tokens of the ending that is looked for, at most; where it is not found, shorter ones


def lookup(read: Sequence[int], most: int, stop_ids: Sequence[int] = ()) -> list[int]:
    """What followed the last tokens of `read` where they stood before.

    Args:
      read: ids, oldest first. most: drafts, at most. stop_ids: no draft, nor anything behind one.

    Returns:
      0 to `most` ids: behind the latest place of the longest ending that is found.
    """
    read = list(read)
    for size in range(min(LONGEST, len(read) - 1), 0, -1):
        ending = read[-size:]
        for at in range(len(read) - size - 1, -1, -1):
            if read[at : at + size] == ending:
                found = read[at + size : at + size + most]
                stops = [place for place, token in enumerate(found) if token in stop_ids]
                return found[: stops[0]] if stops else found
    return []
