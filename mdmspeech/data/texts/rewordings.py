"""More ways to ask the questions of the corpus, for written fine-tuning only: nobody speaks them.

A small model learns a wording sooner than what is asked. The corpus has two to six wordings of a
question; these are some thirty others, none of which is one of the test's (a test compares them;
most were written by somebody who had not seen those).
"""

import functools
from importlib import resources

_VALIDATION = 8  # one wording of so many is for validation


@functools.cache
def rewordings(split: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(family, kind), as of `questions.families` -> wordings with the fields of its facts; of split
    "val" those that no training asks in, of "train" the others.
    """
    text = (resources.files("mdmspeech") / "data/texts/rewordings.tsv").read_text("utf-8")
    ways: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        family, kind, wording = line.split("\t")
        ways.setdefault((family, kind), []).append(wording)
    mine = lambda place: (place % _VALIDATION == _VALIDATION - 1) == (split == "val")
    return {key: tuple(w for i, w in enumerate(found) if mine(i)) for key, found in ways.items()}
