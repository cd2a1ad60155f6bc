"""A Talker made ready for speaking: folded tables, compiled functions over arrays, nothing else.

`read` the symbols once, then either `decode` whole utterances or `begin` and take `block` after `block`. Masked diffusion and next-token Talkers
differ in one function of `diffusion` and look the same from here.

B rows, M symbols (padded), L speech positions, K block size, D width.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.diffusion import autoregressive, decode
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.diffusion.state import Options, Request, Result, State, Tokens, start
from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.models.anchors import MIN_DURATION
from mdmspeech.models.talker import CodeTable, Talker, TalkerConfig

MODES = {"mdm": decode, "ntp": autoregressive}


class TalkerEngine:
    """Compiled functions of one Talker.

    Args:
      config, params: of a Talker with paced anchors. mode: "mdm" or "ntp".
      options: further fields of `diffusion.state.Options`.

    Raises:
      UserError: unknown mode, or fixed anchors.
    """

    def __init__(self, config: TalkerConfig, params: dict, mode: str = "mdm", **options):
        if mode not in MODES:
            raise UserError(f"talker mode {mode!r}: choose {' or '.join(MODES)}")
        if config.anchors != "paced":
            raise UserError(
                f"a Talker with {config.anchors!r} anchors reads Thinker states and cannot speak text by itself; use one with paced anchors"
            )
        self.config, self.params = fold_tables(config, params)
        self.lookahead = sum(config.symbol_lookahead)
        self.options = Options(
            block=config.block,
            codes=talker.CODES,
            bos=talker.BOS,
            eos=talker.EOS,
            pad=talker.PAD,
            mask=talker.MASK,
            label_shift=config.label_shift,
            **options,
        )
        self._decoder, self._model = MODES[mode], Talker(self.config)
        self._jit_read = jax.jit(self._read)
        self._jit_decode = jax.jit(self._decode, static_argnames="blocks")
        self._jit_block = jax.jit(self._block, donate_argnames="state")
        self._jit_begin = jax.jit(self._begin, static_argnames="blocks")

    def read(self, symbols_BM, valid_BM) -> tuple[np.ndarray, np.ndarray]:
        """Symbols -> (features float32 [B, M, D], durations float32 [B, M] in speech tokens, 0 where padded)."""
        features, durations = self._jit_read(self.params, symbols_BM, valid_BM)
        return np.asarray(features), np.asarray(durations)

    def decode(self, features_BMD, durations_BM, valid_BM, request: Request, blocks: int) -> Result:
        """Whole utterances of up to `blocks` blocks."""
        return jax.tree.map(np.asarray, self._jit_decode(self.params, features_BMD, durations_BM, valid_BM, request, blocks=blocks))

    def begin(self, request: Request, blocks: int) -> State:
        """State before the first block, with room for `blocks`."""
        return self._jit_begin(request, blocks=blocks)

    def block(self, features_BMD, durations_BM, valid_BM, state: State) -> tuple[State, Tokens]:
        """The next block of every row. The old state's memory is reused: it may not be used again."""
        state, tokens = self._jit_block(self.params, features_BMD, durations_BM, valid_BM, state)
        return state, jax.tree.map(np.asarray, tokens)

    def grow(self, state: State, blocks: int) -> State:
        """The same state with room for `blocks` blocks."""
        more = (blocks - state.max_blocks) * self.config.block
        cache = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))), state.cache)
        return dataclasses.replace(state, cache=cache, max_blocks=blocks, budget_B=state.budget_B + more)

    def _read(self, params, symbols_BM, valid_BM):
        features, log_durations = self._model.apply({"params": params}, symbols_BM, valid_BM, method="read")
        return features, jnp.where(valid_BM, jnp.maximum(jnp.exp(log_durations), MIN_DURATION), 0.0)

    def _decode(self, params, features_BMD, durations_BM, valid_BM, request, blocks):
        positions = jnp.arange(blocks * self.config.block)[None]
        cond_BLD = self._place(params, features_BMD, durations_BM, valid_BM, positions)
        return self._decoder.decode(functools.partial(self._step, params), self._begin(request, blocks), cond_BLD, self.options)

    def _block(self, params, features_BMD, durations_BM, valid_BM, state):
        positions_BK = state.block_B[:, None] * self.config.block + jnp.arange(self.config.block)[None]
        cond_BKD = self._place(params, features_BMD, durations_BM, valid_BM, positions_BK)
        return self._decoder.decode_block(functools.partial(self._step, params), state, cond_BKD, self.options)

    def _begin(self, request, blocks):
        length = blocks * self.config.block
        cache = talker.empty_caches(self.config, request.steps_B.shape[0], cache_slots(length, self.config.block))
        return start(cache, request, self.options, length, self.config.width)

    def _place(self, params, features_BMD, durations_BM, valid_BM, positions):
        return self._model.apply({"params": params}, features_BMD, valid_BM, durations_BM, positions, method="place")

    def _step(self, params, cache, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits):
        hidden, cache = self._model.apply({"params": params}, ids_BT, cond_BTD, mask_BTS, positions_BT, cache, write_at_B)
        return self._model.apply({"params": params}, hidden[:, hidden.shape[1] - num_logits :], method="logits"), cache


def fold_tables(config: TalkerConfig, params: dict) -> tuple[TalkerConfig, dict]:
    """The same Talker with its structured code tables (table + features @ digits) computed once, as plain tables."""
    params = jax.tree.map(jnp.asarray, params)
    if config.structured_codes:
        table = CodeTable(config.width, True, 1.0)
        params = {**params, **{name: {"table": table.apply({"params": params[name]})} for name in ("inputs", "outputs")}}
    return dataclasses.replace(config, structured_codes=False), params


def known_length(durations_M: np.ndarray) -> int:
    """Speech tokens of a text whose durations are all known; `anchors.speech_length` in float64, so that padding changes nothing."""
    return math.ceil(float(np.sum(durations_M, dtype=np.float64)) - 1e-3)
