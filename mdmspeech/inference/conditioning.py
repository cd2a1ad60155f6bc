"""What a Talker hears of a text: one `TextConditioner` a kind of anchors.

A conditioner is told the text as it comes, keeps what has been read of it on the device, and says
when the next block may be decoded and where the speech ends. Its `TextInputs` are the part of it
inside the compiled programs: conditions of speech positions, and what stands in front of them.

B rows (one), M symbols, N text tokens, L speech positions, D width.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.inference.symbols import SYMBOLS
from mdmspeech.models.anchors import MIN_DURATION, anchor_index
from mdmspeech.models.prepared_talker import PreparedTalker, TextBefore
from mdmspeech.padding import bucket, stack
from mdmspeech.programs import KeptProgram
from mdmspeech.speech_format import START

TEXTS = (32, 64, 128, 256)  # padded lengths of a text that is read in tokens


class TextInputs(Protocol):
    """What has been read of a text, on the device. All of one engine are of one kind."""

    @property
    def before(self) -> TextBefore | None:
        """What stands in front of the speech, if anything does."""

    def condition(self, talker: PreparedTalker, params: Any, positions_BL: Any) -> jax.Array:
        """Conditions [B, L, D] of speech positions, inside a compiled program."""


class PacedInputs(NamedTuple):
    """What paced anchors have read: features [B, M, D], durations [B, M] in speech tokens, count
    int32 [B] of symbols.
    """

    features_BMD: Any
    durations_BM: Any
    count_B: Any

    @property
    def before(self) -> None:
        """Nothing."""
        return None

    def condition(self, talker: PreparedTalker, params: Any, positions_BL: Any) -> jax.Array:
        """See `TextInputs`."""
        valid_BM = jnp.arange(self.durations_BM.shape[1])[None] < self.count_B[:, None]
        return talker.place(params, self.features_BMD, valid_BM, self.durations_BM, positions_BL)


class FixedInputs(NamedTuple):
    """What fixed anchors have read: fused text [B, N, D], and how many text tokens there are, int32
    [B].
    """

    fused_BND: Any
    count_B: Any

    @property
    def before(self) -> None:
        """Nothing."""
        return None

    def condition(self, talker: PreparedTalker, params: Any, positions_BL: Any) -> jax.Array:
        """See `TextInputs`."""
        index_BL = anchor_index(
            self.count_B, positions_BL, talker.config.block, talker.config.anchors_per_block
        )
        return talker.anchors(params, self.fused_BND, index_BL, method="place_anchors")


class PrefixInputs(NamedTuple):
    """What prefix anchors have read: keys and values of the text, which stand before the speech."""

    before: TextBefore

    def condition(self, talker: PreparedTalker, params: Any, positions_BL: Any) -> jax.Array:
        """None: the text is heard by attention."""
        return jnp.zeros((*positions_BL.shape, talker.config.dim))


class TextConditioner:
    """A text as one utterance hears it."""

    @property
    def inputs(self) -> TextInputs:
        """What has been read of it, on the device, for `TalkerEngine.advance`."""
        raise NotImplementedError

    @property
    def durations(self) -> np.ndarray:
        """Of its symbols so far, in speech tokens [M]; none where nobody knows."""
        return np.zeros(0, np.float32)

    @property
    def lasting(self) -> float:
        """How long it is, to compare it with other texts of its kind."""
        raise NotImplementedError

    def ready(self, block: int) -> bool:
        """Whether block number `block` can be decoded: nothing that comes later changes it."""
        raise NotImplementedError

    def limits(self) -> dict[str, int]:
        """What is known of the end of the speech, as fields of `TalkerEngine.ask`; nothing while
        the text is growing.
        """
        raise NotImplementedError


class PacedReader:
    """Compiled reading of symbols by a Talker with paced anchors, shared by its utterances."""

    def __init__(self, talker: PreparedTalker, params: dict):
        self.lookahead = sum(talker.config.symbol_lookahead)
        self._talker, self._params = talker, params
        program = functools.partial(KeptProgram, "Talker", about=talker.config)
        self._jit_read = program("read", self._read)
        self._jit_place = program("place", self._place, donate=("into_BMD",))

    def read(self, symbols_BM, valid_BM) -> tuple[Any, np.ndarray]:
        """(features [B, M, D], on the device; durations float32 [B, M] in speech tokens, 0 where
        padded).
        """
        features, durations = self._jit_read(self._params, symbols_BM, valid_BM)
        return features, np.asarray(durations)

    def place(self, into_BMD, features_BMD, first: int, end: int) -> jax.Array:
        """`into_BMD` [1, `SYMBOLS[-1]`, D], whose memory is reused, with the features first..end."""
        return self._jit_place(into_BMD, features_BMD, np.array([first, end], np.int32))

    def empty(self) -> np.ndarray:
        """Room for the features of one utterance."""
        return np.zeros((1, SYMBOLS[-1], self._talker.config.dim), np.float32)

    def _read(self, params, symbols_BM, valid_BM):
        features, log_durations = self._talker.read(params, symbols_BM, valid_BM)
        lasting = jnp.maximum(jnp.exp(log_durations), MIN_DURATION)
        return features, jnp.where(valid_BM, lasting, 0.0)

    @staticmethod
    def _place(into_BMD, features_BMD, where):
        first, end = where
        wanted = features_BMD.shape[1]
        at_M = jnp.arange(wanted)[None, :, None]
        new = features_BMD.astype(into_BMD.dtype)
        kept = jnp.where((at_M >= first) & (at_M < end), new, into_BMD[:, :wanted])
        return jax.lax.dynamic_update_slice(into_BMD, kept, (0, 0, 0))


class PacedText(TextConditioner):
    """Symbols of one utterance. Features and durations of symbols whose look-ahead is complete are
    kept for good.

    Args:
      pace: as in `GenerationConfig`.
    """

    def __init__(self, reader: PacedReader, block: int, pace: float = 1.0):
        self._reader, self._block, self._pace = reader, block, pace
        self._features: Any = reader.empty()
        self._durations = np.zeros((1, SYMBOLS[-1]), np.float32)
        self.count = 0  # symbols whose features can no longer change
        self.length: int | None = None  # of the speech, tokens, once it is known

    @property
    def inputs(self) -> PacedInputs:
        return PacedInputs(self._features, self._durations, np.full(1, self.count, np.int32))

    @property
    def lasting(self) -> float:
        """How long the symbols so far are spoken, in speech tokens."""
        return float(self._durations.sum(dtype=np.float64))

    @property
    def durations(self) -> np.ndarray:
        """Of the symbols so far, in speech tokens."""
        return self._durations[0, : self.count]

    def extend(self, symbols: Sequence[int], closed: bool) -> None:
        """All symbols of the utterance so far. closed: there are no more."""
        end = len(symbols) if closed else max(len(symbols) - self._reader.lookahead, 0)
        if end > self.count:
            width = bucket(len(symbols), SYMBOLS)
            padded, valid = stack([np.array(symbols, np.int32)], width, 1)
            features, durations = self._reader.read(padded, valid)
            new = slice(self.count, end)
            self._features = self._reader.place(self._features, features, self.count, end)
            self._durations = self._durations.copy()  # the device may still read the old ones
            self._durations[0, new] = paced(durations[0, new], self._pace)
            self.count = end
        if closed and self.length is None:
            self.length = known_length(self.durations)

    def give(self, durations_M: np.ndarray) -> None:
        """Other durations (speech tokens) than the Talker's own, of all symbols."""
        self._durations = np.zeros_like(self._durations)
        self._durations[0, : self.count] = durations_M
        self.length = known_length(self.durations)

    def ready(self, block: int) -> bool:
        return self.length is not None or self.lasting >= (block + 1) * self._block + 1e-3

    def limits(self) -> dict[str, int]:
        return {} if self.length is None else {"target_len": self.length}


