"""Text pieces of the seq2seq adaptor: the English part of Whisper's byte-level vocabulary, shipped
as a JSON list.

Whisper's multilingual vocabulary has 50,257 pieces, and which of them are kept decides what can be
written: without " repaired" its decoder writes "repared". The first release had the ASCII ones of
the first 30,000. That list lacks 9,449 of today's (" repaired", " airlines", " voyage", " fossils")
and has 3,242 that other languages need more; releases made with it are still read.

A byte-level BPE is determined by the order of its pieces: a piece was made by the one merge that
the earlier pieces leave open. So the list is enough, and no merges are stored. (One registry copy
of Whisper's tokenizer lost its first merge, " t"; from the order it comes back.)
"""

import collections
import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mdmspeech.errors import UserError

PIECES = 30_000
_BYTES = 256
_FIRST = 23_793  # of the first release
_ASSETS = {PIECES: "english_pieces.json", _FIRST: "whisper_pieces.json"}
_CAPITAL = 0.5  # so much of a word's weight has the same word with a capital, as names have


class Pieces:
    """Encodes texts into pieces and back. pieces: in the order of their ranks, bytes first, in the
    printable form of byte-level BPE ("Ġ" is a space).
    """

    def __init__(self, pieces: Sequence[str]):
        self._ranks = {piece: rank for rank, piece in enumerate(pieces)}
        self._writer = Tokenizer(models.BPE(vocab=self._ranks, merges=[]))
        self._writer.decoder = decoders.ByteLevel()

    @functools.cached_property
    def _reader(self) -> Tokenizer:
        """Only encoding needs the merges, which take half a second to find."""
        merges = [
            pair
            for piece in self._ranks
            if len(piece) > 1 and (pair := _last_merge(piece, self._ranks))
        ]
        tokenizer = Tokenizer(models.BPE(vocab=self._ranks, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return tokenizer

    def __len__(self) -> int:
        return len(self._ranks)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, which Whisper begins with a space."""
        return self._reader.encode(" " + " ".join(text.split())).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids up to the first that is no piece."""
        known = []
        for i in ids:
            if int(i) >= len(self):
                break
            known.append(int(i))
        return " ".join(self._writer.decode(known).split())


@functools.cache
def shipped(count: int = PIECES) -> Pieces:
    """The tokenizer of the shipped list that has so many pieces. UserError: there is none."""
    return Pieces(shipped_names(count))


def shipped_names(count: int = PIECES) -> list[str]:
    """The list itself. UserError: none has so many."""
    if count not in _ASSETS:
        raise UserError(
            f"the adaptor writes {count} pieces, this program knows lists of "
            f"{' and '.join(map(str, _ASSETS))}: use the version it was made with"
        )
    asset = resources.files("mdmspeech") / "assets" / _ASSETS[count]
    return json.loads(asset.read_text(encoding="utf-8"))


def english(
    vocabulary: Sequence[str], words: Mapping[str, float], count: int = PIECES
) -> list[int]:
    """Which of Whisper's ids are kept: all 256 bytes, the ASCII pieces without a letter (numbers,
    signs), and those that English words use most; each with what the merges to it need, so that the
    list, in its order, is closed under merging.

    Args:
      vocabulary: the names, in the order of their ranks. words: a word -> its share of English text;
        a word weighs the square root of that, as a piece of a rare name is worth more than its share.
      count: how many are kept, if the words use so many.
    """
    names = [n for i, n in enumerate(vocabulary) if i < _BYTES or n.replace("Ġ", "").isascii()]
    known, ranks = Pieces(names), {name: rank for rank, name in enumerate(names)}
    used: collections.defaultdict[int, float] = collections.defaultdict(float)
    for word, share in words.items():
        if word.isascii():
            for text, part in ((word, 1.0), (word.capitalize(), _CAPITAL)):
                for i in known.encode(text):
                    used[i] += part * math.sqrt(share)
    signs = [i for i, name in enumerate(names) if not any(map(str.isalpha, name.replace("Ġ", "")))]
    kept = set(range(_BYTES))
    for i in signs + sorted(used, key=lambda i: (-used[i], i)):
        needed = _needed(names[i], ranks) - kept
        if len(kept) + len(needed) <= count:
            kept |= needed
    places = {name: place for place, name in enumerate(vocabulary)}
    return sorted(places[names[i]] for i in kept)


def _needed(piece: str, ranks: dict[str, int]) -> set[int]:
    """The piece and those it is merged from, and these from, down to bytes."""
    pair = _last_merge(piece, ranks) if len(piece) > 1 else None
    return {ranks[piece]}.union(*(_needed(half, ranks) for half in pair or ()))


def _last_merge(piece: str, ranks: dict[str, int]) -> tuple[str, str] | None:
    """The pair that makes `piece`: what remains when it is merged with the ranks below its own;
    None if that is not a pair.
    """
    parts = list(piece)
    while len(parts) > 2:
        found = [
            (ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(parts))
        ]
        rank, i = min(found)
        if rank >= ranks[piece]:
            return None
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
