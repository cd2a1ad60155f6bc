"""More ways to ask the questions of the corpus, for written fine-tuning only: nobody speaks them.

A small model learns a wording sooner than what is asked. The corpus has two to six wordings of a
question; these are some thirty others, none of which is like one of the test's (a test compares
them; most were written by somebody who had not seen those).

A line of rewordings.tsv is family, kind, split and wording; an eighth is for validation.
"""

import functools
from importlib import resources


@functools.cache
def rewordings(split: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(family, kind), as of `questions.families` -> wordings with the fields of its facts; of split
    "val" those that no training asks in, of "train" the others.
    """
    text = (resources.files("mdmspeech") / "data/texts/rewordings.tsv").read_text("utf-8")
    ways: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        family, kind, of, wording = line.split("\t")
        if of == split:
            ways.setdefault((family, kind), []).append(wording)
    return {key: tuple(found) for key, found in ways.items()}
