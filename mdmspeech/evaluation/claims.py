"""What a text claims: its words in order, without what it denies, asks, takes back or only guesses
at.

An answer is judged by what it states. "The capital is not Rome", "Rome?", "maybe Rome" and "Rome or
Milan" hold the word, and do not state it.
"""

import dataclasses
import difflib
import functools
import re
from collections.abc import Collection, Sequence

from mdmspeech.evaluation.scoring import normalised

Words = list[str]
BREAK, STOP = ",", "."  # tokens between pieces of a sentence, and between sentences
JOINS = frozenset({BREAK, "and", "or", "/"})

# Words that name nothing: they may stand beside any answer.
FUNCTION = frozenset({
    "the", "a", "an", "is", "are", "was", "were", "be", "been", "being", "am", "of", "in", "on",
    "at", "to", "and", "or", "it", "its",
    "that", "this", "these", "those", "they", "them", "there", "here", "will", "would", "means",
    "mean", "with", "for", "i", "you",
    "we", "he", "she", "my", "your", "me", "us", "as", "by", "from", "so", "then", "now", "very",
    "just", "right", "exactly", "simply",
    "also", "too", "which", "what", "who", "where", "when", "how", "whose", "has", "have", "had",
    "do", "does", "did", "can", "called",
    "named", "known", "yes", "well", "okay", "ok", "sure", "course", "certainly",
})  # fmt: skip
PLAIN = FUNCTION | frozenset({
    "found", "located", "situated", "lies", "lie", "placed", "country", "city", "capital",
    "continent", "kingdom", "group", "groups",
    "member", "members", "part", "belong", "belongs", "type", "kind", "thing", "things", "word",
    "words", "letter", "letters", "number",
    "numbers", "answer", "correct", "name", "names", "equal", "equals", "gives", "give", "makes",
    "make", "get", "gets", "comes",
    "come", "total", "result", "one", "ones", "lot", "people", "person", "language", "languages",
    "official", "spoken", "speak",
    "spoke", "used", "use", "uses", "need", "needs", "pay", "money", "currency", "convert", "say",
    "said", "spelled", "spelt",
    "written", "write", "stands", "stand", "born", "opposite", "contrary", "symbol", "element",
    "atomic", "plural", "past", "tense",
    "form", "day", "days", "month", "months", "year", "years", "week", "larger", "bigger",
    "smaller", "more", "less", "land", "area",
})  # fmt: skip
_ARTICLES = frozenset({
    "the", "a", "an", "of", "in", "city", "country", "is", "it", "to",
})  # fmt: skip
_COPULAS = frozenset({
    "is", "are", "was", "were", "be", "called", "named", "means", "say",
})  # fmt: skip
_NEGATIONS = frozenset({
    "not", "no", "never", "neither", "nor", "none", "nothing", "nobody", "nowhere", "without",
    "cannot", "hardly", "barely", "except",
    "unlike", "isnt", "arent", "dont", "doesnt", "didnt", "wasnt", "wont", "cant", "aint",
    "instead", "excluding",
})  # fmt: skip
_DENIALS = frozenset({
    "wrong", "false", "incorrect", "untrue", "mistaken", "myth", "lie", "doubt", "deny", "denies",
    "joking", "kidding", "opposed",
    "disagree", "nonsense",
})  # fmt: skip
_HEDGES = frozenset({
    "maybe", "perhaps", "possibly", "probably", "presumably", "supposedly", "allegedly",
    "apparently", "hopefully", "might", "could",
    "guess", "guessing", "suppose", "assume", "unsure", "uncertain", "either", "think", "believe",
    "seems", "depends", "idea",
    "whether",
})  # fmt: skip
_UNSURE = re.compile(
    r"\bmay (be|have|well)\b|\bnot (sure|certain|know|tell|say|remember)\b"
    r"|\bcan be\b|\bif (i|it|you) \w+ (right|correctly|mistaken)\b"
)
_TAKEN_BACK = frozenset({
    "no", "nope", "wait", "sorry", "actually", "correction", "rather", "i mean", "scratch that",
    "or rather", "no wait",
})  # fmt: skip
_SIGNS = (
    ("’", "'"),
    ("=", " is "),
    ("×", " times "),
    ("÷", " divided by "),
    (" * ", " times "),
    (" + ", " plus "),
    (" - ", " minus "),
    (" − ", " minus "),
    ("(", ", "),
    (")", ", "),
    ("—", ", "),
    (" – ", ", "),
)
_SENTENCE_END = re.compile(r"(?<!\bSt\.)(?<!\.[A-Z]\.)(?<=[.!?;])\s+|\n+")
_PIECE_END = re.compile(
    (
        r"[,:]+(?=\s|$)|\s(?=(?:but|rather than|instead of|other than|as opposed to"
        r"|except|unlike|and not|or not)\s)"
    ),
    re.IGNORECASE,
)
_BUT_NOT = re.compile(
    (
        r"\b(?:anything|everything|anywhere|anyone|nothing|all|any \w+) (?:but|except"
        r"|other than|besides)\b"
    ),
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Claims:
    """What is stated. words: tokens, with BREAK between pieces and STOP between sentences. denied:
    what is denied. guessed: it hedges or takes all back.
    """

    words: Words
    denied: Words
    guessed: bool
    text: str = ""


def claims(text: str, expected: Words, question: Words) -> Claims:
    """Reads an answer. Words of the expected answer and of the question neither hedge nor deny."""
    allowed = {*expected, *question}
    stated: list[Words] = []
    denied: Words = []
    for sentence in sentences(text):
        if sentence.rstrip().endswith("?"):
            continue
        kept, below = [], False  # below: under a negation of this sentence
        for piece in pieces(sentence):
            if " ".join(piece) in _TAKEN_BACK and not {*piece} & {*expected}:
                stated, kept, below = [], [], False
                continue
            negated = bool(
                {*piece} & (_NEGATIONS - {*expected}) - ({"not"} & {*question})
            ) or piece[:2] in (["rather", "than"], ["other", "than"], ["as", "opposed"])
            below = negated or (below and piece[0] != "but" and not {*piece} & {*_COPULAS, "it"})
            if below:
                denied += piece
            else:
                kept.append(piece)
        if kept:
            stated.append(joined(kept, BREAK))
    flat = " ".join(word for word in tokens(text) if word not in JOINS - {"or"})
    guessed = bool({*flat.split()} & (_HEDGES | _DENIALS) - allowed) or bool(
        _UNSURE.search(flat) and not _UNSURE.search(" ".join(question))
    )
    return Claims(joined(stated, STOP), denied, guessed, text)


@functools.lru_cache(maxsize=1024)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(joined([joined(pieces(sentence), BREAK) for sentence in sentences(text)], STOP))


def tokens(text: str) -> Words:
    """All words of a text with BREAK and STOP between its pieces and sentences; numbers as digits:
    "six feet, one inch" -> 6 feet , 1 inch.
    """
    return list(_tokens(text))


def sentences(text: str) -> list[str]:
    """Without quotes and with signs as words."""
    for sign, word in _SIGNS:
        text = text.replace(sign, word)
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=\d)", " times ", text)
    text = re.sub(r"(?<=\d)\s*\+\s*(?=\d)", " plus ", text)
    text = re.sub(r"(?:(?<=\d)\s*|(?<!\w))[-−]\s*(?=\d)", " minus ", text)
    text = re.sub(r"\bo'clock\b", "oclock", text, flags=re.IGNORECASE)
    text = re.sub(r"[\"“”`*]|(?<!\w)['‘]|'(?!\w)", " ", text)
    text = _BUT_NOT.sub(" not ", text)
    return [
        sentence for sentence in _SENTENCE_END.split(text.strip()) if re.search(r"\w", sentence)
    ]


