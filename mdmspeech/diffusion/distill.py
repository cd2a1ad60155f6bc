"""Iterative self-distillation, ISD: many refinement steps of the teacher in one step of the
student.

Source: docs/method.md, "Iterative self-distillation".

On a masked input z0 the frozen teacher refines K times, all blocks at once: in iteration j a block
with R_j masks left reveals its n_j = ceil(R_j / (K - j + 1)) most confident tokens with the
teacher's argmax. The teacher's logits of a token *in the iteration that reveals it* are the target
Z. The student sees z0 once and learns a * KL + (1 - a) * CE on the masked positions. B batch, L
length, P blocks, N gathered positions of each of G groups of rows (objective.gather_masked), V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdmspeech.diffusion import objective, unmasking
from mdmspeech.diffusion.layout import from_blocks, to_blocks
from mdmspeech.errors import UserError
from mdmspeech.nn.losses import cross_entropy, weighted_sum

DIRECTIONS = ("reverse", "forward")  # of the KL: KL(student, teacher), KL(teacher, student)


class Rollout(NamedTuple):
    """`logits` f32 [B, L, V], or [G, N, V] when positions were gathered: Z, zero where nothing was
    masked. `ids_BL`: z0 with the masks filled by the teacher. `iteration_BL` int32: 0-based
    iteration of each reveal, -1 where nothing was revealed."""

    logits: jax.Array
    ids_BL: jax.Array
    iteration_BL: jax.Array


def teacher_rollout(
    logits_fn: Callable[..., jax.Array],
    z0_BL: jax.Array,
    mask_BL: jax.Array,
    valid_BL: jax.Array,
    block: int,
    iterations: int = 4,
    *,
    gathered: tuple[jax.Array, jax.Array] | None = None,
    allowed_V: jax.Array | None = None,
) -> Rollout:
    """Refines z0 with the teacher and keeps each masked token's logits of the iteration that
    reveals it.

    `logits_fn(ids_BL) -> [B, L, V]` is the frozen teacher with its block-causal mask and conditions
    inside. With `gathered=(index_GN, keep_GN)` it is called as `logits_fn(ids_BL, index_GN) -> [G,
    N, V]`, and so large is Z: no [B, L, V] array exists. A masked token that was not gathered stays
    masked for the teacher too. `z0_BL` holds the mask id where `mask_BL`; padding (`valid_BL`
    False) is never revealed. `allowed_V` bool: ids that the argmax may write into the canvas (no
    mask, no pad); Z keeps the raw logits. No gradient flows out of the result.
    """
    if iterations < 1:
        raise UserError(f"iterations={iterations}: the teacher refines at least once")
    batch, length = z0_BL.shape
    allowed = None if allowed_V is None else allowed_V[None, None, :]

    def scatter(values_GN, fill):
        return (
            objective.scatter(values_GN, *gathered, (batch, length), fill)
            if gathered
            else values_GN
        )

    def teacher(ids_BL):
        logits = logits_fn(ids_BL) if gathered is None else logits_fn(ids_BL, gathered[0])
        return jax.lax.stop_gradient(logits.astype(jnp.float32))

    def refine(carry, iteration):
        ids_BL, left_BL, z_GNV, iteration_BL = carry
        logits_GNV = teacher(ids_BL)
        score_BL = scatter(unmasking.max_probability(logits_GNV, allowed), -jnp.inf)
        guess_BL = scatter(unmasking.candidate(logits_GNV, allowed), 0)
        left_BPK = to_blocks(left_BL, block, False)
        count_BP = unmasking.num_to_unmask(jnp.sum(left_BPK, axis=-1), iterations - iteration)
        chosen_BL = from_blocks(
            unmasking.select(to_blocks(score_BL, block, -jnp.inf), left_BPK, count_BP), length
        )
        chosen_GN = (
            objective.gather(chosen_BL, gathered[0]) & gathered[1] if gathered else chosen_BL
        )
        carry = (
            jnp.where(chosen_BL, guess_BL, ids_BL),
            left_BL & ~chosen_BL,
            jnp.where(chosen_GN[..., None], logits_GNV, z_GNV),
            jnp.where(chosen_BL, iteration, iteration_BL),
        )
        return carry, None

    start_BL = mask_BL & valid_BL
    if gathered:
        start_BL &= scatter(jnp.ones_like(gathered[1]), False)
    empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(teacher, z0_BL))
    carry = (z0_BL.astype(jnp.int32), start_BL, empty, jnp.full((batch, length), -1, jnp.int32))
    (ids_BL, _, z_GNV, iteration_BL), _ = jax.lax.scan(
        refine, carry, jnp.arange(iterations, dtype=jnp.int32)
    )
    return Rollout(z_GNV, ids_BL, iteration_BL)


def kl(
    student: jax.Array, teacher: jax.Array, temperature: float = 2.0, direction: str = "reverse"
) -> jax.Array:
    """f32 [...], nats: divergence of the two softmaxes at `temperature`, for logits [..., V]; no
    gradient to the teacher.

    "reverse" is KL(student || teacher), the paper's: the student commits to the teacher's main
    mode. "forward" is KL(teacher || student): the student covers all of them. Not multiplied by
    temperature^2 as in Hinton et al. 2015.
    """
    if direction not in DIRECTIONS:
        raise UserError(f"direction={direction!r}: choose 'reverse' or 'forward'")
    student_logp = jax.nn.log_softmax(student.astype(jnp.float32) / temperature, axis=-1)
    teacher_logp = jax.nn.log_softmax(
        jax.lax.stop_gradient(teacher).astype(jnp.float32) / temperature, axis=-1
    )
    p, q = (student_logp, teacher_logp) if direction == "reverse" else (teacher_logp, student_logp)
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


class IsdLoss(NamedTuple):
    """Sums over positions, f32 scalars: divide each by `weight_sum`, after adding over
    micro-batches and devices.
    """

    loss_sum: jax.Array
    weight_sum: jax.Array
    kl_sum: jax.Array
    ce_sum: jax.Array


def isd_loss(
    student: jax.Array,
    teacher: jax.Array,
    targets: jax.Array,
    weight: jax.Array,
    a: float = 0.7,
    temperature: float = 2.0,
    direction: str = "reverse",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> IsdLoss:
    """a * KL + (1 - a) * CE over the masked positions, as sums: `student`, `teacher` [..., V];
    `targets` int, `weight` f32 [...].

    CE is at temperature 1 against the true token, with `label_smoothing` and `z_loss` as in
    `nn.losses.cross_entropy` (KL knows neither). Weight 0 on shown tokens, padding, and gather
    padding.
    """
    if not 0.0 <= a <= 1.0:
        raise UserError(f"a={a}: the share of the KL term lies between 0 and 1")
    kl_sum, weight_sum = weighted_sum(kl(student, teacher, temperature, direction), weight)
    ce_sum, _ = weighted_sum(
        cross_entropy(student, jnp.where(weight > 0, targets, 0), label_smoothing, z_loss), weight
    )
    return IsdLoss(a * kl_sum + (1.0 - a) * ce_sum, weight_sum, kl_sum, ce_sum)
