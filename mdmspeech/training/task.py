"""What a training stage must provide: the one interface between the loop and the science.

A stage (codec, speech-to-text, Talker, distillation, ...) subclasses `Task`; `loop.train` does
everything else. Trained parameters and frozen ones never share a tree: `init` makes the first,
`init_frozen` the second, and the optimiser sees only the first.

An adversarial game fits the same interface with one optimiser: put generator and discriminator in
one tree, `stop_gradient` the discriminator's parameters in the generator's loss and the generated
signal in the discriminator's loss.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from mdmspeech.training.optim import ParamRule

Params = Any  # a pytree of arrays; nested dicts in practice
# name -> (numerator, denominator), both float scalars
Losses = Mapping[str, tuple[jax.Array, jax.Array]]
Weight = float | Callable[[jax.Array], jax.Array]  # a constant, or a schedule: step -> scalar


class BatchIterator(Protocol):
    """Batches in a fixed order whose position can be saved: Grain's iterators are such, a small
    class of yours can be. One with `about()` -> lines has them shown when a run begins. Arrays
    named `segment`, `valid` or ending so are 0 on padding, whose share the log shows.
    """

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]: ...

    def __next__(self) -> dict[str, np.ndarray]: ...

    def get_state(self) -> Any:
        """Position after the last batch handed out: bytes, or anything JSON can hold."""

    def set_state(self, state: Any) -> None:
        """Continue as if the batches before `state` had just been read."""


class Task:
    """One training stage. Subclasses set the attributes and write `init`, `loss` and `batches`.

    Attributes:
      name: short, used in messages.
      weights: loss name -> weight. The loss is sum_k weight_k * numerator_k / denominator_k. A name
        that `loss` returns without a weight (an accuracy) is only reported; a weight without a loss
        is an error.
      optimizer: rules over parameter paths ("decoder/layer_0/mlp/kernel"), first match wins; every
        parameter must match one.
      unit: what `count` counts, for the rate in the log.
      held_out: the split whose losses are computed at each evaluation, "" for none (see
        `held_out`). "val": choices are made by these (`train.keep_best`), so they are never those
        of the test set.
      sources: source of the data -> its batches alone, as `batches` makes those of all: their losses
        are computed beside those of the mixture. Empty where there is one source.
      rows_apart: `loss` is a sum over rows none of which looks at another, and draws no random numbers
        where `draw` has drawn them: parts of a batch may then be computed apart.
      show: function (params, step, outdir) -> scores that writes samples and plots at each
        evaluation, or None. The caller's, because what it needs (voices, pictures, recognisers) is
        none of the loop's business.
    """

    name: str = "task"
    weights: Mapping[str, Weight] = {"loss": 1.0}
    optimizer: Sequence[ParamRule] = (ParamRule(".*"),)
    unit: str = "examples"
    held_out: str = ""
    sources: Mapping[str, Callable[[str, int], BatchIterator]] = {}
    rows_apart: bool = False
    show: Callable[[Params, int, Path], dict[str, float]] | None = None

    def init(self, rng: jax.Array) -> Params:
        """Fresh parameters from a typed key. Runs inside `jax.jit`, so that large parameters are
        born sharded.
        """
        raise NotImplementedError

    def warm_start(self, params: Params) -> Params:
        """Parameters to start from, given the fresh ones: load an earlier stage here. Not called
        when a checkpoint is resumed.
        """
        return params

    def init_frozen(self, rng: jax.Array) -> Params:
        """Random parameters that `loss` reads and nobody trains. Their shapes are what `planning`
        compiles with; see `load_frozen`.
        """
        return {}

    def load_frozen(self, abstract: Params) -> Params | None:
        """The frozen parameters to use, given the shapes of `init_frozen`'s. None: the random ones
        (nothing was named to load).
        """
        return None

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Names, global shapes and types of a training batch, for compiling without data. With
        several lengths: the largest.
        """
        raise NotImplementedError

    def loss(
        self,
        params: Params,
        frozen: Params,
        batch: dict[str, jax.Array],
        rng: jax.Array,
        step: jax.Array,
    ) -> Losses:
        """Loss parts of one (micro-)batch as sums and counts, so that they add up over
        micro-batches. Pure; runs inside `jit`.

        Args:
          batch: the arrays of `batches`, without "id" and without arrays that are not numbers.
          rng: a key of this step and micro-batch only.
          step: int32 scalar, updates done so far.
        """
        raise NotImplementedError

    def draw(self, batch: dict[str, jax.Array], rng: jax.Array) -> dict[str, jax.Array]:
        """The batch with all that is random in its loss, as `loss` would draw it from `rng`. For tasks
        with `rows_apart`.
        """
        return batch

    def held_out_loss(
        self,
        params: Params,
        frozen: Params,
        batch: dict[str, jax.Array],
        rng: jax.Array,
        step: jax.Array,
    ) -> Losses:
        """The loss by which states are compared: as `loss`, but without what only makes learning
        harder (dropout, hidden spans). Random numbers stay where they are the task itself, such as
        which tokens are hidden."""
        return self.loss(params, frozen, batch, rng, step)

    def batches(self, split: str, seed: int) -> BatchIterator:
        """Batches of `split` ("train" is what the loop asks for). Every array has the batch as its
        first axis, which must divide by the number of data-parallel devices times `train.accum`.
        "id" (optional) names the records for error messages.

        With several processes each makes its rows of every global batch, see `distributed.share`.
        All must reach the end after the same number of batches. Another number of processes can
        resume the run if neither the global batches nor the state (a position in their stream)
        depend on who makes which rows.
        """
        raise NotImplementedError

    def evaluate(self, params: Params, step: int, outdir: Path) -> dict[str, float]:
        """Scores of the current (averaged, if EMA is on) parameters. `outdir` exists; sample audio
        and plots go there.
        """
        return self.show(params, step, outdir) if self.show else {}

    def count(self, batch: dict[str, np.ndarray]) -> int:
        """How many `unit`s a batch holds."""
        return len(next(iter(batch.values())))
