"""Word and character errors, counted over a whole corpus, after a normalisation that treats text
and transcript alike.

The normaliser is Whisper's English one (numbers as digits, contractions opened, spelling unified).
It leaves two freedoms that have nothing to do with what was said, and `canonical` closes them: how
digits are grouped ("7:30", "seven thirty"), and how single letters are ("C, A, T", "CAT").
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mdmspeech.errors import UserError

_CLAUSE_END = re.compile(r"[,;:?!.]+(?=\s|$)|—|…")
_SIGNS = (
    ("=", " is "),
    (" + ", " plus "),
    (" - ", " minus "),
    ("×", " times "),
    ("÷", " divided by "),
)
_LONE_LETTERS = re.compile(r"\b[a-z](?: [a-z]\b)+")


@dataclasses.dataclass(frozen=True)
class Score:
    """Errors of a corpus in U units (a clip, or a window of several clips): float64 [U] each; `wer`
    and `cer` are errors over reference length.
    """

    word_errors_U: np.ndarray
    words_U: np.ndarray
    char_errors_U: np.ndarray
    chars_U: np.ndarray

    @property
    def wer(self) -> float:
        """Word error rate of the whole corpus, 0..; insertions can bring it above 1."""
        return float(self.word_errors_U.sum() / max(self.words_U.sum(), 1))

    @property
    def cer(self) -> float:
        """Character error rate of the whole corpus."""
        return float(self.char_errors_U.sum() / max(self.chars_U.sum(), 1))

    def interval(self, draws: int = 1000) -> tuple[float, float]:
        """95% interval of `wer` by resampling units (the bootstrap; Bisani and Ney, 2004), always
        from the same seed.
        """
        picks = np.random.default_rng(0).integers(0, len(self.words_U), (draws, len(self.words_U)))
        rates = self.word_errors_U[picks].sum(1) / np.maximum(self.words_U[picks].sum(1), 1)
        low, high = np.quantile(rates, (0.025, 0.975))
        return float(low), float(high)

    def report(self) -> dict[str, float | int | list[float]]:
        """For a JSON file: rates in percent."""
        return {
            "wer": round(100 * self.wer, 2),
            "wer_95": [round(100 * x, 2) for x in self.interval()],
            "cer": round(100 * self.cer, 2),
            "words": int(self.words_U.sum()),
        }


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Counts the errors of each hypothesis against its reference. Pairs whose reference has no
    words are left out.

    Raises:
      UserError: different numbers of each, or not one reference with words.
    """
    if len(references) != len(hypotheses):
        raise UserError(
            f"{len(references)} references but {len(hypotheses)} transcripts: they must pair up"
        )
    jiwer = _jiwer()
    rows = []
    for reference, hypothesis in zip(
        map(canonical, references), map(canonical, hypotheses), strict=True
    ):
        if reference:
            words = jiwer.process_words(reference, hypothesis)
            chars = jiwer.process_characters(reference, hypothesis)
            rows.append([_errors(words), len(reference.split()), _errors(chars), len(reference)])
    if not rows:
        raise UserError("no reference text has words in it; nothing can be scored")
    return Score(*np.asarray(rows, np.float64).T)


def difference(ours: Score, theirs: Score, draws: int = 1000) -> dict[str, Any]:
    """`wer` of the one less that of the other over the same units, in percentage points, with a 95%
    interval by resampling units, both alike.
    """
    units = len(ours.words_U)
    picks = np.random.default_rng(0).integers(0, units, (draws, units))
    more_U = ours.word_errors_U - theirs.word_errors_U
    points = 100 * more_U[picks].sum(1) / np.maximum(ours.words_U[picks].sum(1), 1)
    low, high = np.quantile(points, (0.025, 0.975))
    return {
        "points": round(100 * float(ours.wer - theirs.wer), 2),
        "points_95": [round(float(low), 2), round(float(high), 2)],
    }


def wilson(right: int, of: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927): it stays inside 0..1 and holds for few cases too. (0,
    1) of nothing.
    """
    if not of:
        return 0.0, 1.0
    z, share = 1.959964, right / of
    middle, half = (
        share + z * z / (2 * of),
        z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)),
    )
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def canonical(text: str) -> str:
    """`text` as lower-case words; numbers digit by digit, single letters in a row as one word: "At
    7:30, C-A-T!" -> "at 7 3 0 cat".
    """
    for sign, word in _SIGNS:
        text = text.replace(sign, word)
    # Clause by clause, because the normaliser would read "six, seven" as 67.
    said = " ".join(normalised(clause) for clause in _CLAUSE_END.split(text))
    said = (
        re.sub(r"(\d)\.(\d)", r"\1 point \2", said).replace("+", " plus ").replace("-", " minus ")
    )
    # Digits one by one, but a run of zeros as one: Whisper's "1,000,000,000" for "a thousand" is
    # one wrong word, not nine.
    said = re.sub(r"(00+|\d)", r" \1 ", said.replace(".", " "))
    said = " ".join(said.split())
    return _LONE_LETTERS.sub(lambda run: run[0].replace(" ", ""), said)


def _errors(alignment) -> int:
    return alignment.substitutions + alignment.deletions + alignment.insertions


def _jiwer():
    try:
        import jiwer
    except ImportError as error:
        raise UserError(
            "word error rates need jiwer: pip install jiwer whisper-normalizer"
        ) from error
    return jiwer


@functools.lru_cache(maxsize=8192)
def normalised(text: str) -> str:
    """What Whisper's English text normaliser makes of a text."""
    return _normaliser()(text)


@functools.lru_cache(maxsize=1)
def _normaliser():
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise UserError(
            "word error rates need whisper-normalizer: pip install jiwer whisper-normalizer"
        ) from error
    return EnglishTextNormalizer()