class FixedReader:
    """Compiled fusing of [Emb(y); h] by a Talker with fixed anchors, shared by its utterances."""

    def __init__(self, talker: PreparedTalker, params: dict):
        self._talker, self._params = talker, params
        self._jit_fuse = KeptProgram(
            "Talker", "fuse", self._fuse, talker.config, donate=("into_BND",)
        )

    def fuse(self, into_BND, text_NE: np.ndarray, first: int) -> jax.Array:
        """`into_BND` [1, `TEXTS[-1]`, D], whose memory is reused, with what text tokens from number
        `first` on add where they stand.
        """
        padded, _ = stack([text_NE], bucket(len(text_NE), (1, *TEXTS)), 1, np.float32)
        where = np.array([first, first + len(text_NE)], np.int32)
        return self._jit_fuse(self._params, into_BND, padded, where)

    def empty(self) -> np.ndarray:
        """Room for the text of one utterance."""
        return np.zeros((1, TEXTS[-1], self._talker.config.dim), np.float32)

    def _fuse(self, params, into_BND, text_BNE, where):
        fused_BND = self._talker.anchors(params, text_BNE, method="fuse").astype(into_BND.dtype)
        first, end = where
        index_N = jnp.arange(into_BND.shape[1])
        there_N = jnp.clip(index_N - first, 0, fused_BND.shape[1] - 1)
        new = (index_N >= first) & (index_N < end)
        return jnp.where(new[None, :, None], fused_BND[:, there_N], into_BND)


