"""A Talker that decodes block by block, for any mix of utterances: compiled programs over arrays,
nothing else.

An utterance being spoken is a `Row`, with state and cache of its own on the device. `advance` takes
any rows, in any company, by one block or more; blocks and their steps run inside the device. Rows
join and leave a batch without being moved, and nothing a row computes depends on its neighbours.
What a row hears comes from its text (`inference.conditioning`), which lies on the device, too.

Shapes are few, so that nothing is compiled while people talk: batches of `ROWS` rows, a cache of
`BLOCKS[-1]` blocks of which the first of `BLOCKS` that suffice are looked at.

A rows of a batch, K block size, L speech positions, D width.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding import autoregressive, block_diffusion, multi_token
from mdmspeech.decoding.state import (
    DecodingConfig,
    DecodingState,
    FinishReason,
    SamplingParams,
    initial_state,
)
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import TextInputs
from mdmspeech.models.prepared_talker import PreparedHeads, PreparedTalker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.padding import bucket
from mdmspeech.programs import KeptProgram
from mdmspeech.speech_format import BOS, CODES, EOS, MASK, PAD

MODES = {
    "mdm": block_diffusion,
    "ntp": autoregressive,
    "mtp": multi_token,
    "mtp_verified": multi_token,  # what the modules tell is checked: the tokens are head 0's
}
BLOCKS = (8, 16, 32, 64)  # how far back a program looks; the last is the longest utterance
ROWS = (1, 4, 8, 32)  # utterances in one forward


class NewTokens(NamedTuple):
    """Tokens of one row int32 [n], the step of each in its block, the confidence of each."""

    ids_N: np.ndarray
    step_N: np.ndarray
    confidence_N: np.ndarray


@dataclasses.dataclass
class Row:
    """One utterance on its way. What is on the device is `state`; the rest is known to the host.

    Attributes:
      blocks: decoded so far. length: tokens so far. done, reason: whether and why it has ended.
    """

    state: DecodingState | None
    blocks: int = 0
    length: int = 0
    done: bool = False
    reason: FinishReason = FinishReason.RUNNING


class TalkerEngine:
    """Compiled decoding of one Talker.

    Args:
      config, params: of a Talker. mode: one of `MODES`.
      options: further fields of `decoding.state.DecodingConfig`.

    Raises:
      UserError: unknown mode, or more tokens a forward than the Talker has modules for.
    """

    def __init__(self, config: TalkerConfig, params: dict, mode: str = "mdm", **options: Any):
        if mode not in MODES:
            raise UserError(f"talker mode {mode!r}: choose {' or '.join(MODES)}")
        if MODES[mode] is multi_token:
            options.setdefault("mtp_emit", min(DecodingConfig.mtp_emit, 1 + config.mtp_modules))
            options["mtp_verify"] = mode == "mtp_verified"
            _check_modules(config, options["mtp_emit"])
        self.talker, self.params = PreparedTalker.of(config, params)
        self.config = self.talker.config
        self.options = decoding_config(config, **options)
        self.mode, self._pure = mode, PureEngine(self.talker, mode, self.options)
        self._spare: list[Any] = []  # caches of rows that have been closed
        program = functools.partial(KeptProgram, "Talker", about=(self.config, mode, self.options))
        self._jit_begin = program("begin", self._pure.begin, donate=("cache",))
        self._jit_advance = program(
            "advance", self._pure.advance, static=("seen",), donate=("states",)
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest utterance."""
        return self._pure.longest

    def open(self, **asked: Any) -> Row:
        """A row before its first token. asked: seed, steps, temperature, target_len, min_len,
        max_len, see `SamplingParams.create`.
        """
        cache = self._spare.pop() if self._spare else self._pure.empty_cache()
        return Row(self._jit_begin(cache, wishes(**asked)))

    def close(self, row: Row) -> None:
        """The row is not needed any more: another one gets its memory."""
        if row.state is not None:
            self._spare.append(row.state.cache)
            row.state = None

    def ask(self, row: Row, **fields: int) -> None:
        """Changes what is asked for of the blocks to come: steps, target_len, min_len, max_len."""
        state = _open(row)
        new: dict[str, Any] = {f"{k}_B": np.full(1, v, np.int32) for k, v in fields.items()}
        row.state = dataclasses.replace(state, request=dataclasses.replace(state.request, **new))

    def advance(
        self, rows: Sequence[Row], texts: Sequence[TextInputs], blocks: int = 1
    ) -> list[NewTokens]:
        """Decodes the next blocks of every row, at most `blocks`, fewer where it ends. texts: what
        each hears.

        Rows are taken in batches of `ROWS`, without any that only fill one.

        Returns:
          the new tokens of each row.
        """
        out: list[NewTokens] = []
        while len(out) < len(rows):
            size = max(n for n in ROWS if n <= len(rows) - len(out))
            batch = slice(len(out), len(out) + size)
            out += self._advanced(rows[batch], texts[batch], blocks)
        return out

    def decode(self, texts: Sequence[TextInputs], **asked: Any) -> list[tuple[Row, NewTokens]]:
        """Whole utterances, one a text, all alike or each as asked for (a value or a list of them,
        see `open`).
        """
        rows = [
            self.open(**{k: v[i] if np.ndim(v) else v for k, v in asked.items()})
            for i in range(len(texts))
        ]
        parts: list[list[NewTokens]] = [[] for _ in rows]
        while left := [i for i, row in enumerate(rows) if not row.done]:
            new = self.advance([rows[i] for i in left], [texts[i] for i in left], BLOCKS[0])
            for i, tokens in zip(left, new, strict=True):
                parts[i].append(tokens)
        for row in rows:
            self.close(row)
        whole = [NewTokens(*map(np.concatenate, zip(*part, strict=True))) for part in parts]
        return list(zip(rows, whole, strict=True))

    def warm_up(self, text: TextInputs) -> None:
        """Compiles every program that rows of a text can need, whatever stands in it."""
        for size in ROWS:
            for blocks in BLOCKS:
                rows = [self.open(steps=1) for _ in range(size)]
                for row in rows:
                    row.blocks = blocks - 1  # as if it had come so far
                self.advance(rows, [text] * size)
                for row in rows:
                    self.close(row)

    def _advanced(self, rows, texts, blocks) -> list[NewTokens]:
        needed = max(row.blocks for row in rows) + blocks
        states, out = self._jit_advance(
            self.params,
            tuple(texts),
            tuple(_open(row) for row in rows),
            np.int32(blocks),
            seen=bucket(needed, BLOCKS),
        )
        ids_AL, step_AL, confidence_AL, length_A, block_A, done_A, reason_A = map(np.asarray, out)
        tokens = []
        for i, row in enumerate(rows):
            start, end = row.length, int(length_A[i])
            row.state, row.blocks, row.length = states[i], int(block_A[i]), end
            row.done, row.reason = bool(done_A[i]), FinishReason(int(reason_A[i]))
            new = (i, slice(start, end))
            tokens.append(NewTokens(ids_AL[new], step_AL[new], confidence_AL[new]))
        return tokens


