"""Questions about words: definitions, opposites, kinds, spelling, letters, rhymes, irregular forms.
From WordNet; rhymes from the pronunciation tables.
"""

import collections
import functools
import itertools
import random
import re

from mdmspeech.data.texts import wordnet
from mdmspeech.data.texts.family import Fact, Family, spelled, with_article
from mdmspeech.data.texts.open_sentences import RUDE, RUDE_SAID
from mdmspeech.text.normalise import number
from mdmspeech.text.pronounce import pronouncer

SOURCE = "WordNet 3.0 (WordNet licence)"
SAID_KIND = {
    "animal": "an animal",
    "plant": "a plant",
    "food": "a kind of food",
    "body": "a part of the body",
    "artifact": "a thing that people make",
    "person": "a person",
}
DEFINITION_WORDS = range(3, 13)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def families() -> list[Family]:
    """Eleven sets of templates about common English words."""
    return [
        *_definitions(),
        _opposites(),
        _kinds(),
        *_spelling(),
        *_letters(),
        _rhymes(),
        *_irregular(),
    ]


@functools.lru_cache(maxsize=1)
def common_words() -> tuple[str, ...]:
    """Plain single words of 3 to 12 letters that are fit to be said, the most common first."""
    rude = {w.lower() for s in wordnet.synsets() if RUDE.search(s.definition) for w in s.words}
    counts = wordnet.commonness()
    plain = [
        w
        for w in counts
        if re.fullmatch(r"[a-z]{3,12}", w) and w not in rude and not RUDE_SAID.search(w)
    ]
    return tuple(sorted(plain, key=lambda w: (-counts[w], w)))


def _definitions() -> list[Family]:
    facts: dict[str, list[Fact]] = {"noun": [], "verb": [], "adj": []}
    for word in common_words():
        # what people mean by the word
        part = max(wordnet.uses()[word], key=wordnet.uses()[word].__getitem__)
        synset = wordnet.main_synset().get((part, word))
        meaning = _short_definition(synset.definition) if synset and word in synset.words else None
        if part in facts and meaning and not re.search(rf"\b{word[:5]}", meaning):
            facts[part].append(
                {"word": word, "meaning": f"to {meaning}" if part == "verb" else meaning}
            )
    asks = [
        "What does the word {word} mean?",
        "What is the meaning of {word}?",
        "Define the word {word}.",
        "Can you explain the word {word}?",
    ]
    test_asks = ["I don't know the word {word}. What does it mean?"]
    answers = ["The word {word} means {meaning}.", "{word} means {meaning}."]
    limits = {"noun": (1600, 14), "verb": (500, 6), "adj": (500, 6)}
    return [
        Family(
            "definitions",
            part,
            SOURCE,
            asks,
            test_asks,
            answers,
            facts[part][:limit],
            per_fact=1,
            test_count=tests,
        )
        for part, (limit, tests) in limits.items()
    ]


def _short_definition(gloss: str) -> str | None:
    meaning = re.sub(r"\s*\([^)]*\)\s*", " ", gloss.split(";")[0]).strip()
    usable = (
        len(meaning.split()) in DEFINITION_WORDS
        and re.fullmatch(r"[a-z ,'-]+", meaning)
        and not RUDE.search(gloss)
    )
    return meaning if usable else None


def _opposites() -> Family:
    rank = {w: i for i, w in enumerate(common_words())}
    best: dict[str, str] = {}
    for synset in wordnet.synsets():
        for own, other in synset.antonyms:
            if own in rank and other in rank and (own not in best or rank[other] < rank[best[own]]):
                best[own] = other
    facts = [{"word": w, "opposite": best[w]} for w in sorted(best, key=rank.__getitem__)[:900]]
    return Family(
        "opposites",
        "of",
        SOURCE,
        [
            "What is the opposite of {word}?",
            "What's the opposite of the word {word}?",
            "Tell me the opposite of {word}.",
            "Which word means the opposite of {word}?",
        ],
        ["I need the contrary of {word}.", "Give me the contrary of {word}."],
        ["The opposite of {word} is {opposite}."],
        facts,
        per_fact=2,
        test_count=16,
    )


def _kinds() -> Family:
    facts: dict[str, list[Fact]] = collections.defaultdict(list)
    for word in common_words():
        synset = wordnet.main_synset().get(("noun", word))
        other_parts = [p for p in ("verb", "adj") if (p, word) in wordnet.main_synset()]
        if (
            synset
            and synset.topic
            and word in synset.words
            and not other_parts
            and not word.endswith("s")
        ):
            facts[synset.topic].append(
                {"thing": with_article(word), "kind": SAID_KIND[synset.topic]}
            )
    chosen = [fact for topic in sorted(facts) for fact in facts[topic][:120]]
    return Family(
        "kinds",
        "of",
        SOURCE,
        [
            "Is {thing} an animal, a plant, a person, or something else?",
            "What kind of thing is {thing}?",
            "What is {thing}, roughly speaking?",
        ],
        ["To which group of things does {thing} belong?"],
        ["{thing} is {kind}."],
        chosen,
        per_fact=2,
        test_count=14,
    )