def pieces(sentence: str) -> list[Words]:
    """The words of each part of a sentence between commas, "but" and the like."""
    found = [_words(piece) for piece in _PIECE_END.split(sentence)]
    return [piece for piece in found if piece]


def _words(piece: str) -> Words:
    found: Words = []
    for part in re.split(
        r"\s(?=and\s|or\s)|(?<=\sand)\s|(?<=\sor)\s", f" {piece.replace('/', ' / ')}"
    ):
        # the letter, which the normaliser takes for a zero
        part = re.sub(r"\b[oO]\b", "letteroh", part)
        for word in normalised(part).split() or [part.strip()] * (part.strip() in JOINS):
            after_number = bool(found) and found[-1][-1:].isdigit()
            if re.fullmatch(r"[+-](\d.*|one)", word) and after_number:
                found += ["minus" if word[0] == "-" else "plus", word[1:]]
            else:
                found.append(word)
    return ["o" if word == "letteroh" else word.strip(".") for word in found if word.strip(".")]


def joined(parts: Sequence[Words], between: str) -> Words:
    """One list, with a token between the parts."""
    return [word for n, part in enumerate(parts) for word in ([between, *part] if n else part)]


def content(words: Collection[str]) -> Words:
    """Words that name something."""
    return [word for word in words if word not in PLAIN and word not in JOINS and word != STOP]