@dataclasses.dataclass(frozen=True)
class PureEngine:
    """The functions of arrays that an engine compiles. Static: it holds no arrays."""

    talker: PreparedTalker
    mode: str
    options: DecodingConfig

    @property
    def longest(self) -> int:
        """Tokens of the longest utterance."""
        return BLOCKS[-1] * self.talker.config.block

    def empty_cache(self):
        """Of one row."""
        return self.talker.empty_cache(cache_slots(self.longest, self.talker.config.block))

    def begin(self, cache, wished) -> DecodingState:
        """The state of one row before its first token. wished: see `wishes`."""
        request = SamplingParams.create(1, **wished)
        return initial_state(cache, request, self.options, self.longest, self.talker.config.dim)

    def advance(self, params, texts, states, blocks, seen):
        """Rows (a state and a text each) by `blocks` blocks, of which the first `seen` of an utterance
        are looked at -> (states; ids, steps and confidences [A, `seen` K], then lengths, blocks, done
        and reasons [A]).
        """
        block, rows = self.talker.config.block, len(states)
        caches = tuple(state.cache for state in states)
        # One batch of everything but the caches, which stay where they are.
        bare = [dataclasses.replace(state, cache=(), forwards=jnp.int32(0)) for state in states]
        batch = jax.tree.map(lambda *x: jnp.concatenate(x) if x[0].ndim else x[0], *bare)
        batch = dataclasses.replace(batch, cache=caches, max_blocks=seen)
        length = seen * block
        out = (
            jnp.full((rows, length), PAD, jnp.int32),
            jnp.full((rows, length), -1, jnp.int32),
            jnp.zeros((rows, length), jnp.float32),
        )
        before = [text.before for text in texts if text.before is not None]
        step: Any = functools.partial(self.talker.step, params, before)
        if MODES[self.mode] is multi_token:
            step = PreparedHeads(self.talker, params)
        offset_1K = jnp.arange(block, dtype=jnp.int32)[None]

        def unfinished(carry):
            done, state, _ = carry
            in_sight = jnp.all(state.done_B | (state.block_B < seen))
            return (done < blocks) & ~jnp.all(state.done_B) & in_sight

        def one_block(carry):
            done, state, out = carry
            running_B = ~state.done_B
            start_B = jnp.minimum(state.block_B, seen - 1) * block
            cond_BKD = jnp.concatenate(
                [
                    text.condition(self.talker, params, start_B[i : i + 1, None] + offset_1K)
                    for i, text in enumerate(texts)
                ]
            )
            state, new = MODES[self.mode].decode_block(step, state, cond_BKD, self.options)
            out = tuple(
                block_diffusion.put(whole, part, start_B, running_B)
                for whole, part in zip(
                    out, (new.ids_BL, new.step_BL, new.confidence_BL), strict=True
                )
            )
            return done + 1, state, out

        _, batch, out = jax.lax.while_loop(unfinished, one_block, (jnp.int32(0), batch, out))
        told = (
            *out,
            batch.length_B,
            # the last block of a row that has ended is decoded, too
            batch.block_B + batch.done_B,
            batch.done_B,
            batch.reason_B,
        )
        rest = dataclasses.replace(batch, cache=())
        apart = [
            dataclasses.replace(
                jax.tree.map(lambda x, i=i: x[i : i + 1] if x.ndim else x, rest),
                cache=batch.cache[i],
                max_blocks=states[i].max_blocks,
            )
            for i in range(rows)
        ]
        return tuple(apart), told


