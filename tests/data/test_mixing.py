"""Mixtures: exact proportions at every moment, each source whole in each of its passes, any place
at once, clear refusals.
"""

import numpy as np
import pytest

from mdmspeech.data.packing.mixing import Mixture
from mdmspeech.errors import UserError

SIZES = {"open": 40, "answers": 100, "own": 7}
WEIGHTS = {"open": 0.3, "answers": 0.6, "own": 0.1}


def test_proportions_hold_at_every_moment():
    mixture = Mixture(SIZES, WEIGHTS)
    source, _ = mixture.draw(0, 3000)
    for s, weight in enumerate(WEIGHTS.values()):
        ahead = np.cumsum(source == s) - weight * np.arange(1, 3001)
        assert np.abs(ahead).max() < 1.5
        assert (source == s).sum() == round(3000 * weight)


def test_every_pass_has_every_record_once_in_its_own_order():
    mixture = Mixture(SIZES, WEIGHTS, seed=3)
    source, record = mixture.draw(0, 1000)
    own = record[source == 2]
    passes = own[: len(own) // 7 * 7].reshape(-1, 7)
    assert len(passes) == 14 and (np.sort(passes, axis=1) == np.arange(7)).all()
    assert len({tuple(order) for order in passes.tolist()}) > 10
    assert len(set(record[source == 1].tolist()[:100])) == 100, "a large source is not cut"
    assert mixture.passes(1000) == {"open": 7.5, "answers": 6.0, "own": pytest.approx(100 / 7)}


def test_any_place_at_once():
    mixture = Mixture(SIZES, WEIGHTS, seed=1)
    whole = np.stack(mixture.draw(0, 900))
    pieces = np.concatenate(
        [np.stack(Mixture(SIZES, WEIGHTS, seed=1).draw(a, a + 100)) for a in range(0, 900, 100)],
        axis=1,
    )
    assert (whole == pieces).all()


def test_without_weights_all_sources_end_together():
    mixture = Mixture({"a": 30, "b": 70})
    assert mixture.period == 10 and mixture.passes(200) == {"a": 2.0, "b": 2.0}
    source, record = mixture.draw(0, 100)
    assert sorted(zip(source.tolist(), record.tolist(), strict=True)) == [
        (0, i) for i in range(30)
    ] + [(1, i) for i in range(70)]


def test_one_more_source_leaves_the_order_of_the_others():
    def answers(sizes):
        mixture = Mixture(sizes, seed=5)
        source, record = mixture.draw(0, 400)
        return record[source == mixture.names.index("answers")][:100].tolist()

    assert answers({"answers": 100}) == answers({"open": 40, "answers": 100})


def test_odd_weights_are_kept_to_a_millionth():
    weights = {"a": np.pi, "b": np.e, "c": 1e-4}
    mixture = Mixture(dict.fromkeys(weights, 5), weights)
    shares = mixture.counts / mixture.counts.sum()
    wanted = np.array(list(weights.values())) / sum(weights.values())
    assert np.abs(shares - wanted).max() < 2e-6 and mixture.counts.min() > 0


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ({}, None, "no source"),
        ({"a": 1, "b": 0}, None, "'b' has no usable record"),
        ({"a": 1}, {"a": 0.0}, "weight of 'a' is 0"),
        ({"a": 1}, {"a": float("nan")}, "weight of 'a' is nan"),
        ({"a": 1, "b": 2}, {"a": 1.0}, "sources are a, b"),
    ],
)
def test_refusals(sizes, weights, message):
    with pytest.raises(UserError, match=message):
        Mixture(sizes, weights)


def test_a_temperature_brings_small_sources_oftener():
    sizes = {"large": 900, "small": 100}
    shares = []
    for temperature in (1.0, 2.0, 5.0, 1e6):
        source, _ = Mixture(sizes, temperature=temperature).draw(0, 4000)
        shares.append((source == 1).mean())
    assert shares == pytest.approx([0.1, 0.25, 1 / (1 + 9**0.2), 0.5], abs=2e-3)
    with pytest.raises(UserError, match="both weights and a temperature"):
        Mixture(sizes, {"large": 1, "small": 1}, temperature=2.0)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="temperature is"):
            Mixture(sizes, temperature=wrong)
