"""A Talker with a text in front of its speech, decoded by the decoders over the trained (Linen)
model, all rows in one batch: what the engine's tokens have to be.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding import autoregressive, block_diffusion
from mdmspeech.decoding.state import initial_state
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.inference.engine import decoding_config
from mdmspeech.models import talker
from mdmspeech.models.talker import Talker
from mdmspeech.speech_format import START

MODES = {"mdm": block_diffusion, "ntp": autoregressive}


def decode(config, params, texts, request, blocks, mode="mdm", **options):
    """A `DecodingResult` of texts (ids without START), up to `blocks` blocks each.

    request: `SamplingParams`. options: further fields of `DecodingConfig`.
    """
    text_BN = np.full((len(texts), 1 + max(map(len, texts))), START, np.int32)
    for row, ids in zip(text_BN, texts, strict=True):
        row[1 : 1 + len(ids)] = ids
    count_B = jnp.array([1 + len(ids) for ids in texts])
    batch, text = text_BN.shape
    length, options = blocks * config.block, decoding_config(config, **options)
    model = Talker(config)

    def whole(params):
        apply = functools.partial(model.apply, {"params": params})
        caches = talker.empty_caches(config, batch, text + cache_slots(length, config.block))
        slot_S = jnp.arange(caches[0].k_BSKD.shape[1])
        causal_1NS = slot_S[None, None, :] <= jnp.arange(text)[None, :, None]
        _, caches = apply(
            jnp.zeros((batch, 0), jnp.int32),
            None,
            causal_1NS,
            jnp.arange(text)[None],
            caches,
            jnp.zeros(batch, jnp.int32),
            before_BND=apply(text_BN, method="prefix"),
        )

        def step(cache, ids_BT, _, positions_BT, mask_BTS, write_at_B, num_logits):
            there_BN = jnp.arange(text)[None] < count_B[:, None]
            seen_BTN = jnp.broadcast_to(there_BN[:, None], (batch, ids_BT.shape[1], text))
            speech_BTS = jnp.broadcast_to(mask_BTS, (batch, *mask_BTS.shape[1:]))
            hidden, cache = apply(
                ids_BT,
                None,
                jnp.concatenate([seen_BTN, speech_BTS], axis=-1),
                positions_BT + count_B[:, None],
                cache,
                write_at_B + text,
            )
            return apply(hidden[:, hidden.shape[1] - num_logits :], method="logits"), cache

        state = initial_state(caches, request, options, length, 1)
        return MODES[mode].decode(step, state, jnp.zeros((batch, length, 1)), options)

    return jax.tree.map(np.asarray, jax.jit(whole)(params))
