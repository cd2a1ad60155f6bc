"""The law is found again in data that were made by one, with intervals that hold it; and is not fitted
to data that cannot tell.
"""

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.scaling.law import Law, fit

HOFFMANN = Law(1.69, 406.4, 0.34, 410.7, 0.28)
# sizes, tokens, scatter
GRIDS = {
    "large": (HOFFMANN, np.geomspace(1e7, 1e10, 5), np.geomspace(1e8, 1e11, 5)),
    "three by three": (HOFFMANN, np.geomspace(1e6, 1e9, 3), np.geomspace(1e7, 1e11, 3)),
    "no floor": (Law(1e-3, 20, 0.2, 30, 0.3), np.geomspace(1e5, 1e8, 4), np.geomspace(1e6, 1e9, 4)),
    "steep": (Law(3.0, 5e5, 1.0, 1e4, 0.7), np.geomspace(1e5, 1e7, 4), np.geomspace(1e5, 1e8, 4)),
    "flat": (Law(0.5, 9, 0.08, 7, 0.1), np.geomspace(1e5, 1e10, 6), np.geomspace(1e6, 1e11, 6)),
}


def ladder(law, sizes, tokens, scatter=0.0, seed=0):
    n, d = (grid.ravel() for grid in np.meshgrid(sizes, tokens))
    noise = np.random.default_rng(seed).normal(size=n.size)
    return n, d, law.loss(n, d) * np.exp(scatter * noise)


@pytest.mark.parametrize("name", GRIDS)
def test_without_scatter_it_is_found_exactly(name):
    law, sizes, tokens = GRIDS[name]
    found = fit(*ladder(law, sizes, tokens), draws=10)
    for field in ("alpha", "beta"):
        assert getattr(found.law, field) == pytest.approx(getattr(law, field), rel=0.02)
    n, d = 10 * sizes[-1], 10 * tokens[-1]
    assert found.law.loss(n, d) == pytest.approx(law.loss(n, d), rel=2e-3)


def test_with_scatter_the_intervals_hold_it():
    """Of 5 numbers and a prediction, in 5 ladders: by chance 1.5 of 30 lie outside of 95 %."""
    outside = widths = 0
    for seed in range(5):
        n, d, loss = ladder(*GRIDS["large"], scatter=0.004, seed=seed)
        found = fit(n, d, loss, draws=60, seed=seed)
        for field in ("E", "A", "alpha", "B", "beta"):
            low, high = found.interval(lambda law, field=field: getattr(law, field))
            outside += not low <= getattr(HOFFMANN, field) <= high
        best, low, high = found.predict(1e11, 1e11)
        outside += not low <= HOFFMANN.loss(1e11, 1e11) <= high
        assert low <= best <= high and found.scatter == pytest.approx(0.004, rel=0.5)
        widths += (high - low) / best
    assert outside <= 6
    assert 0.01 < widths / 5 < 0.1


def test_one_bad_run_does_not_move_it():
    n, d, loss = ladder(*GRIDS["large"], scatter=0.001)
    loss[7] *= 1.5
    assert fit(n, d, loss, draws=10).law.alpha == pytest.approx(HOFFMANN.alpha, rel=0.05)


def test_it_does_not_depend_on_the_order_and_is_the_same_twice():
    n, d, loss = ladder(*GRIDS["large"], scatter=0.01)
    one, two = fit(n, d, loss, draws=20), fit(n[::-1], d[::-1], loss[::-1], draws=20)
    assert one.law.beta == pytest.approx(two.law.beta, rel=1e-4)
    assert one.predict(1e9, 1e9) == fit(n, d, loss, draws=20).predict(1e9, 1e9)


def test_the_best_size_costs_least():
    compute, best = 1e21, HOFFMANN.best_size(1e21)
    loss = lambda n: HOFFMANN.loss(n, compute / 6 / n)
    assert loss(best) < min(loss(best * 1.1), loss(best / 1.1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda n, d, y: (n[:6], d[:6], y[:6]), "3 budgets of tokens or more, here are 2"),
        (lambda n, d, y: (np.where(n < 1e8, n, n[0]), d, y), "3 sizes or more, here are 2"),
        (lambda n, d, y: (n * 0 + 5, d, y), "3 sizes or more, here are 1"),
        (lambda n, d, y: (n[[0, 4, 8]], d[[0, 4, 8]], y[[0, 4, 8]]), "6 runs or more, here are 3"),
        (lambda n, d, y: (n, d, np.where(n > 1e8, np.nan, y)), "losses of the runs"),
        (lambda n, d, y: (n, d, y - 9), "losses of the runs"),
        (lambda n, d, y: (n, d * 0, y), "tokens of the runs"),
        (lambda n, d, y: (n * np.inf, d, y), "sizes of the runs"),
    ],
)  # fmt: skip
def test_data_that_cannot_tell_are_refused(change, told):
    n, d, loss = ladder(*GRIDS["three by three"])
    with pytest.raises(UserError, match=told):
        fit(*change(n, d, loss), draws=2)


def test_budgets_that_differ_by_their_padding_are_one():
    n, d, loss = ladder(HOFFMANN, np.geomspace(1e6, 1e9, 3), (1e8, 1.001e8, 1.002e8))
    with pytest.raises(UserError, match="3 budgets"):
        fit(n, d, loss, draws=2)
