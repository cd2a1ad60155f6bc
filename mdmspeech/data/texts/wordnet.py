"""Reads the Princeton WordNet database (WordNet licence, BSD-like) from the folder of Debian's
`wordnet-base`: words, definitions, examples, opposites.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import re

from mdmspeech.errors import UserError

# where the Debian and Ubuntu package puts it; $WORDNET_HOME overrides
FOLDER = "/usr/share/wordnet"
PARTS = ("noun", "verb", "adj", "adv")
ANTONYM = "!"
# first digit of a sense key
SENSE_PARTS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
TOPICS = {
    "05": "animal",
    "06": "artifact",
    "08": "body",
    "13": "food",
    "18": "person",
    "20": "plant",
}


@dataclasses.dataclass(frozen=True)
class Synset:
    """One meaning. part: noun, verb, adj or adv; offset: its key within the part; words: spellings
    with spaces; definition: the gloss before the examples; topic: the lexicographer's file (for
    example "animal"; only the nouns of `TOPICS`, else empty); antonyms: pairs (own word, opposite).
    """

    part: str
    offset: str
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    topic: str
    antonyms: tuple[tuple[str, str], ...]


def folder() -> pathlib.Path:
    """The database folder; a `UserError` names the cure when it is not there."""
    path = pathlib.Path(os.environ.get("WORDNET_HOME", FOLDER))
    if not (path / "data.noun").exists():
        raise UserError(
            f"WordNet is not in {path}: sudo apt-get install wordnet-base (or set "
            "WORDNET_HOME to a folder with data.noun)"
        )
    return path


@functools.lru_cache(maxsize=1)
def synsets() -> tuple[Synset, ...]:
    """All meanings, in the files' order (about 117,000; two seconds)."""
    raw = {part: _lines(part) for part in PARTS}
    return tuple(_synset(part, line, raw) for part in PARTS for line in raw[part].values())


@functools.lru_cache(maxsize=1)
def uses() -> dict[str, dict[str, int]]:
    """Word (lower case) -> part of speech -> how often it was seen in the corpus the WordNet
    authors tagged (`cntlist.rev`).
    """
    counts: dict[str, dict[str, int]] = {}
    for line in (folder() / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        word, _, sense = key.partition("%")
        by_part = counts.setdefault(word.replace("_", " "), collections.Counter())
        by_part[SENSE_PARTS[sense[0]]] += int(count)
    return counts


def commonness() -> dict[str, int]:
    """Word (lower case) -> how often it was seen in any meaning; absent = never."""
    return {word: sum(by_part.values()) for word, by_part in uses().items()}


@functools.lru_cache(maxsize=1)
def main_synset() -> dict[tuple[str, str], Synset]:
    """(part of speech, word in lower case) -> its most frequent meaning, which the index files list
    first.
    """
    at = {(s.part, s.offset): s for s in synsets()}
    meanings = {}
    for part in PARTS:
        for line in (folder() / f"index.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith(" "):
                fields = line.split()
                meanings[part, fields[0].replace("_", " ")] = at[part, fields[-int(fields[2])]]
    return meanings


def _lines(part: str) -> dict[str, str]:
    text = (folder() / f"data.{part}").read_text(encoding="latin-1")
    return {line[:8]: line for line in text.splitlines() if not line.startswith(" ")}


def _words(line: str) -> list[str]:
    fields = line.split(" | ")[0].split()
    count = int(fields[3], 16)
    return [
        re.sub(r"\(.*\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]
    ]


def _synset(part: str, line: str, raw: dict[str, dict[str, str]]) -> Synset:
    head, _, gloss = line.partition(" | ")
    fields, words = head.split(), _words(line)
    at = 4 + 2 * len(words)
    antonyms = []
    for k in range(int(fields[at])):
        symbol, offset, kind, lemma_pair = fields[at + 1 + 4 * k : at + 5 + 4 * k]
        own, other = int(lemma_pair[:2], 16), int(lemma_pair[2:], 16)
        if symbol == ANTONYM and own and other:
            kinds = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
            target = raw[kinds[kind]][offset]
            antonyms.append((words[own - 1], _words(target)[other - 1]))
    definition, examples = _split_gloss(gloss)
    return Synset(
        part,
        line[:8],
        tuple(words),
        definition,
        examples,
        TOPICS.get(fields[1], ""),
        tuple(antonyms),
    )


def _split_gloss(gloss: str) -> tuple[str, tuple[str, ...]]:
    """A gloss is `definition; "example"; "example"`."""
    examples = tuple(e.strip() for e in re.findall(r'"([^"]+)"', gloss))
    definition = re.split(r'[;:]?\s*"', gloss)[0].strip(" ;:")
    return definition, examples
