"""Is an answer right? What it claims against the expected answer, by what the family of the
question asks for.

The judge sees typed and spoken questions' answers alike. It wants the answer stated (see `claims`):
an echo of the question, the name that was asked for, a list of everything that it could be, a
denial and a guess are no answers. It does not want the expected sentence: "Tunis." will do, and so
will other words around the right one. Definitions are the exception: whether another wording means
the same it cannot tell, and counts as wrong what shares no words.
"""

import difflib
import functools
import re
from collections.abc import Callable

from mdmspeech.evaluation import said_items, said_times
from mdmspeech.evaluation.claims import (
    BREAK,
    FUNCTION,
    JOINS,
    STOP,
    Claims,
    Words,
    beyond,
    claims,
    competes,
    content,
    masked,
    places,
    sentences,
    tokens,
)
from mdmspeech.evaluation.scoring import canonical, score

REPEAT_ERRORS = 0.15  # of the words, in a sentence that was to be repeated
_HALF = 0.5
_ALIKE = 0.75  # share of common letters at which a name counts as the one asked for, misspelt
_LONGEST = 2  # a definition may have this many times the words of the expected one

# How the expected answers of a family are worded: two names, of which the question holds one.
_RELATIONS = {
    "capitals": ("the capital of (.+) is (.+)", "(.+) is the capital of (.+)"),
    "cities": ("(.+) is a city in (.+)", "(.+) is in (.+)"),
    "continents": ("(.+) is in (.+)",),
    "currencies": (
        "the currency of (.+) is (?:the )?(.+)",
        "in (.+) people pay with (?:the )?(.+)",
    ),
    "languages": ("people in (.+) speak (.+)", "in (.+) they speak (.+)"),
    "people": ("a person from (.+) is (.+)",),
    "neighbours": ("(.+) shares a border with (.+)", "(.+) borders (.+)"),
    "elements": ("element number (.+) is (.+)",),
    "opposites": ("the opposite of (.+) is (.+)",),
    "word forms": ("the plural of (.+) is (.+)", "the past tense of (.+) is (.+)"),
    "kinds": ("(?:an? )?(.+) is (.+)",),
}
_PLACES = frozenset({
    "capitals", "cities", "continents", "currencies", "languages", "people", "neighbours", "areas",
})  # fmt: skip
_PLURALS = frozenset({"currencies", "kinds"})  # "dollars" for dollar
_CONTINENTS = (
    "north america", "south america", "africa", "asia", "europe", "oceania", "australia",
    "antarctica", "america", "americas",
)  # fmt: skip
_KINDS = {  # how a kind may be named
    "an animal": ("animal", "animals"),
    "a plant": ("plant", "plants"),
    "a kind of food": ("food", "foods"),
    "a part of the body": ("part of the body", "body part", "body parts", "parts of the body"),
    "a thing that people make": (
        "thing that people make",
        "things that people make",
        "artifact",
        "artifacts",
        "man made",
        "made by people",
    ),
    "a person": ("person", "persons", "people", "human", "humans"),
}

# claims, expected words, question's words, family
Rule = Callable[[Claims, Words, Words, str], bool]


def is_right(answer: str, expected: str, family: str, question: str = "") -> bool:
    """True when `answer` says what `expected` says.

    Args:
      answer: what was answered. expected: the record's answer. family: the record's family, which
        decides what counts; an unknown one is judged by the words of `expected` that the question
        does not hold.
      question: the question's text; without it more of `expected` has to be said.
    """
    if not re.search(r"\w", answer):
        return False
    wanted, asked = tokens(expected), tokens(question)
    if family in _REPEATED:
        return _repeated(answer, expected)
    if _flat(tokens(answer)) == _flat(wanted) and not answer.rstrip().endswith("?"):
        return True
    said = claims(answer, wanted, asked)
    unsaid = not said.words and family != "leap years"  # where "no" takes nothing back
    if said.guessed or unsaid or _echoes(answer, question, wanted):
        return False
    return _RULES.get(family, _open)(said, wanted, asked, family)


def _echoes(answer: str, question: str, wanted: Words) -> bool:
    """Nothing but the question's own words, in its order, four or more of them."""
    said, asked = canonical(answer).split(), canonical(question).split()
    return (
        len(said) > 3 and bool(places(asked, said)) and said != canonical(" ".join(wanted)).split()
    )


