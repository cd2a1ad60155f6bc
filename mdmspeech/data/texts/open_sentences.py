"""English sentences for the voice alone: the example sentences of WordNet, cleaned, 4 to 16 words."""

import functools
import random
import re

from mdmspeech.data import wordnet
from mdmspeech.text.normalise import normalise, sentence

SHORTEST, LONGEST = 4, 16  # words
HELD_OUT = {"test": 400, "val": 200}
SECONDS_EACH = 2.6  # measured mean in the answer voice, for "how many make an hour"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,.;:'?!-]*")
MARKED = re.compile(r"[][()/&*+<>|{}=_]|^\.\.|Makarios III|Good to the last drop")
# ^ An alternative, an omission: not how anyone speaks; and two that earlier rules of reading dropped (see `_KEPT` for why that still matters).
# Kept in spite of their capitals and signs, for their place: the order of all sentences, and so what is held out, stays what shipped voices were trained with.
_KEPT = frozenset(
    {
        "the first Commerce Secretary was William C. Redfield who was appointed by Wilson",
        "the first Defense Secretary was James V. Forrestal who was appointed by Truman",
        "this suave, culture-loving and luxuriantly good-looking M.P.represents the car-workers of Coventry",
        "she left a wake-up call for 7 a.m.",
        "there will be a network outage from 8 to 10 a.m.",
        "the foursome teed off before 9 a.m.",
        "the oxidation number of hydrogen is +1 and of oxygen is -2",
        "a x b = b x a",
        "spread 1/4 lb softened margarine or cooking fat fairly thickly all over the surface",
        "`I--I'm going to make you a cup of tea', she explained shakily",
    }
)
# WordNet marks what is better not said aloud; its own words for it:
RUDE = re.compile(r"\b(offensive|obscene|slur|disparag\w+|vulgar|derogatory|sexual\w*|ethnic|prostitut\w*|rape\w*|genital\w*)\b")
RUDE_SAID = re.compile(r"\b(fuck\w*|shit\w*|cunt|nigger\w*|whore\w*|rape\w*|bitch\w*|sex\w*|negro\w*)\b", re.IGNORECASE)


@functools.lru_cache(maxsize=1)
def open_sentences(seed: int = 0) -> tuple[dict[str, str], ...]:
    """All of them, shuffled by `seed`: {"id", "text", "split"}. The held-out ones come first."""
    texts, seen = [], set()
    for synset in wordnet.synsets():
        if RUDE.search(synset.definition):
            continue
        for example in synset.examples:
            text = clean(example)
            key = words_of(text) if text else None
            if text and key not in seen:
                seen.add(key)
                texts.append(text)
    random.Random(seed).shuffle(texts)
    splits = [split for split, count in HELD_OUT.items() for _ in range(count)]
    splits += ["train"] * (len(texts) - len(splits))
    return tuple({"id": f"open-{i:05d}", "text": text, "split": split} for i, (text, split) in enumerate(zip(texts, splits, strict=True)))


def clean(example: str) -> str | None:
    """One example as a spoken sentence; None when it is too short, too long, or holds what cannot be read aloud."""
    text = sentence(normalise(example))
    words = words_of(text)
    usable = SHORTEST <= len(words) <= LONGEST and _PLAIN.fullmatch(text) and not RUDE_SAID.search(text)
    shouted = any(word.isupper() and len(word) > 1 for word in text.split())
    return text if (usable and not shouted and not MARKED.search(example)) or example in _KEPT else None


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation, for counting and comparing."""
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))
