"""A Talker made ready for speaking: folded tables, compiled functions over arrays, nothing else.

`read` the text once, then either `decode` whole utterances or `begin` and take `block` after
`block`. Masked diffusion and next-token Talkers differ in one function of `diffusion` and look the
same from here; paced and fixed anchors differ in what `read` gives, a `PacedInputs` or a
`FixedInputs`, from which the condition of any speech position follows.

B rows, M symbols (padded), N text tokens (padded), E text width, L speech positions, K block size,
D width.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding import autoregressive, block_diffusion
from mdmspeech.decoding.state import (
    DecodedTokens,
    DecodingConfig,
    DecodingResult,
    DecodingState,
    SamplingParams,
    initial_state,
)
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.models.anchors import MIN_DURATION, anchor_index
from mdmspeech.models.talker import CodeTable, Talker, TalkerConfig
from mdmspeech.speech_format import BOS, CODES, EOS, MASK, PAD

MODES = {"mdm": block_diffusion, "ntp": autoregressive}


class PacedInputs(NamedTuple):
    """What paced anchors have read: features [B, M, D], durations [B, M] in speech tokens, valid
    bool [B, M].
    """

    features_BMD: Any
    durations_BM: Any
    valid_BM: Any


class FixedInputs(NamedTuple):
    """What fixed anchors have read: fused text [B, N, D], and how many text tokens there are, int32
    [B].
    """

    fused_BND: Any
    count_B: Any


class TalkerEngine:
    """Compiled functions of one Talker.

    Args:
      config, params: of a Talker. mode: "mdm" or "ntp".
      options: further fields of `decoding.state.DecodingConfig`.

    Raises:
      UserError: unknown mode, or a text in front of the speech.
    """

    def __init__(self, config: TalkerConfig, params: dict, mode: str = "mdm", **options):
        if mode not in MODES:
            raise UserError(f"talker mode {mode!r}: choose {' or '.join(MODES)}")
        if config.anchors == "prefix":
            raise UserError(
                "a Talker whose text stands in front of its speech decodes with "
                "inference.prefix.PrefixEngine, not as a voice yet"
            )
        self.config, self.params = fold_tables(config, params)
        self.lookahead = sum(config.symbol_lookahead) if config.anchors == "paced" else 0
        self.options = DecodingConfig(
            block=config.block,
            codes=CODES,
            bos=BOS,
            eos=EOS,
            pad=PAD,
            mask=MASK,
            label_shift=config.label_shift,
            **options,
        )
        self._decoder, self._model = MODES[mode], Talker(self.config)
        self._jit_read, self._jit_fuse = jax.jit(self._read), jax.jit(self._fuse)
        self._jit_decode = jax.jit(self._decode, static_argnames="blocks")
        self._jit_block = jax.jit(self._block, donate_argnames="state")
        self._jit_begin = jax.jit(self._begin, static_argnames="blocks")

    def read(self, symbols_BM, valid_BM) -> tuple[np.ndarray, np.ndarray]:
        """Paced anchors: symbols -> (features float32 [B, M, D], durations float32 [B, M] in speech
        tokens, 0 where padded).
        """
        features, durations = self._jit_read(self.params, symbols_BM, valid_BM)
        return np.asarray(features), np.asarray(durations)

    def fuse(self, text_BNE) -> np.ndarray:
        """Fixed anchors: [Emb(y); h] of text tokens -> what they add where they stand, float32
        [B, N, D].
        """
        return np.asarray(self._jit_fuse(self.params, text_BNE))

    def decode(
        self, anchors: PacedInputs | FixedInputs, request: SamplingParams, blocks: int
    ) -> DecodingResult:
        """Whole utterances of up to `blocks` blocks."""
        return jax.tree.map(
            np.asarray, self._jit_decode(self.params, anchors, request, blocks=blocks)
        )

    def begin(self, request: SamplingParams, blocks: int) -> DecodingState:
        """State before the first block, with room for `blocks`."""
        return self._jit_begin(request, blocks=blocks)

    def block(
        self, anchors: PacedInputs | FixedInputs, state: DecodingState
    ) -> tuple[DecodingState, DecodedTokens]:
        """The next block of every row. The old state's memory is reused: it may not be used again."""
        state, tokens = self._jit_block(self.params, anchors, state)
        return state, jax.tree.map(np.asarray, tokens)

    def grow(self, state: DecodingState, blocks: int) -> DecodingState:
        """The same state with room for `blocks` blocks."""
        more = (blocks - state.max_blocks) * self.config.block
        cache = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))), state.cache)
        return dataclasses.replace(
            state, cache=cache, max_blocks=blocks, budget_B=state.budget_B + more
        )

    def _read(self, params, symbols_BM, valid_BM):
        features, log_durations = self._model.apply(
            {"params": params}, symbols_BM, valid_BM, method="read"
        )
        return features, jnp.where(valid_BM, jnp.maximum(jnp.exp(log_durations), MIN_DURATION), 0.0)

    def _fuse(self, params, text_BNE):
        return self._model.apply({"params": params}, text_BNE, method="fuse")

    def _decode(self, params, anchors, request, blocks):
        positions = jnp.arange(blocks * self.config.block)[None]
        cond_BLD = self._place(params, anchors, positions)
        return self._decoder.decode(
            functools.partial(self._step, params),
            self._begin(request, blocks),
            cond_BLD,
            self.options,
        )

    def _block(self, params, anchors, state):
        positions_BK = (
            state.block_B[:, None] * self.config.block + jnp.arange(self.config.block)[None]
        )
        cond_BKD = self._place(params, anchors, positions_BK)
        return self._decoder.decode_block(
            functools.partial(self._step, params), state, cond_BKD, self.options
        )

    def _begin(self, request, blocks):
        length = blocks * self.config.block
        cache = talker.empty_caches(
            self.config, request.steps_B.shape[0], cache_slots(length, self.config.block)
        )
        return initial_state(cache, request, self.options, length, self.config.dim)

    def _place(self, params, anchors, positions):
        place = functools.partial(self._model.apply, {"params": params})
        if isinstance(anchors, PacedInputs):
            return place(
                anchors.features_BMD,
                anchors.valid_BM,
                anchors.durations_BM,
                positions,
                method="place",
            )
        index_BL = anchor_index(
            anchors.count_B, positions, self.config.block, self.config.anchors_per_block
        )
        return place(anchors.fused_BND, index_BL, method="place_anchors")

    def _step(
        self, params, cache, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits
    ):
        hidden, cache = self._model.apply(
            {"params": params}, ids_BT, cond_BTD, mask_BTS, positions_BT, cache, write_at_B
        )
        return self._model.apply(
            {"params": params}, hidden[:, hidden.shape[1] - num_logits :], method="logits"
        ), cache


def fold_tables(config: TalkerConfig, params: dict) -> tuple[TalkerConfig, dict]:
    """The same Talker with its structured code tables (table + features @ digits) computed once, as
    plain tables.
    """
    params = jax.tree.map(jnp.asarray, params)
    if config.structured_codes:
        table = CodeTable(config.dim, True, 1.0)
        params = {
            **params,
            **{
                name: {"table": table.apply({"params": params[name]})}
                for name in ("inputs", "outputs")
            },
        }
    return dataclasses.replace(config, structured_codes=False), params


def known_length(durations_M: np.ndarray) -> int:
    """Speech tokens of a text whose durations are all known; summed in float64, so that padding
    changes nothing.
    """
    return math.ceil(float(np.sum(durations_M, dtype=np.float64)) - 1e-3)
