"""Text pieces of the seq2seq adaptor: the English beginning of Whisper's byte-level vocabulary,
shipped as one small JSON list.

A byte-level BPE is determined by the order of its pieces: a piece was made by the one merge that
the earlier pieces leave open. So the list is enough, and no merges are stored. (One registry copy
of Whisper's tokenizer lost its first merge, " t"; from the order it comes back.)
"""

import functools
import itertools
import json
from collections.abc import Sequence
from importlib import resources

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ASSET = "whisper_pieces.json"


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
def shipped() -> Pieces:
    """The tokenizer of the shipped list."""
    return Pieces(shipped_names())


def shipped_names() -> list[str]:
    """The shipped list itself."""
    return json.loads((resources.files("mdmspeech") / "assets" / ASSET).read_text(encoding="utf-8"))


def english(vocabulary: Sequence[str], limit: int = 30_000) -> list[int]:
    """Which of Whisper's ids are kept: all 256 bytes, and of the first `limit` pieces those that
    are ASCII.

    A piece that another's merge needs is commoner than it, so the list stays closed under merging.
    """
    return [
        i
        for i, piece in enumerate(vocabulary[:limit])
        if i < 256 or piece.replace("Ġ", "").isascii()
    ]


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
