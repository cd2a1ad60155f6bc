"""The scaling law L(N, D) = E + A / N^alpha + B / D^beta, fitted as by Hoffmann et al. 2022
("Training Compute-Optimal Large Language Models", arXiv 2203.15556, approach 3): Huber loss on the
logarithm's residuals, from many starts.

Intervals come from fits of losses drawn anew around the law (the parametric bootstrap), by a scatter
that is itself uncertain: a ladder has few rungs, drawing these again would leave sizes out.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from mdmspeech.errors import UserError

_DELTA = 1e-3  # of the Huber loss, theirs
_LEAST = 3  # different sizes, and budgets
_PARAMETERS = 5
_LEVEL = 0.95
_ITERATIONS, _STUCK = 300, 1e6  # at most; a damping at which no step is one
# what the fit may give: logarithms of nats and slopes
_LOWEST, _HIGHEST = np.array([-8.0, -12, 0, -12, 0]), np.array([5.0, 8, 3, 8, 3])


@dataclasses.dataclass(frozen=True)
class Law:
    """Attributes: E: loss of a model without limits, nats; A, alpha: of the size; B, beta: of the
    data.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, size, tokens):
        """Nats; arrays or numbers."""
        return self.E + self.A / size**self.alpha + self.B / tokens**self.beta

    def best_size(self, compute, flops_per=6.0):
        """Parameters that give the least loss for a compute of flops_per x N x D FLOPs."""
        gain = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return gain * (compute / flops_per) ** (self.beta / (self.alpha + self.beta))


@dataclasses.dataclass(frozen=True)
class Fit:
    """A law and how sure it is.

    Attributes:
      scatter: of single runs around the law, as a share of their loss.
      draws: laws of losses drawn anew. scatters: theirs, one a draw.
    """

    law: Law
    scatter: float
    draws: tuple[Law, ...]
    scatters: np.ndarray

    def interval(self, of: Callable[[Law], float]) -> tuple[float, float]:
        """Where 95 % of the draws have a number of a law."""
        return _middle([of(law) for law in self.draws])

    def predict(self, size: float, tokens: float) -> tuple[float, float, float]:
        """(loss, low, high) of a run that was not fitted: with the scatter of single runs."""
        noise = np.random.default_rng(1).normal(size=len(self.draws)) * self.scatters
        losses = [
            law.loss(size, tokens) * np.exp(e) for law, e in zip(self.draws, noise, strict=True)
        ]
        return float(self.law.loss(size, tokens)), *_middle(losses)


def fit(
    sizes: Sequence[float],
    tokens: Sequence[float],
    losses: Sequence[float],
    draws: int = 200,
    seed: int = 0,
) -> Fit:
    """Fits the law to runs.

    Args:
      sizes, tokens, losses: N, D and nats of each run.

    Raises:
      UserError: numbers that are no positive ones, fewer than three sizes or budgets, fewer runs than
        the law has numbers and one.
    """
    n, d, loss = (np.asarray(x, np.float64) for x in (sizes, tokens, losses))
    _check(n, d, loss)
    points = _Points(np.log(n), np.log(d))
    starts = points.starts(np.log(loss))
    found, costs = points.descend(starts, np.log(loss)[None])
    best = found[np.argmin(costs)]
    law = points.law(best)
    fitted = np.log(law.loss(n, d))
    free = len(n) - _PARAMETERS
    scatter = float(np.sqrt(np.sum((np.log(loss) - fitted) ** 2) / free))
    rng = np.random.default_rng(seed)
    scatters = scatter * np.sqrt(free / rng.chisquare(free, draws))
    drawn = fitted + scatters[:, None] * rng.normal(size=(draws, len(n)))
    again, _ = points.descend(np.tile(best, (draws, 1)), drawn)
    return Fit(law, scatter, tuple(points.law(x) for x in again), scatters)


