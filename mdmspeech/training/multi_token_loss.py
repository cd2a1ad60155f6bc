"""Multi-token prediction, the loss of the autoregressive baselines (VocalNet, arXiv 2504.04060):
CE_0 + sum over k of 0.8^k CE_k.

Source: docs/method.md, "Autoregressive baselines".

Head 0 predicts the next token, head k the one k places further. B batch, L positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mdmspeech.nn.losses import weighted_cross_entropy

DECAY = 0.8


def next_tokens(tokens_BL: jax.Array, lens_B: jax.Array, eos: int) -> tuple[jax.Array, jax.Array]:
    """What position p of [sos, tokens] predicts: (targets [B, L + 1], the tokens and then eos;
    weight [B, L + 1], 1 up to and with eos, 0 behind).
    """
    at_L = jnp.arange(tokens_BL.shape[1] + 1)[None, :]
    targets = jnp.where(at_L == lens_B[:, None], eos, jnp.pad(tokens_BL, ((0, 0), (0, 1))))
    return targets, (at_L <= lens_B[:, None]).astype(jnp.float32)


def ahead(x_BL: jax.Array, k: int) -> jax.Array:
    """The value k places further, 0 beyond the end: the targets, and the weights, of head k."""
    return jnp.pad(x_BL[:, k:], ((0, 0), (0, min(k, x_BL.shape[1]))))


def head_targets(
    targets_BL: jax.Array, weight_BL: jax.Array, k: int, segment_BL: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """(targets, weight) of head k, from those of head 0. segment_BL: the utterance of each position
    of packed rows: what lies in another one, k places further, is no target.
    """
    weight = ahead(weight_BL, k)
    if segment_BL is not None:
        weight = weight * (ahead(segment_BL, k) == segment_BL)
    return ahead(targets_BL, k), weight


def cross_entropies(
    logits: Sequence[jax.Array], targets_BL: jax.Array, weight_BL: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """(loss sum in nats, weight sum) of every head: `logits[k]` [B, L, V] of head k, targets and
    weight of head 0.
    """
    return [
        weighted_cross_entropy(one, *head_targets(targets_BL, weight_BL, k))
        for k, one in enumerate(logits)
    ]


def total(parts: Sequence[tuple[jax.Array, jax.Array]], decay: float = DECAY) -> jax.Array:
    """The heads' mean losses, head k weighed by decay^k; a head without a target adds 0."""
    return sum(
        (decay**k * loss / jnp.maximum(weight, 1.0) for k, (loss, weight) in enumerate(parts)),
        jnp.zeros(()),
    )
