"""What the decoders (block_diffusion.py, autoregressive.py, multi_token.py) take and give: options,
requests, the state between blocks, the model as a function.

Static things (they shape the compiled program) are in `DecodingConfig`; everything that differs
from row to row is in `SamplingParams`, an array a field, so that one compiled program serves any
mix of steps, temperatures, lengths and seeds. B batch (rows), T tokens of one forward, K block
size, D condition width, S cache slots, V vocabulary, L length.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding.sampling import check_filters
from mdmspeech.diffusion.layout import NO_END, cache_slots
from mdmspeech.diffusion.unmasking import score_rule
from mdmspeech.errors import UserError

COUNTS = ("quota", "threshold", "entropy_bound")


class ModelFn(Protocol):
    """The model, as the decoders see it: one forward over a K/V cache, params closed over. A pure
    function.
    """

    def __call__(
        self,
        cache: Any,
        ids_BT: jax.Array,
        cond_BTD: jax.Array,
        positions_BT: jax.Array,
        mask_BTS: jax.Array,
        write_at_B: jax.Array,
        num_logits: int,
    ) -> tuple[jax.Array, Any]:
        """Returns (logits [B, num_logits, V] of the LAST `num_logits` tokens, new cache).

        The model embeds `ids_BT`, adds `cond_BTD`, rotates by `positions_BT` (position in the
        utterance, not slot), writes the T tokens' K/V into slots `write_at_B[b] .. write_at_B[b] +
        T - 1` of row b, then attends over all S slots where `mask_BTS`. Slots are
        `layout.cache_slots(max_len, block)`; what they hold at the start does not matter, but must
        be finite. `num_logits` is static, and may be 0 (a pass that only writes the cache). With
        `next token` decoding ids are the *previous* tokens and the logits are those of the token at
        `positions_BT`.
        """


class MultiTokenFn(Protocol):
    """A model that predicts several tokens at once, as `multi_token` sees it: heads, the first of
    which is the next-token model's. Pure functions, params closed over.
    """

    def __call__(
        self,
        cache: Any,
        ids_BT: jax.Array,
        cond_BCD: jax.Array,
        positions_BT: jax.Array,
        mask_BTS: jax.Array,
        write_at_B: jax.Array,
        heads: int,
        /,
    ) -> tuple[Sequence[jax.Array], Any]:
        """Returns (states [B, T, D] of head 0 .. `heads` - 1, new cache).

        As `ModelFn`, with the *previous* tokens as ids. State t of head k is that of the token at
        position `positions_BT[:, t] + k`. cond_BCD has the conditions of the T positions and of the
        `heads` - 1 behind them. The T tokens' K/V are written for the trunk and for the modules of
        these heads; `heads` is static.
        """

    def logits(self, states: jax.Array, /) -> jax.Array:
        """States [..., D] of any heads -> logits [..., V]."""


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Static decoding options. Ids are those of docs/method.md, "The Talker"; only codes 0..codes-1
    and, where allowed, eos are produced."""

    block: int = 16  # tokens a block (K)
    codes: int = 6561  # speech codes: ids 0 .. codes - 1
    bos: int = 6561
    eos: int = 6563
    pad: int = 6564
    mask: int = 6565
    vocab_size: int = 6566  # ids behind only fill up the output table, see sampling.sample
    score: str = "max_probability"  # unmasking.SCORES: which positions first
    # how many: the even share, or more where the model is sure (never fewer, so S steps always do)
    count: str = "quota"
    threshold: float = 0.9  # count="threshold": unmask all of probability (or margin) >= this
    entropy_bound: float = 0.5  # count="entropy_bound": nats of joint error allowed in one step
    top_k: int = 0  # 0 = all; values of sampled tokens only, never the confidence
    top_p: float = 1.0
    # next-token: an id with at least this share of the last `repetition_window` places is drawn anew
    # from all, see sampling.repetition_aware_sample; 0 = off
    repetition_window: int = 0
    repetition_share: float = 0.1
    silence_ids: tuple[int, ...] = ()
    max_silence: int = 0  # 0 = off; a run of this many silence ids ends a row whose text is used up
    # commit block b in the first forward of block b + 1; False = a forward of its own
    fused: bool = True
    # the model is shown the token before each place, see layout.shift_right
    label_shift: bool = False
    # multi-token: tokens a forward, of as many heads; VocalNet trains 6 and writes 3
    mtp_emit: int = 3
    # multi-token: the next forward checks them, and what is written is what head 0 alone writes
    mtp_verify: bool = False

    def __post_init__(self):
        score_rule(self.score)
        if self.mtp_emit < 1:
            raise UserError(f"mtp_emit={self.mtp_emit}: a forward writes at least one token")
        if self.block < 1:
            raise UserError(f"block={self.block}: a block holds at least one token")
        if self.count not in COUNTS:
            raise UserError(f"count={self.count!r} is unknown; choose one of {', '.join(COUNTS)}")
        if self.count == "threshold" and (
            self.score == "entropy" or not 0.0 < self.threshold <= 1.0
        ):
            raise UserError(
                "count='threshold' needs a probability score (max_probability or "
                "margin) and 0 < threshold <= 1"
            )
        check_filters(self.top_k, self.top_p)
        if not 0 <= self.repetition_window <= self.block or not 0.0 < self.repetition_share <= 1.0:
            raise UserError(
                f"repetition_window={self.repetition_window}, "
                f"repetition_share={self.repetition_share} is out of range: give a window of 0 "
                f"(off) to {self.block} (a block) and a share above 0, at most 1"
            )
        if self.max_silence and not self.silence_ids:
            raise UserError("max_silence needs silence_ids: the codes that sound like silence")


class FinishReason(enum.IntEnum):
    """Why a row ended. Of rules that cut at the same place, the first of this order is named."""

    RUNNING = 0  # it has not ended
    LENGTH = 1  # the known length is reached (paced anchors)
    EOS = 2  # the model wrote an end token after the text was used up
    SILENCE = 3  # the silence guard: a run of silence after the text was used up
    TEXT = 4  # the text is used up, its allowance of tokens too, and no end token came
    BUDGET = 5  # the hard limit: cache or conditions are at their end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """What each row asks for; all [B]. Build with `SamplingParams.create`; between blocks, replace
    fields as the text comes in (`dataclasses.replace`): while text is still to come keep
    `min_len_B` at `NO_END`."""

    key_B: jax.Array  # typed PRNG keys
    steps_B: jax.Array  # int32: S, forwards a block, 1..K
    temperature_B: jax.Array  # f32: 0 = greedy
    target_len_B: jax.Array  # int32: exact length in tokens if known, -1 = until EOS
    # int32: first position where EOS may stand (or the guard act): the text is used up there
    min_len_B: jax.Array
    max_len_B: jax.Array  # int32: allowance of tokens for this text (reason TEXT), -1 = none

    @classmethod
    def create(
        cls, batch: int, *, seed=0, steps=4, temperature=0.0, target_len=-1, min_len=0, max_len=-1
    ) -> SamplingParams:
        """Each argument is one value for all rows or `batch` values (int, list, array). UserError
        names a value out of range.
        """
        _check("steps", steps, lambda x: x >= 1, "at least 1")
        _check("temperature", temperature, lambda x: x >= 0, "0 (greedy) or more")

        def rows(value, dtype):
            return jnp.broadcast_to(jnp.asarray(value, dtype), (batch,))

        return cls(
            key_B=jax.vmap(jax.random.key)(rows(seed, jnp.uint32)),
            steps_B=rows(steps, jnp.int32),
            temperature_B=rows(temperature, jnp.float32),
            target_len_B=rows(target_len, jnp.int32),
            min_len_B=rows(min_len, jnp.int32),
            max_len_B=rows(max_len, jnp.int32),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingState:
    """Everything that passes from block to block. Rows may stand at different blocks, so rows can
    join and leave a batch.
    """

    cache: Any
    request: SamplingParams
    block_B: jax.Array  # int32: the block each row decodes next
    # the last block's tokens: the block decoder has yet to commit their clean K/V
    pending_ids_BK: jax.Array
    pending_cond_BKD: jax.Array
    # int32: the token before the pending ones, which a label shift shows the model with them
    before_B: jax.Array
    done_B: jax.Array  # bool
    reason_B: jax.Array  # int32, a FinishReason
    length_B: jax.Array  # int32: tokens so far; the utterance's length once done
    silence_B: jax.Array  # int32: silence tokens in a row at the end so far
    budget_B: jax.Array  # int32: hard limit in tokens
    forwards: jax.Array  # int32 scalar: model forwards so far
    max_blocks: int = dataclasses.field(metadata={"static": True})

    def slots(self, block: int) -> int:
        """Slots of the cache, scratch block included."""
        return (self.max_blocks + 1) * block


def initial_state(
    cache: Any,
    request: SamplingParams,
    options: DecodingConfig,
    max_len: int,
    cond_dim: int,
    cond_dtype=jnp.float32,
) -> DecodingState:
    """State before the first token. `cache`: the model's, of `layout.cache_slots(max_len,
    options.block)` slots, finite content.
    """
    if max_len < 1:
        raise UserError(f"max_len={max_len}: leave room for at least one token")
    batch, block = request.steps_B.shape[0], options.block
    zeros_B = jnp.zeros((batch,), jnp.int32)
    return DecodingState(
        cache=cache,
        request=request,
        block_B=zeros_B,
        pending_ids_BK=jnp.full((batch, block), options.bos, jnp.int32),
        pending_cond_BKD=jnp.zeros((batch, block, cond_dim), cond_dtype),
        before_B=jnp.full((batch,), options.bos, jnp.int32),
        done_B=jnp.zeros((batch,), bool),
        reason_B=zeros_B,
        length_B=zeros_B,
        silence_B=zeros_B,
        budget_B=jnp.full((batch,), max_len, jnp.int32),
        forwards=jnp.zeros((), jnp.int32),
        max_blocks=cache_slots(max_len, block) // block - 1,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodedTokens:
    """What a block, or a whole utterance, brought: L = K from `decode_block`, the conditions'
    length from `decode`.
    """

    ids_BL: jax.Array  # int32: tokens, pad from the row's end on
    count_B: jax.Array  # int32: tokens before the end, this call
    # int32: 0-based step of its block in which a token was unmasked, -1 after the end
    step_BL: jax.Array
    confidence_BL: jax.Array  # f32: probability of the best id there at that step, 0 after the end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingResult(DecodedTokens):
    """A whole utterance. `forwards` counts forwards of the batch (its slowest row in each block)."""

    reason_B: jax.Array  # int32, a FinishReason; never RUNNING
    forwards: jax.Array  # int32 scalar


def known_end(request: SamplingParams) -> jax.Array:
    """int32 [B]: the known length, or NO_END."""
    return jnp.where(request.target_len_B >= 0, request.target_len_B, NO_END)


def most_tokens(state: DecodingState) -> jax.Array:
    """int32 [B]: the length that no row exceeds: the known one, the text's allowance or the hard
    limit, whichever is least.
    """
    limit_B = jnp.minimum(known_end(state.request), state.budget_B)
    allowance_B = state.request.max_len_B
    return jnp.where(allowance_B >= 0, jnp.minimum(limit_B, allowance_B), limit_B)


def _check(name: str, value: Any, holds, range_text: str) -> None:
    # inside jit the value is not known: the caller has checked it outside
    if isinstance(value, jax.core.Tracer):
        return
    values = np.asarray(value)
    if not np.all(holds(values)):
        raise UserError(f"{name}={value}: must be {range_text}")