def _check(n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> None:
    for what, values in {"sizes": n, "tokens": d, "losses": loss}.items():
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise UserError(f"{what} of the runs: all must be finite and above 0; leave others out")
    for what, values in {"sizes": n, "budgets of tokens": d}.items():
        # what a rung really read differs by its padding
        count = len(np.unique(np.round(np.log(values), 2)))
        if count < _LEAST:
            raise UserError(
                f"a law needs runs of {_LEAST} {what} or more, here are {count}: train more rungs "
                "(mdmspeech ladder run)"
            )
    if len(n) <= _PARAMETERS:
        raise UserError(
            f"a law of {_PARAMETERS} numbers needs {_PARAMETERS + 1} runs or more, here are "
            f"{len(n)}: train more rungs (mdmspeech ladder run)"
        )


class _Points:
    """The runs as the fit sees them: X tries at once, each [ln E, ln A', alpha, ln B', beta], A' and
    B' being the two terms at the middle of the runs.

    ln_n, ln_d: logarithms of N and D, [U] of U runs.
    """

    def __init__(self, ln_n: np.ndarray, ln_d: np.ndarray):
        self._middle = ln_n.mean(), ln_d.mean()
        self._n_U, self._d_U = ln_n - self._middle[0], ln_d - self._middle[1]

    def law(self, x: np.ndarray) -> Law:
        """In the law's own numbers."""
        e, a, alpha, b, beta = (float(value) for value in x)
        ln_n, ln_d = self._middle
        of_size, of_data = float(np.exp(a + alpha * ln_n)), float(np.exp(b + beta * ln_d))
        return Law(float(np.exp(e)), of_size, alpha, of_data, beta)

    def starts(self, target_U: np.ndarray) -> np.ndarray:
        """[X, 5]: E from little to nearly all of the least loss, steep and flat."""
        least = np.exp(target_U.min())
        slopes = (0.1, 0.3, 0.6, 1.0)
        grid = itertools.product((0.1, 0.4, 0.7, 0.95), slopes, slopes, (0.2, 0.5, 0.8))
        return np.array(
            [
                [np.log(e * least), np.log((1 - e) * least * part), alpha,
                 np.log((1 - e) * least * (1 - part)), beta]
                for e, alpha, beta, part in grid
            ]
        )  # fmt: skip

    def descend(self, x_X5: np.ndarray, target_XU: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The minima that the tries lead to, and their Huber losses [X]: Levenberg-Marquardt steps of
        the reweighted squares, all tries side by side.

        target_XU: ln of the losses, of all tries ([1, U]) or each.
        """
        damping_X = np.full(len(x_X5), 1e-2)
        left_XU, slopes_XU5 = self._residuals(x_X5, target_XU)
        cost_X = _huber(left_XU).sum(axis=1)
        for _ in range(_ITERATIONS):
            weight_XU = 1.0 / np.maximum(np.abs(left_XU), 1.0)
            pull_X5 = np.einsum("xup,xu->xp", slopes_XU5, weight_XU * left_XU)
            curve_X55 = np.einsum("xup,xu,xuq->xpq", slopes_XU5, weight_XU, slopes_XU5)
            ridge_X5 = damping_X[:, None] * (np.einsum("xpp->xp", curve_X55) + 1e-9)
            curve_X55 = curve_X55 + ridge_X5[..., None] * np.eye(_PARAMETERS)
            step_X5 = np.linalg.solve(curve_X55, pull_X5[..., None])[..., 0]
            tried_X5 = np.clip(x_X5 - np.clip(step_X5, -2.0, 2.0), _LOWEST, _HIGHEST)
            left_new, slopes_new = self._residuals(tried_X5, target_XU)
            cost_new = _huber(left_new).sum(axis=1)
            better_X = cost_new < cost_X
            x_X5 = np.where(better_X[:, None], tried_X5, x_X5)
            left_XU = np.where(better_X[:, None], left_new, left_XU)
            slopes_XU5 = np.where(better_X[:, None, None], slopes_new, slopes_XU5)
            cost_X = np.where(better_X, cost_new, cost_X)
            damping_X = np.clip(np.where(better_X, damping_X / 3, damping_X * 4), 1e-9, _STUCK)
            if (damping_X == _STUCK).all():
                break
        return x_X5, cost_X

    def _residuals(self, x_X5, target_XU):
        """In units of the Huber loss's delta: (predicted - measured [X, U], slopes [X, U, 5])."""
        e, a, alpha, b, beta = (x_X5[:, k, None] for k in range(_PARAMETERS))
        terms = np.stack(
            np.broadcast_arrays(e, a - alpha * self._n_U[None], b - beta * self._d_U[None])
        )
        top = terms.max(axis=0)
        shares = np.exp(terms - top)
        total = shares.sum(axis=0)
        of_e, of_a, of_b = shares / total
        slopes = np.stack(
            [of_e, of_a, -of_a * self._n_U[None], of_b, -of_b * self._d_U[None]], axis=-1
        )
        return (top + np.log(total) - target_XU) / _DELTA, slopes / _DELTA


def _huber(left: np.ndarray) -> np.ndarray:
    size = np.abs(left)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values, np.float64), ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return float(low), float(high)
