import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.diffusion import distill, objective
from mdmspeech.errors import UserError
from tests.support import dense_masks

BATCH, LENGTH, BLOCK, CODES, MASK, PAD, VOCABULARY = 2, 14, 4, 20, 24, 23, 27
LENGTHS = np.array([14, 9])  # neither is a whole number of blocks


@pytest.fixture(scope="module")
def case(tiny):
    """A teacher (the tiny model over [B, L]) and a masked input, blocks with 4, 3, 1 and 0 masks
    among them.
    """
    cond = jax.random.normal(jax.random.key(1), (BATCH, LENGTH, tiny.dim))
    valid = jnp.arange(LENGTH)[None, :] < jnp.asarray(LENGTHS)[:, None]
    hidden = np.zeros((BATCH, LENGTH), bool)
    hidden[0, [0, 1, 2, 3, 5, 8, 9, 10, 12, 13]] = True
    hidden[1, [4, 6, 7, 8]] = True
    clean = jax.random.randint(jax.random.key(2), (BATCH, LENGTH), 0, CODES)
    z0 = jnp.where(valid, jnp.where(hidden, MASK, clean), PAD)
    mask = dense_masks.block_causal_mask(LENGTH, BLOCK, valid)
    positions = jnp.tile(jnp.arange(LENGTH)[None], (BATCH, 1))

    @jax.jit
    def teacher(ids_BL):
        return tiny.forward(ids_BL, cond, positions, mask)[0]

    return teacher, z0, jnp.asarray(hidden), valid


ALLOWED = jnp.arange(VOCABULARY) < CODES