class FixedText(TextConditioner):
    """Text tokens of one utterance.

    Args:
      longest, spare: the speech may take longest x tokens + spare speech tokens.
    """

    def __init__(self, reader: FixedReader, block: int, anchors: int, longest: int, spare: int):
        self._reader, self._block, self._anchors = reader, block, anchors
        self._longest, self._spare = longest, spare
        self._fused: Any = reader.empty()
        self.count, self.ended = 0, False

    @property
    def inputs(self) -> FixedInputs:
        return FixedInputs(self._fused, np.full(1, self.count, np.int32))

    @property
    def lasting(self) -> float:
        """In text tokens."""
        return self.count

    def extend(self, text_NE: np.ndarray) -> None:
        """[Emb(y); h] of the next text tokens, float32 [n, E]."""
        self._fused = self._reader.fuse(self._fused, text_NE, self.count)
        self.count += len(text_NE)

    def end(self) -> None:
        """There is no more text."""
        self.ended = True

    def ready(self, block: int) -> bool:
        return self.ended or self.count >= (block + 1) * self._anchors

    def limits(self) -> dict[str, int]:
        if not self.ended:
            return {}
        return {
            "min_len": earliest_end(self.count, self._anchors, self._block),
            "max_len": self._longest * self.count + self._spare,
        }


class PrefixReader:
    """Compiled reading of whole texts by a Talker with prefix anchors, shared by its utterances."""

    longest = TEXTS[-1] - 1  # ids of a text; START comes first

    def __init__(self, talker: PreparedTalker, params: dict):
        self._talker, self._params = talker, params
        self._jit_read = KeptProgram("Talker", "read_before", self._read, talker.config)

    def read(self, ids: Sequence[int]) -> TextBefore:
        """Ids of a text -> what its speech sees of it, padded to one size for all texts."""
        text_N = np.array([START, *ids], np.int32)
        padded_1N, _ = stack([text_N], bucket(len(text_N), TEXTS), 1)
        return self._jit_read(self._params, padded_1N, np.full(1, len(text_N), np.int32))

    def _read(self, params, text_1N, count_1):
        return self._talker.read_before(params, text_1N, count_1, TEXTS[-1])


class PrefixText(TextConditioner):
    """The text of one utterance, which is read whole before the first of its speech.

    Args:
      shortest, longest: the speech takes from shortest to longest tokens for each id.
    """

    def __init__(self, reader: PrefixReader, shortest: int, longest: int):
        self._reader, self._shortest, self._longest = reader, shortest, longest
        self._inputs: PrefixInputs | None = None
        self.count = 0

    @property
    def inputs(self) -> PrefixInputs:
        if self._inputs is None:
            raise RuntimeError("a text in front of its speech has not been read")
        return self._inputs

    @property
    def lasting(self) -> float:
        """In ids."""
        return self.count

    def extend(self, ids: Sequence[int]) -> None:
        """All ids of the text."""
        self._inputs, self.count = PrefixInputs(self._reader.read(ids)), len(ids)

    def ready(self, block: int) -> bool:
        return self._inputs is not None

    def limits(self) -> dict[str, int]:
        if self._inputs is None:
            return {}
        return {"min_len": self._shortest * self.count, "max_len": self._longest * self.count}


def earliest_end(count: int, anchors: int, block: int) -> int:
    """First position of the block in which the last of `count` text tokens stands."""
    return (max(count, 1) - 1) // anchors * block


def known_length(durations_M: np.ndarray) -> int:
    """Speech tokens of a text whose durations are all known; summed in float64, so that padding
    changes nothing.
    """
    return math.ceil(float(np.sum(durations_M, dtype=np.float64)) - 1e-3)


def paced(durations: np.ndarray, pace: float) -> np.ndarray:
    """Durations (speech tokens, float of any shape) at the wanted pace, none below the shortest."""
    if pace == 1.0:
        return durations
    return np.maximum(durations / np.float32(pace), np.float32(MIN_DURATION))
