"""The schedule of warm-up, stable, decay: one run gives all lengths."""

import itertools

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.training.config import base, differences
from mdmspeech.training.optim import decay_steps, make_schedule
from mdmspeech.training.ranges import check_ranges

# updates, warm-up, share of the decay, last rate
CASES = list(itertools.product((60, 101), (0, 1, 10), (0.1, 0.33, 0.5), (0.0, 0.1)))


def rates(steps, warmup=0, share=0.2, final=0.0, upto=None, lr=2.0):
    config = base()
    config.optim.update(schedule="wsd", lr=lr, warmup=warmup, decay_share=share, final=final)
    check_ranges(config)
    schedule = make_schedule(config.optim, steps)
    return np.asarray(schedule(np.arange(steps + 1 if upto is None else upto))) * np.ones(1)


@pytest.mark.parametrize(("steps", "warmup", "share", "final"), CASES)
def test_its_three_phases(steps, warmup, share, final):
    rate, start = rates(steps, warmup, share, final, steps + 20), steps - decay_steps(share, steps)
    assert (np.diff(rate[: warmup + 1]) >= -1e-6).all() and (rate[:warmup] > 0).all()
    np.testing.assert_allclose(rate[warmup : start + 1], 2.0, rtol=1e-6)
    assert (np.diff(rate[start : steps + 1]) < 0).all()
    np.testing.assert_allclose(rate[steps:], 2.0 * final, atol=1e-6)


@pytest.mark.parametrize(("warmup", "share"), [(0, 0.2), (10, 0.2), (10, 0.5), (3, 0.1)])
def test_runs_of_all_lengths_share_what_comes_before_the_decay(warmup, share):
    for short, long in ((60, 61), (60, 400), (100, 101)):
        shared = short - decay_steps(share, short)
        np.testing.assert_array_equal(
            rates(short, warmup, share, upto=shared + 1),
            rates(long, warmup, share, upto=shared + 1),
        )


def test_without_a_decay_it_stays():
    np.testing.assert_allclose(rates(50, 5, 0.0, upto=200)[5:], 2.0)


def test_it_goes_down_by_the_root():
    rate = rates(100, 0, 0.2)
    np.testing.assert_allclose(rate[80 + 5], 2.0 * (1 - np.sqrt(0.25)), rtol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_an_impossible_share_is_named(share):
    with pytest.raises(UserError, match=r"optim\.decay_share"):
        rates(10, share=share)


def test_a_branch_may_differ_in_its_decay_and_an_old_run_has_none():
    config = base().to_dict()
    branch = base()
    branch.optim.decay_share, branch.train.steps = 0.5, 77
    hard, soft = differences(config, branch.to_dict())
    assert not hard and any("decay_share: 0.2 -> 0.5" in line for line in soft)
    del config["optim"]["decay_share"]
    assert differences(config, base().to_dict()) == ([], [])
