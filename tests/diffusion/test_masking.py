import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.diffusion import masking
from mdmspeech.errors import UserError

BLOCK, ROWS, LENGTH, DRAWS = 16, 128, 128, 8
FULL = np.ones((ROWS, LENGTH), bool)
ALL = [masking.get(name) for name in masking.SCHEDULES] + [
    masking.InverseT(low=0.05, per="sequence")
]


@functools.cache
def _compiled(schedule):
    return jax.jit(
        jax.vmap(lambda key, valid_BL: schedule.sample(key, valid_BL, BLOCK), in_axes=(0, None))
    )


def _draws(schedule, valid_BL=FULL, seed=7):
    """Masks and weights of DRAWS batches as numpy [DRAWS * B, L]; one compilation a schedule serves
    all tests.
    """
    mask, weight = _compiled(schedule)(
        jax.random.split(jax.random.key(seed), DRAWS), jnp.asarray(valid_BL)
    )
    return np.asarray(mask).reshape(-1, LENGTH), np.asarray(weight).reshape(-1, LENGTH)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (masking.Bernoulli(), 0.55),
        (masking.Hierarchical(), 0.4875),
        (masking.Cosine(), 2 / np.pi),
        (masking.Spans(), 2 / np.pi),
    ],
    ids=lambda x: type(x).__name__,
)
def test_mean_mask_rate(schedule, expected):
    # 4,096 rows
    rates = np.concatenate([_draws(schedule, seed=s)[0].mean(axis=1) for s in range(4)])
    error = rates.std() / np.sqrt(len(rates))
    assert error < 0.006
    assert abs(rates.mean() - expected) < 4 * error


def test_bernoulli_rates_fill_their_range():
    rates = _draws(masking.Bernoulli())[0].mean(axis=1)
    assert 0.15 < rates.min() < 0.3 and 0.8 < rates.max() < 0.95
    # spread of g, and of 128 tosses
    assert abs(rates.std() - np.sqrt(0.5**2 / 12 + 0.24 / LENGTH)) < 0.01