def _spelling() -> list[Family]:
    words = [w for w in common_words() if len(w) <= 8][:1200]
    rng = random.Random(0)
    chosen = sorted(rng.sample(words, 600))
    facts = [
        {
            "word": w,
            "letters": spelled(w),
            "count": number(len(w)),
            "first": w[0].upper(),
            "last": w[-1].upper(),
        }
        for w in chosen
    ]
    return [
        Family(
            "spelling",
            "whole",
            SOURCE,
            [
                "How do you spell {word}?",
                "Spell the word {word}.",
                "Can you spell {word} for me?",
                "What is the spelling of {word}?",
            ],
            ["Letter by letter, how is {word} written?"],
            ["{word} is spelled {letters}."],
            facts,
            per_fact=2,
            test_count=14,
        ),
        Family(
            "letters",
            "count",
            SOURCE,
            ["How many letters does the word {word} have?", "How many letters are in {word}?"],
            ["Count the letters in the word {word}."],
            ["The word {word} has {count} letters."],
            facts[:300],
            per_fact=1,
            test_count=6,
        ),
        Family(
            "letters",
            "first",
            SOURCE,
            ["What is the first letter of {word}?", "Which letter does {word} start with?"],
            ["{word} begins with which letter?"],
            ["The first letter of {word} is {first}."],
            facts[150:400],
            per_fact=1,
            test_count=4,
        ),
        Family(
            "letters",
            "last",
            SOURCE,
            ["What is the last letter of {word}?", "Which letter does {word} end with?"],
            ["The word {word} ends in which letter?"],
            ["The last letter of {word} is {last}."],
            facts[350:],
            per_fact=1,
            test_count=4,
        ),
    ]


def _letters() -> list[Family]:
    facts = [{"a": a, "b": b} for a, b in itertools.pairwise(LETTERS)]
    return [
        Family(
            "alphabet",
            "after",
            SOURCE,
            ["Which letter comes after {a}?", "What letter follows {a} in the alphabet?"],
            ["In the alphabet, what stands right behind {a}?"],
            ["The letter after {a} is {b}."],
            facts,
            per_fact=2,
            test_count=4,
        ),
        Family(
            "alphabet",
            "before",
            SOURCE,
            ["Which letter comes before {b}?", "What letter is right before {b}?"],
            ["In the alphabet, what stands just ahead of {b}?"],
            ["The letter before {b} is {a}."],
            facts,
            per_fact=2,
            test_count=4,
        ),
    ]


def _rhymes() -> Family:
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for word in common_words()[:3000]:
        ending = rhyme_of(word)
        if ending:
            groups[ending].append(word)
    rng, facts = random.Random(0), []
    for ending in sorted(groups):
        for word in groups[ending][:4]:
            others = [w for w in groups[ending] if w != word and sound_of(w) != sound_of(word)]
            if len(groups[ending]) > 2 and others:
                facts.append({"word": word, "rhyme": others[0]})
    rng.shuffle(facts)
    return Family(
        "rhymes",
        "with",
        "hibari-tts pronunciation tables (Apache-2.0), WordNet",
        [
            "What rhymes with {word}?",
            "Tell me a word that rhymes with {word}.",
            "Which word rhymes with {word}?",
            "Can you find a rhyme for {word}?",
        ],
        ["I'm writing a poem and need a rhyme for {word}."],
        ["{rhyme} rhymes with {word}.", "A word that rhymes with {word} is {rhyme}."],
        facts[:450],
        per_fact=2,
        test_count=14,
    )


def sound_of(word: str) -> str:
    """Phonemes of one word without stress marks."""
    return re.sub("[ˈˌ|]", "", pronouncer().phonemes(pronouncer()(word)))


def rhyme_of(word: str) -> str:
    """From the stressed vowel on: words that share it rhyme. Empty when no stress is marked."""
    said = pronouncer().phonemes(pronouncer()(word)).strip("|")
    return said.rsplit("ˈ", 1)[1] if "ˈ" in said and "ˌ" not in said else ""


def _irregular() -> list[Family]:
    counts = wordnet.commonness()
    plurals = [
        {"one": one, "many": many} for many, one in _exceptions("noun") if counts.get(one, 0) > 3
    ]
    verbs: dict[str, list[str]] = collections.defaultdict(list)
    for form, verb in _exceptions("verb"):
        if (
            counts.get(verb, 0) > 3
            and not form.endswith(("ing", "s"))
            and not form.startswith(verb)
        ):
            verbs[verb].append(form)
    pasts = [{"verb": v, "past": forms[0]} for v, forms in sorted(verbs.items()) if len(forms) == 1]
    return [
        Family(
            "word forms",
            "plural",
            SOURCE,
            ["What is the plural of {one}?", "How do you say {one} in the plural?"],
            ["One {one}, but two what?"],
            ["The plural of {one} is {many}."],
            plurals[:150],
            per_fact=2,
            test_count=6,
        ),
        Family(
            "word forms",
            "past",
            SOURCE,
            ["What is the past tense of {verb}?", "How do you say {verb} in the past?"],
            ["Today I {verb}. What do I say for yesterday?"],
            ["The past tense of {verb} is {past}."],
            pasts[:300],
            per_fact=2,
            test_count=8,
        ),
    ]


def _exceptions(part: str) -> list[tuple[str, str]]:
    lines = (wordnet.folder() / f"{part}.exc").read_text(encoding="latin-1").splitlines()
    pairs = [line.split()[:2] for line in lines]
    return [
        (form, word)
        for form, word in pairs
        if re.fullmatch(r"[a-z]{2,14}", form) and re.fullmatch(r"[a-z]{2,12}", word)
    ]
