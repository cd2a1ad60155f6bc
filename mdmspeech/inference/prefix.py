"""A Talker whose text stands in front of its speech (prefix anchors): text ids -> speech tokens.

The text goes through the trunk once; its keys and values stay in front of the cache, and the
decoders of `diffusion` never know of it. CosyVoice2's LM (`interop.cosyvoice2_lm`) decodes so,
token by token as mode "ntp", and what is trained from it block by block as mode "mdm".

B rows, N text ids (START among them), L speech positions, T positions of one forward, S cache slots
behind the text.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding import autoregressive, block_diffusion
from mdmspeech.decoding.state import DecodingResult, SamplingParams, initial_state
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.errors import UserError
from mdmspeech.inference.engine import decoding_config
from mdmspeech.models import talker
from mdmspeech.models.talker import Talker, TalkerConfig
from mdmspeech.speech_format import START

MODES = {"mdm": block_diffusion, "ntp": autoregressive}


class PrefixEngine:
    """Compiled decoding of one Talker.

    Args:
      config, params: of a Talker with prefix anchors. mode: "mdm" or "ntp".
      options: further fields of `decoding.state.DecodingConfig`.

    Raises:
      UserError: unknown mode, or other anchors.
    """

    def __init__(self, config: TalkerConfig, params: dict, mode: str = "mdm", **options):
        if mode not in MODES:
            raise UserError(f"talker mode {mode!r}: choose {' or '.join(MODES)}")
        if config.anchors != "prefix":
            raise UserError(
                f"a Talker with {config.anchors!r} anchors reads no text in front "
                "of its speech; use TalkerEngine"
            )
        self.config, self.params = config, jax.tree.map(jnp.asarray, params)
        self.options = decoding_config(config, **options)
        self._decoder, self._model = MODES[mode], Talker(config)
        self._jit_decode = jax.jit(self._decode, static_argnames="blocks")

    def decode(
        self, texts: list[list[int]], request: SamplingParams, blocks: int
    ) -> DecodingResult:
        """Speech of texts (ids without START), up to `blocks` blocks each; a row comes out as it
        does alone.
        """
        text_BN = np.full((len(texts), 1 + max(len(ids) for ids in texts)), START, np.int32)
        for row, ids in zip(text_BN, texts, strict=True):
            row[1 : 1 + len(ids)] = ids
        count_B = np.array([1 + len(ids) for ids in texts], np.int32)
        return jax.tree.map(
            np.asarray, self._jit_decode(self.params, text_BN, count_B, request, blocks=blocks)
        )

    def _decode(self, params, text_BN, count_B, request, blocks):
        (batch, text), length = text_BN.shape, blocks * self.config.block
        caches = talker.empty_caches(
            self.config, batch, text + cache_slots(length, self.config.block)
        )
        slot_S = jnp.arange(caches[0].k_BSKD.shape[1])
        causal_1NS = slot_S[None, None, :] <= jnp.arange(text)[None, :, None]
        before_BND = self._model.apply({"params": params}, text_BN, method="prefix")
        nothing_B0, first_B = jnp.zeros((batch, 0), jnp.int32), jnp.zeros(batch, jnp.int32)
        _, caches = self._model.apply(
            {"params": params},
            nothing_B0,
            None,
            causal_1NS,
            jnp.arange(text)[None],
            caches,
            first_B,
            before_BND=before_BND,
        )
        state = initial_state(caches, request, self.options, length, 1)
        step = functools.partial(
            self._step, params, jnp.arange(text)[None, :] < count_B[:, None], count_B
        )
        return self._decoder.decode(step, state, jnp.zeros((batch, length, 1)), self.options)

    def _step(
        self,
        params,
        text_valid_BN,
        count_B,
        cache,
        ids_BT,
        _,
        positions_BT,
        mask_BTS,
        write_at_B,
        num_logits,
    ):
        batch, text = text_valid_BN.shape
        seen_BTN = jnp.broadcast_to(text_valid_BN[:, None, :], (batch, ids_BT.shape[1], text))
        mask_BTS = jnp.concatenate(
            [seen_BTN, jnp.broadcast_to(mask_BTS, (batch, *mask_BTS.shape[1:]))], axis=-1
        )
        positions_BT, write_at_B = positions_BT + count_B[:, None], write_at_B + text
        hidden, cache = self._model.apply(
            {"params": params}, ids_BT, None, mask_BTS, positions_BT, cache, write_at_B
        )
        return self._model.apply(
            {"params": params}, hidden[:, hidden.shape[1] - num_logits :], method="logits"
        ), cache