def test_hierarchical_hides_shares_of_blocks_and_of_tokens():
    mask = _draws(masking.Hierarchical())[0].reshape(-1, LENGTH // BLOCK, BLOCK)
    chosen = mask.any(axis=-1)
    # 8 blocks, share in (0.5, 1), rounded up or down
    assert set(np.unique(chosen.sum(axis=1))) == {4, 5, 6, 7, 8}
    inside = mask.mean(axis=-1)[chosen]
    assert inside.min() >= 4 / 16 and inside.max() == 1.0
    assert abs(inside.mean() - 0.65) < 0.01
    assert abs(chosen.mean() - 0.75) < 0.02
    spread = np.array([row[row > 0].std() for row in mask.mean(axis=-1)])
    assert (spread > 0.02).mean() > 0.95  # t is drawn for each block, not for each row


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_no_place_is_favoured(schedule):
    mask = _draws(schedule)[0]
    assert np.abs(mask.mean(axis=0) - mask.mean()).max() < 5 * 0.5 / np.sqrt(len(mask))


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_every_row_with_a_valid_token_hides_one_and_padding_never(schedule):
    lengths = np.resize([0, 1, 2, 3, 15, 16, 17, 31, 33, 40, LENGTH], ROWS)
    valid = np.arange(LENGTH)[None, :] < lengths[:, None]
    mask, weight = _draws(schedule, valid)
    assert (mask.any(axis=-1) == np.tile(lengths > 0, DRAWS)).all()
    assert not (mask & ~np.tile(valid, (DRAWS, 1))).any()
    assert ((weight > 0) == mask).all() and np.isfinite(weight).all()


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_the_key_decides_everything(schedule):
    first, again, other = (_draws(schedule, seed=seed)[0] for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("per", ["block", "sequence"])
def test_inverse_t_weights_are_unbiased_and_match_the_rate(per):
    mask, weight = _draws(masking.InverseT(low=0.05, per=per))
    assert abs(weight.mean() - 1.0) < 0.03  # E[hidden / t] = 1 for every token
    assert abs(mask.mean() - 0.525) < 0.01
    rows = weight.reshape(-1, LENGTH // BLOCK, BLOCK)[:100]
    # one t a block
    assert all(len(np.unique(block[block > 0])) <= 1 for row in rows for block in row)
    values = [len(np.unique(row[row > 0])) for row in rows]
    assert (max(values) == 1) if per == "sequence" else (np.mean(values) > 6)


@pytest.mark.parametrize("per", ["block", "sequence"])
def test_the_one_over_t_loss_is_an_unbiased_mean_over_all_tokens(per):
    """A loss of its own for every token: the weighted sum over the *valid* tokens has the mean of
    all of them for its mean.
    """
    valid = np.arange(LENGTH)[None, :] < np.resize([LENGTH, 40, 17], ROWS)[:, None]
    loss = np.random.default_rng(0).exponential(size=valid.shape) * valid
    schedule = masking.InverseT(low=0.05, per=per)
    means = []
    for seed in range(4):
        mask, weight = (x.reshape(DRAWS, ROWS, LENGTH) for x in _draws(schedule, valid, seed))
        assert (mask == (weight > 0)).all()
        total = [masking.loss_weight(schedule, jnp.asarray(w), jnp.asarray(valid)) for w in weight]
        assert set(map(float, total)) == {float(valid.sum())}
        means += list((weight * loss[None]).sum(axis=(1, 2)) / valid.sum())
    error = np.std(means) / np.sqrt(len(means))
    assert error < 0.02 and abs(np.mean(means) - loss.sum() / valid.sum()) < 4 * error


def test_other_losses_are_divided_by_their_weights():
    mask, weight = _draws(masking.Bernoulli())
    assert (
        masking.loss_weight(masking.Bernoulli(), jnp.asarray(weight[:ROWS]), jnp.asarray(FULL))
        == mask[:ROWS].sum()
    )


def test_inverse_t_is_stratified_over_the_blocks_of_a_row():
    weight = _draws(masking.InverseT(low=0.05))[1].reshape(-1, LENGTH // BLOCK, BLOCK)
    # rows that show the t of each of their blocks
    weight = weight[(weight > 0).any(axis=-1).all(axis=-1)]
    assert len(weight) > 300
    u = (np.sort(1.0 / weight.max(axis=-1), axis=-1) - 0.05) / 0.95
    edges = np.arange(8)[None, :] / 8
    assert ((u > edges - 1e-4) & (u < edges + 1 / 8 + 1e-4)).all()  # exactly one in each eighth


@pytest.mark.parametrize("length", [1, 3])
def test_spans_hide_runs_of_at_least_their_length(length):
    mask = _draws(masking.Spans(length=length))[0]
    # A row with one hidden token has it because it would have had none.
    runs = [run for row in mask[:300] if row.sum() > 1 for run in _inner_runs(row)]
    assert min(runs) == length


def _inner_runs(row):
    """Lengths of the runs of hidden tokens that touch neither end."""
    edges = np.flatnonzero(np.diff(row.astype(int)))
    rises, falls = [e for e in edges if not row[e]], [e for e in edges if row[e]]
    return [int(min(f for f in falls if f > e) - e) for e in rises if any(f > e for f in falls)]


def test_get_builds_by_name_and_names_mistakes():
    assert masking.get("hierarchical", blocks=[0.2, 0.4]) == masking.Hierarchical(blocks=(0.2, 0.4))
    assert dataclasses.is_dataclass(masking.get("cosine"))
    with pytest.raises(UserError, match=r"'sine'.*cosine"):
        masking.get("sine")
    with pytest.raises(UserError, match="'bernoulli' has no field 'lo'"):
        masking.get("bernoulli", lo=0.1)
    with pytest.raises(UserError, match="low <= high"):
        masking.Bernoulli(low=0.8, high=0.3)
    with pytest.raises(UserError, match="per='row'"):
        masking.InverseT(per="row")
    with pytest.raises(UserError, match="length=0"):
        masking.Spans(length=0)


def test_a_token_that_is_hidden_only_because_its_row_would_have_none_has_weight_one():
    valid = np.arange(LENGTH)[None, :] == np.arange(ROWS)[:, None] % LENGTH  # one valid token a row
    _, weight = _draws(masking.InverseT(low=1e-3, per="sequence"), valid)
    weights = weight[weight > 0]
    assert len(weights) == ROWS * DRAWS and weights.min() == 1.0
    forced = (weights == 1.0).mean()
    assert 0.45 < forced < 0.55  # 1 - E[t]
    # E[hidden / t] = 1 for every token, and the forced ones; 1/t of all would be 6.9
    assert abs(weights.mean() - (1 + forced)) < 0.35
