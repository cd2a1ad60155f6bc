"""Is an answer right? Text against the expected answer, on normalised words, by what the family of the question asks for.

The same judge sees typed and spoken questions' answers, so what it is too strict or too lax about cancels in their ratio.
"""

import difflib
import re
from collections.abc import Callable

from mdmspeech.evaluation.scoring import canonical, score

REPEAT_ERRORS = 0.15  # of the words, in a sentence that was to be repeated
_HALF = 0.5
_ALIKE = 0.75  # share of common letters at which a name counts as the one asked for, misspelt
_FILLERS = frozenset(
    {
        "the",
        "a",
        "an",
        "is",
        "are",
        "was",
        "of",
        "in",
        "on",
        "to",
        "and",
        "it",
        "that",
        "this",
        "they",
        "with",
        "for",
        "there",
        "will",
        "be",
        "means",
    }
)
_NUMBER = re.compile(r"(?:minus )?\d+(?: \d+)*\b")

Words = list[str]


def is_right(answer: str, expected: str, family: str, question: str = "") -> bool:
    """True when `answer` says what `expected` says.

    Args:
      answer: what was answered. expected: the record's answer. family: the record's family, which decides what counts; an unknown one is
        judged by the words of `expected` that the question does not hold.
      question: the question's text; without it more of `expected` has to be said.
    """
    said, wanted = _words(answer), _words(expected)
    if not said:
        return False
    asked = _words(question)
    rule = _RULES.get(family, _new_words)
    return said == wanted or (rule(said, wanted, asked) and (rule in _WHOLE or _about_it(said, wanted, asked)))


def _words(text: str) -> Words:
    """Canonical words, each number one word: "It is six fifteen." -> it, is, 615."""
    return _NUMBER.sub(lambda run: run[0].replace("minus ", "-").replace(" ", ""), canonical(text)).split()


def _numbers(words: Words) -> Words:
    return [word for word in words if re.fullmatch(r"-?\d+", word)]


def _about_it(said: Words, wanted: Words, question: Words) -> bool:
    """False when the answer names another thing than the expected one does ("Angola is in Africa" where Zimbabwe was asked for).

    It may leave the thing out, or misspell it: the Thinker spells what it heard.
    """
    strange = [word for word in said if word not in wanted and word not in question and word not in _FILLERS]
    missing = [word for word in wanted if word not in said and word not in _FILLERS]
    if not strange:
        return True
    return all(any(difflib.SequenceMatcher(None, word, other).ratio() >= _ALIKE for other in strange) for word in missing)


def _new_words(said: Words, wanted: Words, question: Words) -> bool:
    """Every word (fillers aside) that the expected answer adds to the question, and no number from elsewhere."""
    content = [word for word in wanted if word not in _FILLERS]
    new = [word for word in content if word not in question] if question else content
    if set(_numbers(said)) - set(_numbers(wanted)) - set(_numbers(question)):
        return False
    if not new:  # the answer is in the question: what the expected answer ends with has to end this one
        return content[-1:] == [word for word in said if word not in _FILLERS][-1:]
    return set(new) <= set(said)


def _new_number(said: Words, wanted: Words, question: Words) -> bool:
    """The result: the numbers that the question does not hold, and no others; or the same last number when it holds them all."""
    new = set(_numbers(wanted)) - set(_numbers(question))
    strange = set(_numbers(said)) - set(_numbers(wanted)) - set(_numbers(question))
    if new and question:
        return new <= set(_numbers(said)) and not strange
    return _numbers(said)[-1:] == _numbers(wanted)[-1:] and not strange


def _subject(said: Words, wanted: Words, question: Words) -> bool:
    """Comparisons hold both sides; what counts is which one stands before "is"."""

    def before(words: Words) -> set[str]:
        return set(words[: words.index("is")] if "is" in words else words) - _FILLERS

    return before(said) == before(wanted)


def _sequence(said: Words, wanted: Words, question: Words) -> bool:
    """Every number of a list, in order; what stands before "are" is not the list."""

    def listed(words: Words) -> str:
        return "".join(_numbers(words[words.index("are") :] if "are" in words else words))

    return listed(said) == listed(wanted)


def _spelled(said: Words, wanted: Words, question: Words) -> bool:
    """The letters after "spelled"; `canonical` has made one word of them."""

    def letters(words: Words) -> str:
        return "".join(words[words.index("spelled") + 1 :] if "spelled" in words else words[-1:])

    return letters(said) == letters(wanted)


def _letter(said: Words, wanted: Words, question: Words) -> bool:
    """A count of letters, or one letter at the end."""
    return _numbers(said) == _numbers(wanted) if wanted[-1] == "letters" else said[-1:] == wanted[-1:]


def _yes_or_no(said: Words, wanted: Words, question: Words) -> bool:
    return ("not" in said) == ("not" in wanted) and _numbers(said) == _numbers(wanted)


def _half_of_it(said: Words, wanted: Words, question: Words) -> bool:
    """Half of the words that the expected answer adds: definitions can be worded in more than one way."""
    new = {word for word in wanted if word not in _FILLERS and word not in question}
    return len(new & set(said)) >= _HALF * len(new)


def _like_it(said: Words, wanted: Words, question: Words) -> bool:
    """Small talk has no truth: at least half of the words are shared (F1)."""
    return 2 * len(set(said) & set(wanted)) >= _HALF * (len(set(said)) + len(set(wanted)))


def _repeated(said: Words, wanted: Words, question: Words) -> bool:
    return score([" ".join(wanted)], [" ".join(said)]).wer <= REPEAT_ERRORS


def _rhymes(said: Words, wanted: Words, question: Words) -> bool:
    """Any other word that rhymes with the one asked for (the word the question ends with)."""
    from mdmspeech.data.texts.words import rhyme_of, sound_of

    asked = next((word for word in reversed(question) if word in wanted), wanted[-1])
    ending, own = rhyme_of(asked), sound_of(asked)
    others = [word for word in said if word not in {*_FILLERS, "rhymes", "word", asked}]
    return any(rhyme_of(word) == ending and sound_of(word) != own for word in others) if ending else set(wanted) <= set(said)


def _neighbour(said: Words, wanted: Words, question: Words) -> bool:
    """Any country that borders the one asked for: most have more than one."""
    from mdmspeech.data.texts.geography import countries

    known = {country.code: country for country in countries()}
    names = {code: canonical(country.name) for code, country in known.items()}
    asked = max((code for code in names if names[code] in " ".join(question)), key=lambda code: len(names[code]), default=None)
    if asked is None:
        return _new_words(said, wanted, question)
    return any(f" {names[code]} " in f" {' '.join(said)} " for code in known[asked].neighbours if code in names)


_WHOLE = (_sequence, _spelled, _half_of_it, _like_it, _repeated, _rhymes, _neighbour)  # rules that look at all of the answer themselves
_RULES: dict[str, Callable[[Words, Words, Words], bool]] = {
    "arithmetic": _new_number,
    "number order": _new_number,
    "clock": _new_number,
    "units": _new_number,
    "comparison": _subject,
    "areas": _subject,
    "counting": _sequence,
    "spelling": _spelled,
    "letters": _letter,
    "alphabet": _letter,
    "leap years": _yes_or_no,
    "definitions": _half_of_it,
    "small talk": _like_it,
    "rhymes": _rhymes,
    "neighbours": _neighbour,
    "repeat": _repeated,
    "human repeat": _repeated,
}