def wishes(**asked: Any) -> dict[str, np.ndarray]:
    """What a row is asked for, see `TalkerEngine.open`, the rest as it is by default."""
    wished = {"seed": 0, "steps": 4, "temperature": 0.0, "target_len": -1, "min_len": 0}
    kinds = {"seed": np.uint32, "temperature": np.float32}
    wished |= {"max_len": -1, **asked}
    return {k: np.asarray(v, kinds.get(k, np.int32)) for k, v in wished.items()}


def decoding_config(config: TalkerConfig, **options: Any) -> DecodingConfig:
    """How a Talker's tokens are decoded: block and label shift are its own, ids those of all
    Talkers. options: further fields.
    """
    ids: dict[str, Any] = {"codes": CODES, "bos": BOS, "eos": EOS, "pad": PAD, "mask": MASK}
    return DecodingConfig(block=config.block, label_shift=config.label_shift, **ids, **options)


def _check_modules(config: TalkerConfig, emit: int) -> None:
    """UserError: a Talker without modules of multi-token prediction, or with too few."""
    if not config.mtp_modules:
        raise UserError(
            "this Talker has no modules of multi-token prediction (mtp_modules=0): speak with "
            "it by mode 'ntp', or train one with experiments/compact_talker_mtp.py"
        )
    if emit > 1 + config.mtp_modules:
        raise UserError(
            f"mtp_emit={emit}: with mtp_modules={config.mtp_modules} a "
            f"forward writes at most {1 + config.mtp_modules} tokens"
        )


def _open(row: Row) -> DecodingState:
    if row.state is None:
        raise RuntimeError("the row has been closed")
    return row.state