def _by_the_book(teacher, z0, hidden, iterations):
    """The roll-out in numpy: (Z, filled ids, iteration of each reveal)."""
    ids, left = np.array(z0), np.array(hidden)
    z, when = np.zeros((BATCH, LENGTH, VOCABULARY)), np.full((BATCH, LENGTH), -1)
    for j in range(iterations):
        logits = np.asarray(teacher(jnp.asarray(ids)))
        chance = np.asarray(jax.nn.softmax(logits), np.float64)[..., :CODES].max(-1)
        new = ids.copy()
        for row in range(BATCH):
            for first in range(0, LENGTH, BLOCK):
                masked = [at for at in range(first, min(first + BLOCK, LENGTH)) if left[row, at]]
                surest_first = sorted(masked, key=lambda at: -chance[row, at])
                for at in surest_first[: -(-len(masked) // (iterations - j))]:
                    z[row, at], when[row, at], left[row, at] = logits[row, at], j, False
                    new[row, at] = logits[row, at, :CODES].argmax()
        ids = new
    return z, ids, when


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_logits_are_those_of_the_iteration_of_the_reveal(case, iterations):
    teacher, z0, hidden, valid = case
    rollout = distill.teacher_rollout(
        teacher, z0, hidden, valid, BLOCK, iterations, allowed_V=ALLOWED
    )
    z, ids, when = _by_the_book(teacher, z0, hidden, iterations)
    np.testing.assert_array_equal(rollout.iteration_BL, when)
    np.testing.assert_array_equal(rollout.ids_BL, ids)
    np.testing.assert_allclose(rollout.logits, z, atol=1e-4)
    assert ((when >= 0) == np.asarray(hidden)).all()  # all masks are revealed, nothing else is
    first = np.asarray(teacher(z0))
    late = when > 0
    assert late.any() == (iterations > 1)
    if iterations > 1:  # later iterations see more: their logits are not those of the first look
        assert (np.abs(np.asarray(rollout.logits) - first).max(-1)[late] > 1e-2).all()


def test_each_iteration_reveals_its_quota_in_each_block(case):
    teacher, z0, hidden, valid = case
    when = np.asarray(
        distill.teacher_rollout(
            teacher, z0, hidden, valid, BLOCK, 4, allowed_V=ALLOWED
        ).iteration_BL
    )
    for row, block, expected in [
        (0, 0, [1, 1, 1, 1]),
        (0, 1, [1, 0, 0, 0]),
        (0, 2, [1, 1, 1, 0]),
        (1, 1, [1, 1, 1, 0]),
    ]:
        part = when[row, block * BLOCK : (block + 1) * BLOCK]
        np.testing.assert_array_equal(np.bincount(part[part >= 0], minlength=4), expected)


def test_gathered_positions_give_the_same_targets(case):
    teacher, z0, hidden, valid = case
    dense = distill.teacher_rollout(teacher, z0, hidden, valid, BLOCK, allowed_V=ALLOWED)
    # six places of padding, which must disturb nothing
    index, keep = objective.gather_masked(hidden & valid, 20)

    def gathered_teacher(ids_BL, index_N):
        return objective.gather(teacher(ids_BL), index_N)

    lean = distill.teacher_rollout(
        gathered_teacher, z0, hidden, valid, BLOCK, gathered=(index, keep), allowed_V=ALLOWED
    )
    np.testing.assert_array_equal(lean.ids_BL, dense.ids_BL)
    np.testing.assert_array_equal(lean.iteration_BL, dense.iteration_BL)
    np.testing.assert_allclose(
        lean.logits[keep], objective.gather(dense.logits, index)[keep], atol=1e-5
    )
    assert (lean.logits[~keep] == 0).all()


def test_what_was_not_gathered_stays_hidden_from_the_teacher(case):
    """A capacity that is too small leaves tokens out of the loss; it must not write something in
    their places.
    """
    teacher, z0, hidden, valid = case
    index, keep = objective.gather_masked(hidden & valid, 9)
    kept = objective.scatter(keep, index, keep, hidden.shape, False)
    assert (hidden & ~kept).any()
    rollout = distill.teacher_rollout(
        lambda ids, index: objective.gather(teacher(ids), index),
        z0,
        hidden,
        valid,
        BLOCK,
        gathered=(index, keep),
        allowed_V=ALLOWED,
    )
    z, ids, when = _by_the_book(teacher, z0, hidden & kept, 4)
    np.testing.assert_array_equal(rollout.ids_BL, ids)
    np.testing.assert_array_equal(rollout.iteration_BL, when)
    np.testing.assert_allclose(rollout.logits, objective.gather(jnp.asarray(z), index), atol=1e-4)
    assert (rollout.ids_BL[hidden & ~kept] == MASK).all()


def test_padding_is_never_revealed_and_no_gradient_flows_to_the_teacher(case):
    teacher, z0, hidden, valid = case
    everywhere = distill.teacher_rollout(teacher, z0, jnp.ones_like(hidden), valid, BLOCK, 2)
    assert ((everywhere.iteration_BL >= 0) == valid).all() and (
        everywhere.ids_BL[~valid] == PAD
    ).all()

    def loss(scale):
        return jnp.sum(
            distill.teacher_rollout(
                lambda ids: scale * teacher(ids), z0, hidden, valid, BLOCK, 2
            ).logits
        )

    assert jax.grad(loss)(1.0) == 0.0


A = jnp.array([[2.0, 0.5, -1.0, 0.0]])
B = jnp.array([[0.0, 1.5, 0.3, -0.5]])


def _kl(p_logits, q_logits, temperature):
    p, q = (np.exp(np.asarray(x, np.float64) / temperature) for x in (p_logits, q_logits))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    np.testing.assert_allclose([p.sum(), q.sum()], 1.0)
    return (p * np.log(p / q)).sum(-1)


def test_divergences_against_their_definitions():
    # reverse: KL(student || teacher)
    np.testing.assert_allclose(distill.kl(A, B), _kl(A, B, 2.0), rtol=1e-5)
    np.testing.assert_allclose(distill.kl(A, B, direction="forward"), _kl(B, A, 2.0), rtol=1e-5)
    np.testing.assert_allclose(distill.kl(A, B, temperature=1.0), _kl(A, B, 1.0), rtol=1e-5)
    assert abs(float(distill.kl(A, B)[0] - distill.kl(A, B, direction="forward")[0])) > 1e-3
    with pytest.raises(UserError, match="direction='sideways'"):
        distill.kl(A, B, direction="sideways")


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_divergence_is_zero_at_equality_and_pulls_the_student_to_the_teacher(direction):
    np.testing.assert_allclose(distill.kl(A, A + 3.0, direction=direction), 0.0, atol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda s: distill.kl(s, A, direction=direction)[0])(A), 0.0, atol=1e-6
    )
    student, before = A, float(distill.kl(A, B, direction=direction)[0])
    gradient = jax.grad(lambda s: distill.kl(s, B, direction=direction)[0])(student)
    # the student is too sure of id 0, not sure enough of id 1
    assert gradient[0, 0] > 0 > gradient[0, 1]
    assert before > float(distill.kl(student - 0.5 * gradient, B, direction=direction)[0]) >= 0.0
    assert (jax.grad(lambda t: distill.kl(A, t, direction=direction)[0])(B) == 0).all()


def test_forward_covers_modes_and_reverse_picks_one():
    """A two-mode teacher: forward KL prefers the student that covers both, reverse KL the one that
    commits to one.
    """
    teacher = jnp.array([[5.0, 5.0, 0.0, 0.0]])
    wide, narrow = jnp.array([[3.5, 3.5, 3.0, 3.0]]), jnp.array([[7.0, -2.0, -2.0, -2.0]])
    forward = [distill.kl(s, teacher, 1.0, "forward")[0] for s in (wide, narrow)]
    reverse = [distill.kl(s, teacher, 1.0, "reverse")[0] for s in (wide, narrow)]
    assert forward[0] < forward[1] and reverse[1] < reverse[0]


def test_isd_loss_mixes_its_parts_on_masked_positions_only():
    student, teacher = (jax.random.normal(jax.random.key(k), (3, 4, 9)) for k in (1, 2))
    targets = jax.random.randint(jax.random.key(3), (3, 4), 0, 9)
    weight = jnp.asarray(np.arange(12).reshape(3, 4) % 2, jnp.float32)
    loss = distill.isd_loss(student, teacher, targets, weight, a=0.7)
    kept = np.asarray(weight) > 0
    kl = _kl_rows(student, teacher)[kept].sum()
    ce = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(student)), np.asarray(targets)[..., None], -1
    )[..., 0][kept].sum()
    np.testing.assert_allclose([loss.kl_sum, loss.ce_sum, loss.weight_sum], [kl, ce, 6], rtol=1e-4)
    np.testing.assert_allclose(loss.loss_sum, 0.7 * kl + 0.3 * ce, rtol=1e-4)
    assert distill.isd_loss(student, teacher, targets, weight, a=0.0).loss_sum == loss.ce_sum
    assert distill.isd_loss(student, teacher, targets, weight, a=1.0).loss_sum == loss.kl_sum
    with pytest.raises(UserError, match=r"a=1\.5"):
        distill.isd_loss(student, teacher, targets, weight, a=1.5)


def _kl_rows(student, teacher):
    p, q = (np.asarray(jax.nn.softmax(x / 2.0), np.float64) for x in (student, teacher))
    return (p * np.log(p / q)).sum(-1)


def test_zero_iterations_are_refused(case):
    teacher, z0, hidden, valid = case
    with pytest.raises(UserError, match="iterations=0"):
        distill.teacher_rollout(teacher, z0, hidden, valid, BLOCK, 0)