def beyond(words: Words, question: Words, shortest: int = 3) -> Words:
    """`words` without what they only repeat of the question: runs of `shortest` words or more."""
    blocks = difflib.SequenceMatcher(None, words, question, autojunk=False).get_matching_blocks()
    repeated = {
        i
        for block in blocks
        if block.size >= shortest
        for i in range(block.a, block.a + block.size)
    }
    return [word for i, word in enumerate(words) if i not in repeated]


def places(words: Words, phrase: Words) -> list[int]:
    """Where a phrase begins, word for word."""
    return [
        i
        for i in range(len(words) - len(phrase) + 1)
        if phrase and words[i : i + len(phrase)] == phrase
    ]


def masked(words: Words, phrase: Words) -> Words:
    """`words` with each occurrence of a phrase as one "_"."""
    found, i = [], 0
    while i < len(words):
        here = bool(phrase) and words[i : i + len(phrase)] == phrase
        found.append("_" if here else words[i])
        i += len(phrase) if here else 1
    return found


def competes(words: Words, value: Words, known: Collection[str]) -> bool:
    """Whether something else is named as the answer: in a list with `value`, or by a part of its
    own.
    known: words that name nothing else.
    """

    def strange(word: str) -> bool:
        return word not in known and word not in PLAIN and word not in value and word != "_"

    for sentence in _split(words, {STOP}):
        parts = _split(sentence, JOINS)
        beside = [word for word in sentence if word in JOINS]  # the k-th stands after parts[k]
        items = sum(
            0 < len(part) <= 3 and all(map(strange, content(part) or ["the"])) for part in parts
        )
        for k in (k for k, part in enumerate(parts) if places(part, value)):
            before, after = beside[k - 1] if k else "", beside[k] if k < len(beside) else ""
            if "or" in (before, after) or items > 1:
                return True
            left, right = _bare(parts[k - 1]) if k else [], _bare(parts[k + 1]) if after else []
            if (before in ("and", "/") and left and strange(left[-1])) or (
                after in ("and", "/") and right and strange(right[0])
            ):
                return True
        if any(
            _rival(part, strange) for part in _split(sentence, {BREAK}) if not places(part, value)
        ):
            return True
        alone = [word for word in sentence if word not in _ARTICLES]
        if 0 < len(alone) <= 2 and all(map(strange, alone)):
            return True
    return False


def _bare(part: Words) -> Words:
    return [word for word in part if word not in _ARTICLES]


def _rival(part: Words, strange) -> bool:
    """A part of its own that names another: "the capital is Rome"."""
    copula = max((i for i, word in enumerate(part) if word in _COPULAS), default=None)
    after = [] if copula is None else [word for word in part[copula + 1 :] if word != "the"]
    return bool(after) and after[0] not in ("a", "an") and strange(after[0])


def _split(words: Words, at: Collection[str]) -> list[Words]:
    parts: list[Words] = [[]]
    for word in words:
        if word in at:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts
