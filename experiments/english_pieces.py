"""Chooses which pieces of Whisper's vocabulary the ear can write: those that English words use.

Command:  python -m experiments.english_pieces
          (--words FILE: lines of word<TAB>share instead; -o FILE: another than the shipped list)
Needs:    pip install wordfreq==3.1.1, whose list "large" has 321,180 English words (Speer 2022,
          CC BY-SA 4.0); seconds

Why 30,000: sentences with rare words in voices of a training (the corpus' `rare_val`, 120 of them
with 159 rare words), written by Whisper-base's own decoder over states of the speech and 8 s of
silence, choosing among the pieces of a list; compared by hand, 2026-11-30:

    pieces                                              word errors   rare words right
    38,749  all that are ASCII                               12.1 %                 90
    30,000  this list                                        12.2 %                 91
    30,000  this list, its embedding stored in 6 bits        11.5 %                 93
    23,793  ASCII ones of the first 30,000 (first release)   15.4 %                 78

    words and signs apart, and with a capital weighing a fifth:
    30,000                                                   12.3 %                 92
    27,500                                                   13.2 %                 87
    24,150                                                   14.2 %                 84
    30,000  words weigh their share, not its root            12.0 %                 91
    24,150  the same                                         15.4 %                 75
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mdmspeech
from mdmspeech.errors import UserError
from mdmspeech.interop.whisper_decoder import save_pieces

ASSET = Path(mdmspeech.__file__).parent / "assets" / "english_pieces.json"


def read_words(path: str | None) -> Mapping[str, float]:
    """word -> its share of English text: lines of `word<TAB>share`, or of wordfreq. UserError: a
    line that is none, or no wordfreq.
    """
    if path is None:
        try:
            from wordfreq import get_frequency_dict
        except ImportError as error:
            raise UserError(
                "the words are those of the package wordfreq: pip install wordfreq==3.1.1, or give "
                "--words FILE"
            ) from error
        return get_frequency_dict("en", "large")
    words = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        word, _, share = line.partition("\t")
        try:
            words[word] = float(share)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not a word, a tab and its share") from error
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.english_pieces")
    parser.add_argument("--words", help="a file of `word<TAB>share` instead of wordfreq")
    parser.add_argument("-o", "--output", default=ASSET, help="default: the shipped list")
    args = parser.parse_args(argv)
    try:
        print(f"{save_pieces(args.output, read_words(args.words))} pieces -> {args.output}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
