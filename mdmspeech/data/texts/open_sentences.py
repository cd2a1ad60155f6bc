"""English sentences for the voice alone: the example sentences of WordNet, cleaned, 4 to 16 words."""

import functools
import hashlib
import json
import re
from importlib import resources

from mdmspeech.data.texts import wordnet
from mdmspeech.text.normalise import is_speakable_whole, normalise, sentence

SHORTEST, LONGEST = 4, 16  # words
# Held out are the examples with these digests, whatever becomes of the others and of the rules of reading.
HELD_OUT = "open_held_out.json"
_SPLITS = ("test", "val", "train", "repeat")
SECONDS_EACH = 2.6  # measured mean in the answer voice, for "how many make an hour"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,.;:'?!-]*")
MARKED = re.compile(r"[][()/&*+<>|{}=_]|^\.\.")  # an alternative, an omission: not how anyone speaks
# WordNet marks what is better not said aloud; its own words for it:
RUDE = re.compile(r"\b(offensive|obscene|slur|disparag\w+|vulgar|derogatory|sexual\w*|ethnic|prostitut\w*|rape\w*|genital\w*)\b")
RUDE_SAID = re.compile(r"\b(fuck\w*|shit\w*|cunt|nigger\w*|whore\w*|rape\w*|bitch\w*|sex\w*|negro\w*)\b", re.IGNORECASE)


@functools.lru_cache(maxsize=1)
def open_sentences() -> tuple[dict[str, str], ...]:
    """All of them: {"id", "text", "split"}; split is train, one of `held_out`. Those for testing and validation come first, those to repeat in a test last.

    The order follows from each example alone, so that a new rule of reading moves no other.
    """
    places = {known: (_SPLITS.index(split), n, split) for split, digests in held_out().items() for n, known in enumerate(digests)}
    train = _SPLITS.index("train"), 0, "train"
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for synset in wordnet.synsets():
        if RUDE.search(synset.definition):
            continue
        for example in synset.examples:
            if text := clean(example):
                found.setdefault(words_of(text), (digest(example), text))
    ordered = sorted((places.get(known, train), known, text) for known, text in found.values())
    return tuple({"id": f"open-{known}", "text": text, "split": place[-1]} for place, known, text in ordered)


@functools.cache
def held_out() -> dict[str, list[str]]:
    """Digests of the examples that are for testing, for validation, and ("repeat") for the test of repeating, which no part of the corpus speaks otherwise."""
    return json.loads((resources.files("mdmspeech.data.texts") / HELD_OUT).read_text(encoding="utf-8"))


def digest(example: str) -> str:
    """What an example is known by."""
    return hashlib.sha256(example.encode()).hexdigest()[:12]


def clean(example: str) -> str | None:
    """One example as a spoken sentence; None when it is too short, too long, or holds what cannot be read aloud."""
    text = sentence(normalise(example))
    words = words_of(text)
    usable = SHORTEST <= len(words) <= LONGEST and _PLAIN.fullmatch(text) and not RUDE_SAID.search(text)
    shouted = any(word.isupper() and len(word) > 1 for word in text.split())
    return text if usable and not shouted and not MARKED.search(example) and is_speakable_whole(example) else None


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation, for counting and comparing."""
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))