def _flat(words: Words) -> Words:
    return [word for word in words if word not in (BREAK, STOP)]


def _phrase_in(phrase: Words, words: Words) -> bool:
    return bool(places(_flat(words), phrase))


def _related(wanted: Words, question: Words, family: str) -> tuple[Words, Words] | None:
    """(what was asked about, what is wanted) of an expected answer; None when its wording is unknown."""
    text = " ".join(_flat(wanted))
    for pattern in _RELATIONS.get(family, ()):
        found = re.fullmatch(pattern, text)
        if found:
            one, other = found[1].split(), found[2].split()
            one, other = [
                part[1:] if part[0] == "the" and len(part) > 1 else part for part in (one, other)
            ]
            if _phrase_in(other, question) and not _phrase_in(one, question):
                return other, one
            return one, other
    return None


def _open(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """A name, or some words: those that the expected answer adds to the question, and none beside
    them.
    """
    related = _related(wanted, question, family)
    if related is None or not question:
        return _new_words(said, wanted, question)
    subject, value = related
    words = beyond(said.words, question) if value == subject else said.words
    if value != subject:
        words = masked(words, subject) if not places(value, subject) else words
    values = list(" ".join(value).split(" and ") if family == "languages" else [" ".join(value)])
    forms = (
        {
            " ".join(value),
            *(f"{' '.join(value)}{ending}" for ending in ("s", "es") if family in _PLURALS),
        }
        if len(values) == 1
        else values
    )
    parts = [form.split() for form in forms]
    found = [part for part in parts if places(words, part)]
    if not found or (len(values) > 1 and len(found) < len(values)):
        return False
    if value != subject and any(
        places(said.denied, part) or _circular(words, part) for part in found
    ):
        return False
    known = {*question, *subject, *(word for part in parts for word in part)}
    if family == "continents" and _others(words, _CONTINENTS, value):
        return False
    if family in ("cities", "capitals") and _other_countries(words, wanted):
        return False
    return _about(said, subject, known, family, found[0]) and not any(
        competes(words, part, known) for part in found
    )


def _circular(words: Words, value: Words) -> bool:
    """ "The country where Mexico lies is Mexico": said of itself."""
    at = places(words, value)
    return len(at) > 1 and "is" in words[at[0] : at[-1]] and "_" not in words


def _others(words: Words, names, value: Words) -> bool:
    """One of `names` is said that is not `value`."""
    rest = masked(_flat(words), value)
    return any(places(rest, name.split()) for name in names)


def _about(said: Claims, subject: Words, known, family: str, value: Words) -> bool:
    """False when the answer names another thing than the one asked about ("Angola is in Africa"
    where Zimbabwe was asked for).

    It may leave the thing out; names of places and elements may be misspelt: the Thinker spells
    what it heard. value: what it says of the thing; a word right before it may say whose it is
    ("the Danish krone"), and what comes after it is not looked at, countries aside.
    """
    words = _flat(said.words)
    if not subject or places(words, subject):
        return True
    at = (places(words, value) or [len(words)])[0]
    after = words[at + len(value) :]
    ahead, rest = words[:at] + (after if after[:1] in (["is"], ["has"]) else []), words[:at] + after
    strange = [word for word in content(ahead) if word not in known]
    others = [
        name for name in country_names().values() if name != subject and not {*name} <= {*known}
    ]
    if any(places(rest, name) for name in others):
        return False
    if not strange and not {*content(subject)} & {*rest}:
        return True
    if family not in (*_PLACES, "elements"):
        return False
    whole, size = "".join(subject), len(subject)
    names = [word for word in content(ahead) if word in strange or word in subject]
    tries = {"".join(names[i : i + n]) for n in {1, size, size + 1} for i in range(len(names))}
    owner = names == ahead[-1:] and _ratio(names[0], whole) >= _HALF and family == "currencies"
    return owner or any(_ratio(one, whole) >= _ALIKE for one in tries)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _new_words(said: Claims, wanted: Words, question: Words, family: str = "") -> bool:
    """Every word (plain ones aside) that the expected answer adds to the question, no number from
    elsewhere, and nothing beside them.
    """
    new = [word for word in content(wanted) if word not in question]
    strange = (
        {*said_items.plain_numbers(said.words)}
        - {*said_items.plain_numbers(wanted)}
        - {*said_items.plain_numbers(question)}
    )
    if not new or strange or not {*new} <= {*said.words} or {*new} & {*said.denied}:
        return False
    known = {*question, *wanted}
    subject = [word for word in content(wanted) if word in question]
    unsaid = (
        not {*subject} & {*said.words}
        and subject
        and any(word not in known for word in content(said.words))
    )
    return not unsaid and not any(competes(said.words, [word], known) for word in new)


@functools.lru_cache(maxsize=1)
def country_names() -> dict[str, Words]:
    """Code -> words of the name, where the data extra is installed; else nothing."""
    try:
        from mdmspeech.data.texts.geography import countries

        return {
            country.code: [word for word in tokens(country.name) if word != "the"]
            for country in countries()
        }
    except ImportError:
        return {}


def _countries(words: Words) -> list[str]:
    """Codes of the countries named, the longest names first: no Guinea in Guinea-Bissau."""
    rest, found = _flat(words), []
    for code, name in sorted(country_names().items(), key=lambda item: -len(item[1])):
        if places(rest, name):
            found.append(code)
            rest = masked(rest, name)
    return found


def _other_countries(words: Words, wanted: Words) -> bool:
    return bool({*_countries(words)} - {*_countries(wanted)})


def _neighbour(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Any country that borders the one asked for, and none that does not: most have more than one."""
    from mdmspeech.data.texts.geography import countries

    asked = _countries(question)
    if not asked:
        return _open(said, wanted, question, family)
    borders = {country.code: country.neighbours for country in countries()}[asked[0]]
    named = [code for code in _countries(said.words) if code != asked[0]]
    return bool(named) and {*named} <= {*borders} and "or" not in said.words


def _subject(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Comparisons: the one of the two that the expected answer begins with, alone or ahead of the
    other with the same comparative.
    """
    flat, found = (
        _flat(wanted),
        re.fullmatch(
            r"(?:the )?(.+) is (larger|smaller) than (?:the )?(.+)", " ".join(_flat(wanted))
        ),
    )
    if not found:
        return _new_words(said, wanted, question)
    winner, sense, loser = found[1].split(), found[2], found[3].split()
    words = beyond(said.words, question, 4)
    more = {
        "larger", "bigger", "higher", "more", "greater", "largest", "biggest", "highest", "most",
        "greatest",
    }  # fmt: skip
    less = {"smaller", "lower", "less", "smallest", "lowest", "least", "fewer"}
    right, wrong = (more, less) if sense == "larger" else (less, more)
    known = {*question, *flat, *more, *less, "number", "than", "land"}
    if (
        not places(words, winner)
        or {"or", "both"} & {*said.words}
        or competes(words, winner, known)
    ):
        return False
    if {*said_items.plain_numbers(words)} - {*said_items.plain_numbers(flat)} or (
        family == "areas" and _strangers(said, flat, question)
    ):
        return False
    if not places(words, loser):
        return not {*words} & wrong
    at_winner, at_loser = places(words, winner)[0], places(words, loser)[0]
    between = {*words[min(at_winner, at_loser) : max(at_winner, at_loser)]}
    return bool(between & (right if at_winner < at_loser else wrong)) and "than" in between


def _strangers(said: Claims, wanted: Words, question: Words) -> bool:
    """Another country, or a name in capitals that is neither of the two."""
    names = {word.lower() for word in re.findall(r"(?<=\s)[A-Z][a-z]+", said.text)}
    return _other_countries(said.words, question) or bool({*content(names)} - {*wanted, *question})


def _yes_or_no(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """The same yes or no in every sentence that says either, about the same year."""
    every = tokens(said.text)
    years = {*said_items.plain_numbers(every)} - {"1"}
    answers = set()
    for sentence in map(tokens, sentences(said.text)):
        no, yes = bool({*sentence} & {"not", "no", "never"}), "yes" in sentence
        if (
            no
            or yes
            or "leap" in beyond(sentence, question, 4)
            or sentence in (["it", "is"], ["it", "was"])
        ):
            answers |= {"both"} if no and (yes or sentence.count("leap") > 1) else {no}
    return (
        answers == {"not" in wanted}
        and "or" not in every
        and years <= {*said_items.plain_numbers(wanted)}
    )


def _half_of_it(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Half of the words that the expected answer adds, in at most thrice as many: definitions can
    be worded in more than one way.
    """
    new = {word for word in content(wanted) if word not in question}
    added = [word for word in content(said.words) if word not in question]
    meant = re.search(r"(\w+) means", " ".join(_flat(said.words)))
    other = meant is not None and meant[1] not in ("it", "that", "this", "which", *question)
    other = (
        other
        or ("or" in said.words and "or" not in wanted)
        or said.words.count("not") != wanted.count("not")
    )
    return (
        bool(new)
        and not other
        and len(new & {*added}) >= _HALF * len(new)
        and len(added) <= _LONGEST * max(len(new), 2)
    )


def _like_it(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Small talk has no truth: at least half of the words that name something are shared (F1)."""
    ours, theirs = {*content(said.words)}, {*content(wanted)}
    return bool(ours & theirs) and 2 * len(ours & theirs) >= _HALF * (len(ours) + len(theirs))


def _kind(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """One of the kinds of things that there are, by any of its names, and no other."""
    text = " ".join(_flat(wanted))
    kind = next((kind for kind in _KINDS if text.endswith(f"is {kind}")), None)
    if kind is None:
        return _open(said, wanted, question, family)
    words = _flat(said.words)
    named, rest = set(), words
    for form, name in sorted(
        ((form, name) for name, forms in _KINDS.items() for form in forms),
        key=lambda pair: -len(pair[0]),
    ):
        named |= {name} if places(rest, form.split()) else set()
        rest = masked(rest, form.split())
    subject = [word for word in text.removesuffix(f" is {kind}").split() if word not in ("a", "an")]
    return (
        named == {kind}
        and "or" not in words
        and _about(
            said,
            subject,
            {*question, *" ".join(_KINDS[kind]).split(), "member", "members"},
            family,
            [],
        )
    )


def _element(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Symbol, atomic number or name, whichever is asked for."""
    if "symbol" in wanted:
        return said_items.symbol(said, wanted, question, family)
    return (said_items.number if wanted[-1].isdigit() else _open)(said, wanted, question, family)


def _rhymes(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Another word that rhymes with the one asked for (the word the question ends with), and none
    beside it that does not.
    """
    from mdmspeech.data.texts.words import rhyme_of, sound_of

    flat = _flat(wanted)
    asked = next(
        (word for word in reversed(question) if word in flat and word not in JOINS), flat[-1]
    )
    if "rhymes" in said.words and said.words[-1] != asked and asked not in said.words:
        return False  # "duck rhymes with truck" where another word was asked for
    ending, own = rhyme_of(asked), sound_of(asked)
    others = [
        word
        for word in _flat(said.words)
        if word not in {*FUNCTION, *question, "and", "or", "rhymes", "rhyme", "rhyming", "word"}
    ]
    if not ending:
        return {*content(wanted)} <= {*said.words}
    good = [word for word in others if rhyme_of(word) == ending and sound_of(word) != own]
    return (
        bool(good)
        and not any(
            competes(said.words, [word], {*question, *good, "rhymes", "rhyme", "good"})
            for word in good
        )
        and len(others) <= len(good) + 2
    )


def _repeated(answer: str, expected: str) -> bool:
    """Few words differ, and no "not" came or went."""
    said, wanted = canonical(answer).split(), canonical(expected).split()
    same_sense = all(said.count(word) == wanted.count(word) for word in ("not", "no", "never"))
    return bool(wanted) and same_sense and score([expected], [answer]).wer <= REPEAT_ERRORS


_REPEATED = frozenset({"repeat", "human repeat"})
_RULES: dict[str, Rule] = {
    "comparison": _subject,
    "areas": _subject,
    "leap years": _yes_or_no,
    "definitions": _half_of_it,
    "small talk": _like_it,
    "rhymes": _rhymes,
    "neighbours": _neighbour,
    "kinds": _kind,
    "elements": _element,
    "arithmetic": said_items.number,
    "number order": said_items.number,
    "units": said_items.number,
    "clock": said_times.time,
    "counting": said_items.sequence,
    "spelling": said_items.spelling,
    "letters": said_items.letter_or_count,
    "alphabet": said_items.letter,
    "calendar": said_items.calendar,
    **{family: _open for family in _RELATIONS if family not in ("neighbours", "kinds", "elements")},
}
