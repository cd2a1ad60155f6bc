"""English sentences for the voice alone: the example sentences of WordNet, cleaned, 4 to 16 words,
to learn from; Harvard sentences to try it on.
"""

import functools
import json
import re
from importlib import resources

from mdmspeech.data.storage.splits import text_id, words_of
from mdmspeech.data.texts import wordnet
from mdmspeech.text.normalise import is_speakable_whole, normalise, sentence

SHORTEST, LONGEST = 4, 16  # words
# Held out are the examples with these digests,
# whatever becomes of the others and of the rules of reading.
HELD_OUT = "open_held_out.json"
SECONDS_EACH = 2.6  # measured mean in the answer voice, for "how many make an hour"
_SPLITS = ("test", "val", "train", "repeat")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,.;:'?!-]*")
# an alternative, an omission: not how anyone speaks
MARKED = re.compile(r"[][()/&*+<>|{}=_]|^\.\.")
# WordNet marks what is better not said aloud; its own words for it:
RUDE = re.compile(
    r"\b(offensive|obscene|slur|disparag\w+|vulgar|derogatory|sexual\w*|ethnic"
    r"|prostitut\w*|rape\w*|genital\w*)\b"
)
RUDE_SAID = re.compile(
    r"\b(fuck\w*|shit\w*|cunt|nigger\w*|whore\w*|rape\w*|bitch\w*|sex\w*|negro\w*)\b", re.IGNORECASE
)


@functools.lru_cache(maxsize=1)
def open_sentences() -> tuple[dict[str, str], ...]:
    """All of them: {"id", "text", "split"}; split is train, one of `held_out`. Those for testing
    and validation come first, those to repeat in a test last.

    The order follows from each example alone, so that a new rule of reading moves no other.
    """
    places = {
        known: (_SPLITS.index(split), n, split)
        for split, digests in held_out().items()
        for n, known in enumerate(digests)
    }
    train = _SPLITS.index("train"), 0, "train"
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for synset in wordnet.synsets():
        if RUDE.search(synset.definition):
            continue
        for example in synset.examples:
            if text := clean(example):
                found.setdefault(words_of(text), (text_id(example), text))
    ordered = sorted((places.get(known, train), known, text) for known, text in found.values())
    return tuple(
        {"id": f"open-{known}", "text": text, "split": place[-1]} for place, known, text in ordered
    )


@functools.cache
def held_out() -> dict[str, list[str]]:
    """Digests of the examples that are for testing, for validation, and ("repeat") for the test of
    repeating, which no part of the corpus speaks otherwise.
    """
    return json.loads(
        (resources.files("mdmspeech.data.texts") / HELD_OUT).read_text(encoding="utf-8")
    )


def clean(example: str) -> str | None:
    """One example as a spoken sentence; None when it is too short, too long, or holds what cannot
    be read aloud.
    """
    text = sentence(normalise(example))
    words = words_of(text)
    usable = (
        SHORTEST <= len(words) <= LONGEST and _PLAIN.fullmatch(text) and not RUDE_SAID.search(text)
    )
    shouted = any(word.isupper() and len(word) > 1 for word in text.split())
    return (
        text
        if usable and not shouted and not MARKED.search(example) and is_speakable_whole(example)
        else None
    )


# Lists 1 to 3 of the Harvard sentences, phonetically balanced (IEEE Recommended Practice for Speech
# Quality Measurements, 1969).
HARVARD = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
    "The small pup gnawed a hole in the sock.",
    "The fish twisted and turned on the bent hook.",
    "Press the pants and sew a button on the vest.",
    "The swan dive was far short of perfect.",
    "The beauty of the view stunned the young boy.",
    "Two blue fish swam in the tank.",
    "Her purse was full of useless trash.",
    "The colt reared and threw the tall rider.",
    "It snowed, rained, and hailed the same morning.",
    "Read verse out loud for pleasure.",
)
