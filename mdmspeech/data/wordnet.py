"""Reads the Princeton WordNet database (WordNet licence, BSD-like) from the folder of Debian's `wordnet-base`: words, definitions, examples, opposites."""

import collections
import dataclasses
import functools
import os
import pathlib
import re

from mdmspeech.errors import UserError

FOLDER = "/usr/share/wordnet"  # where the Debian and Ubuntu package puts it; $WORDNET_HOME overrides
PARTS = ("noun", "verb", "adj", "adv")
ANTONYM = "!"


@dataclasses.dataclass(frozen=True)
class Synset:
    """One meaning. part: noun, verb, adj or adv; offset: its key within the part; words: spellings with spaces; definition: the gloss before the examples; antonyms: pairs (own word, opposite)."""

    part: str
    offset: str
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    antonyms: tuple[tuple[str, str], ...]


def folder() -> pathlib.Path:
    """The database folder; a `UserError` names the cure when it is not there."""
    path = pathlib.Path(os.environ.get("WORDNET_HOME", FOLDER))
    if not (path / "data.noun").exists():
        raise UserError(f"WordNet is not in {path}: sudo apt-get install wordnet-base (or set WORDNET_HOME to a folder with data.noun)")
    return path


@functools.lru_cache(maxsize=1)
def synsets() -> tuple[Synset, ...]:
    """All meanings, in the files' order (about 117,000; two seconds)."""
    raw = {part: _lines(part) for part in PARTS}
    return tuple(_synset(part, line, raw) for part in PARTS for line in raw[part].values())


@functools.lru_cache(maxsize=1)
def commonness() -> dict[str, int]:
    """Word (lower case) -> how often it was seen, in any meaning, in the corpus the WordNet authors tagged (`cntlist.rev`); absent = never."""
    counts: collections.Counter[str] = collections.Counter()
    for line in (folder() / "cntlist.rev").read_text(encoding="latin-1").splitlines():
        key, _, count = line.split()
        counts[key.split("%")[0].replace("_", " ")] += int(count)
    return dict(counts)


@functools.lru_cache(maxsize=1)
def main_synset() -> dict[tuple[str, str], Synset]:
    """(part of speech, word in lower case) -> its most frequent meaning, which the index files list first."""
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
    return [re.sub(r"\(.*\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]


def _synset(part: str, line: str, raw: dict[str, dict[str, str]]) -> Synset:
    head, _, gloss = line.partition(" | ")
    fields, words = head.split(), _words(line)
    at = 4 + 2 * len(words)
    antonyms = []
    for k in range(int(fields[at])):
        symbol, offset, kind, lemma_pair = fields[at + 1 + 4 * k : at + 5 + 4 * k]
        own, other = int(lemma_pair[:2], 16), int(lemma_pair[2:], 16)
        if symbol == ANTONYM and own and other:
            target = raw[{"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}[kind]][offset]
            antonyms.append((words[own - 1], _words(target)[other - 1]))
    definition, examples = _split_gloss(gloss)
    return Synset(part, line[:8], tuple(words), definition, examples, tuple(antonyms))


def _split_gloss(gloss: str) -> tuple[str, tuple[str, ...]]:
    """A gloss is `definition; "example"; "example"`."""
    examples = tuple(e.strip() for e in re.findall(r'"([^"]+)"', gloss))
    definition = re.split(r'[;:]?\s*"', gloss)[0].strip(" ;:")
    return definition, examples
