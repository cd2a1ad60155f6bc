"""The training loop of every stage. Order, always: evaluate the state -> save it -> take the next batch."""

import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training import mesh as meshes
from mdmspeech.training.checkpoint import Checkpoints
from mdmspeech.training.feed import Fed, Feed
from mdmspeech.training.held_out import HeldOut
from mdmspeech.training.metrics import MetricsWriter, plot_curves
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.progress import Progress, clock
from mdmspeech.training.state import TrainState, abstract_state, create_state, with_params
from mdmspeech.training.step import make_train_step
from mdmspeech.training.task import Task


class NonFiniteError(RuntimeError):
    """The loss or the gradient norm is no number. The message names the step and the records; the last checkpoint is good."""


def run(config: ConfigDict, task: Task, workdir: str | Path) -> TrainState:
    """Trains `task` until `train.steps` or `train.minutes`, resuming from `workdir` if it holds checkpoints.

    SIGTERM or Ctrl-C saves and leaves with exit code 0; a second Ctrl-C stops at once.

    Args:
      config: `config.base()` plus anything else; the whole of it is stored with the checkpoints.
      task: the stage.
      workdir: gets checkpoints/, metrics.jsonl, tensorboard/, curves.png, config.json, eval/<step>/.

    Returns:
      The final state, on the devices.

    Raises:
      UserError: unclaimed parameter, another config's checkpoint, batch that does not divide, ...
      NonFiniteError: see there.
      SystemExit: code 0, after a signal.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    train = config.train
    if train.steps < 1:
        raise UserError(f"train.steps is {train.steps}: give at least 1")
    mesh = meshes.make_mesh(**config.mesh)
    with jax.set_mesh(mesh), StopSignal() as stop:
        return _Run(config, task, workdir, mesh, stop).go()


class _Run:
    """The pieces of one run and its clock."""

    def __init__(self, config: ConfigDict, task: Task, workdir: Path, mesh: jax.sharding.Mesh, stop: "StopSignal"):
        self.train, self.task, self.workdir, self.stop = config.train, task, workdir, stop
        (workdir / "config.json").write_text(config.to_json_best_effort(indent=1))

        # ---- Parameters, optimiser, state -------------------------------------------------------------------------------
        rng = jax.random.key(self.train.seed)
        shapes = jax.eval_shape(task.init, rng)
        optimizer = make_optimizer(config.optim, self.train.steps, shapes, task.optimizer)
        with_ema = config.optim.ema > 0
        abstract = abstract_state(task.init, optimizer, rng, with_ema, mesh)

        # ---- Resume, or start -------------------------------------------------------------------------------------------
        self.checkpoints = Checkpoints(workdir, config.to_dict(), self.train.keep, say=lambda line: print(line, file=sys.stderr))
        self.data = task.batches("train", self.train.seed)
        if not hasattr(self.data, "get_state") or not hasattr(self.data, "set_state"):
            raise UserError(
                f"{task.name}: batches() gives a {type(self.data).__name__} without get_state/set_state: it could not be resumed"
            )
        resumed = self.checkpoints.restore(abstract)
        if resumed:
            self.state, self.data_state, self.seconds = resumed
            self.data.set_state(self.data_state)
        else:
            self.state = create_state(task.init, optimizer, rng, with_ema, mesh)
            self.state = with_params(self.state, task.warm_start(self.state.params))
            self.data_state, self.seconds = self.data.get_state(), 0.0
        self.first = int(self.state.step)
        self.window: list[dict[str, float]] = []  # numbers since the last line in the log, which shows their means

        # ---- The step ---------------------------------------------------------------------------------------------------
        self.frozen = meshes.replicate(mesh, task.frozen)
        # Shardings are pinned: under Auto axes the compiler may otherwise return the state with others, and compile again.
        shardings = jax.tree.map(lambda s: s.sharding, abstract)
        replicated = jax.sharding.NamedSharding(mesh, meshes.spec())
        step = make_train_step(task, optimizer, self.train.accum, config.optim.ema)
        self.step = jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated))
        self.put = lambda batch: meshes.put_batch(mesh, batch)
        self.held_out = HeldOut(task, self.frozen, self.put)

        # ---- What people see --------------------------------------------------------------------------------------------
        self.writer = MetricsWriter(workdir, self.first)
        self.progress = Progress(self.train.steps, self.first, task.unit, self.train.minutes * 60)
        count = sum(x.size for x in jax.tree.leaves(shapes))
        origin = f"resumed at step {self.first}" if resumed else "new run"
        self.progress.say(f"{task.name}: {count:,} parameters, {meshes.describe(mesh)}, {origin}, in {workdir}")

    def go(self) -> TrainState:
        """The loop; always leaves saved checkpoints on disk and threads ended."""
        feed = Feed(self.data, self.put, self.task.count, self.train.prefetch)
        try:
            return self._go(feed)
        finally:
            feed.close()
            self.progress.close()
            self.writer.close()
            self.checkpoints.close()

    def _go(self, feed: Feed) -> TrainState:
        train, pending, end = self.train, None, None
        self.started = time.monotonic() - self.seconds
        evaluated = self.first
        for step in range(self.first, train.steps):
            if end := self._why_stop():
                break
            try:
                fed = next(feed)
            except StopIteration:
                end = "the data ended"
                break

            # ---- Update; then look at the numbers of the update before, so that the device never waits for Python -------
            self.state, metrics = self.step(self.state, self.frozen, fed.arrays)
            self.data_state = fed.data_state
            self._settle(pending)
            pending = (step + 1, metrics, fed)

            # ---- Evaluate -> save -> next batch -------------------------------------------------------------------------
            done = step + 1
            if train.eval_every and done % train.eval_every == 0:
                self._settle(pending)
                pending = None
                self._evaluate(done)
                evaluated = done
            if done % train.save_every == 0:
                self._settle(pending)  # a state whose numbers were not seen is never saved
                pending = None
                self._save()

        # ---- The end: same order ----------------------------------------------------------------------------------------
        self._settle(pending)
        done = int(self.state.step)
        if evaluated != done and not self.stop.name:
            self._evaluate(done)
        if done > self.first:
            self._save()
        self.checkpoints.wait()
        self.progress.say(f"{self.task.name}: {end or 'done'} at step {done}/{train.steps} after {clock(self._elapsed())}")
        if self.stop.name:
            raise SystemExit(0)
        return self.state

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _why_stop(self) -> str | None:
        if self.stop.name:
            return f"{self.stop.name}: saved, start again to go on,"
        if self.train.minutes and self._elapsed() > self.train.minutes * 60:
            return f"train.minutes={self.train.minutes:g} used up"
        return None

    def _settle(self, pending: tuple[int, dict[str, jax.Array], Fed] | None) -> None:
        """Waits for the numbers of an update; checks, writes and shows them."""
        if pending is None:
            return
        step, metrics, fed = pending
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self.progress.advance(fed.units)
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            self.checkpoints.wait()
            parts = ", ".join(f"{k} {v:g}" for k, v in values.items())
            records = f"records {', '.join(fed.ids[:32])}" if fed.ids else 'records unknown (give batches an "id")'
            raise NonFiniteError(f"{self.task.name}: not finite at step {step} ({parts}); {records}; the last checkpoint is good")
        self.window.append(values)
        if step % self.train.log_every == 0 or step == self.first + 1:
            means = {name: sum(v[name] for v in self.window) / len(self.window) for name in values} | {"lr": values["lr"]}
            rates = self.progress.report(step, {k: v for k, v in means.items() if k != "lr"}, self._elapsed())
            self.writer.write(step, means | rates)
            self.window.clear()

    def _evaluate(self, step: int) -> None:
        outdir = self.workdir / "eval" / f"{step:07d}"
        outdir.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        scores = self.held_out(self.state.eval_params) | dict(self.task.evaluate(self.state.eval_params, step, outdir))
        if scores:
            self.writer.write(step, scores, "eval")
            parts = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
            self.progress.say(f"eval at step {step}: {parts}  ({clock(time.monotonic() - began)})")
        plot_curves(self.workdir, self.task.name)
        self.started += time.monotonic() - began  # train.minutes counts training only
        self.progress.exclude(time.monotonic() - began)

    def _save(self) -> None:
        began = time.monotonic()
        self.checkpoints.save(self.state, self.data_state, self._elapsed())
        self.progress.exclude(time.monotonic() - began)


class StopSignal:
    """Context that turns SIGTERM and SIGINT into `.name`; the second SIGINT acts as usual. Inactive outside the main thread."""

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever owns it decides
                pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
