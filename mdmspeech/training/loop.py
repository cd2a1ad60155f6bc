"""The training loop of every stage. Order, always: evaluate the state -> save it -> take the next batch.

Saved are the states at every `train.save_every`, at a new best score (`train.keep_best`), at the end, and when a signal asks to stop, as
it comes before a preemption. With several processes (see `distributed`) all run this loop in step: what a process decides by itself (a
signal, its clock, the end of its data) is put to the vote, so that all stop after the same update.
"""

import io
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from etils import epath
from flax.errors import FlaxError
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable
from mdmspeech.training import distributed
from mdmspeech.training import mesh as meshes
from mdmspeech.training.checkpoint import Checkpoints, absolute, check_config
from mdmspeech.training.goodput import GoodputTracker, plot_goodput
from mdmspeech.training.metrics import MetricsWriter, is_remote, plot_curves, upload
from mdmspeech.training.mfu import model_flops, peak_flops
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.prefetch import DeviceBatch, Prefetcher
from mdmspeech.training.profiler import ProfileWindow, check_window
from mdmspeech.training.progress import Progress, clock
from mdmspeech.training.ranges import check_ranges
from mdmspeech.training.state import TrainState, abstract_state, all_finite, create_frozen, create_state, with_params
from mdmspeech.training.step import make_train_step
from mdmspeech.training.stepper import Stepper
from mdmspeech.training.task import Task
from mdmspeech.training.validation import ValidationLoss

_DATA_ENDED, _TIME_IS_UP, _SIGNAL = 1, 2, 3  # reasons to stop; the largest wins the vote


class NonFiniteError(RuntimeError):
    """The loss or the gradient norm is no number. The message names the step and the records; the last checkpoint is good."""


def run(config: ConfigDict, task: Task, workdir: str | Path | epath.Path) -> TrainState:
    """Trains `task` until `train.steps` or `train.minutes`, resuming from `workdir` if it holds checkpoints.

    SIGTERM or Ctrl-C (to any one of several processes) saves and leaves with exit code 0; a second Ctrl-C stops at once.

    Args:
      config: `config.base()` plus anything else; the whole of it is stored with the checkpoints.
      task: the stage.
      workdir: gets checkpoints/, metrics.jsonl, tensorboard/, curves.png, ledger.json, ledger.png, config.json, eval/<step>/, profile/.

    Returns:
      The final state, on the devices.

    Raises:
      UserError: a setting out of its range, unclaimed parameter, another config's checkpoint, batch that does not divide, ...; nothing is written then.
      NonFiniteError: see there.
      SystemExit: code 0, after a signal.
    """
    check_ranges(config)
    check_window(config.train.profile)
    mesh = meshes.make_mesh(**config.mesh)
    with jax.set_mesh(mesh), StopSignal() as stop:
        return _Run(config, task, absolute(workdir), mesh, stop).go()


def _prepare(workdir: epath.Path, config: ConfigDict) -> None:
    """Makes the folder, which all hosts must share, and writes config.json."""
    try:
        if distributed.is_lead():
            workdir.mkdir(parents=True, exist_ok=True)
            new = workdir / "config.json.new"  # moved: a disk that is full leaves the old one whole
            new.write_text(config.to_json_best_effort(indent=1))
            new.replace(workdir / "config.json")
    except ImportError as error:
        raise UserError(f"{workdir}: {error}; pip install mdmspeech[cloud] brings what object storage needs") from error
    except OSError as error:  # places there are (/proc) that say they can be written to
        raise UserError(f"cannot write {workdir}: {(error.strerror or str(error)).lower()}; name another --workdir") from error
    distributed.barrier("config.json is written")
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} on this host is not the folder that process 0 writes to: give a --workdir that all hosts share")


def _shapes(task: Task, rng: jax.Array) -> Any:
    """The abstract parameters; a UserError if the model cannot be built from the sizes that the experiment gives it."""
    try:
        return jax.eval_shape(task.init, rng)
    except UserError:
        raise
    except (ValueError, TypeError, ArithmeticError, AssertionError, FlaxError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{task.name}: no model can be built from the experiment's sizes ({why}); change them back (width, heads, ...)"
        ) from error


class _Run:
    """The pieces of one run and its clock. Nothing is written, and what is there stays as it is, until everything is known to fit: the config of
    the checkpoints, the data, the weights to start from, the first batch."""

    def __init__(self, config: ConfigDict, task: Task, workdir: epath.Path, mesh: jax.sharding.Mesh, stop: "StopSignal"):
        self.train, self.task, self.workdir, self.stop, self.lead = config.train, task, workdir, stop, distributed.is_lead()
        self.ledger = GoodputTracker(workdir / "ledger.json" if self.lead else None)

        if not is_remote(workdir):
            check_writable(Path(workdir), "name another --workdir", folder=True)
        found = any(distributed.gather(check_config(workdir, config.to_dict())))

        # ---- Parameters, optimiser, state -------------------------------------------------------------------------------
        rng = jax.random.key(self.train.seed)
        shapes = _shapes(task, rng)
        optimizer = make_optimizer(config.optim, self.train.steps, shapes, task.optimizer)
        with_ema = config.optim.ema > 0
        abstract = abstract_state(task.init, optimizer, rng, with_ema, mesh)

        # ---- Resume, or start -------------------------------------------------------------------------------------------
        tell = lambda line: print(line, file=sys.stderr) if self.lead else None
        best = (self.train.keep_best_mode, self.train.keep_best)
        checkpoints = lambda: Checkpoints(workdir, config.to_dict(), self.train.keep, best, tell)
        self.data = task.batches("train", self.train.seed)
        if not hasattr(self.data, "get_state") or not hasattr(self.data, "set_state"):
            raise UserError(
                f"{task.name}: batches() gives a {type(self.data).__name__} without get_state/set_state: it could not be resumed"
            )
        self.frozen = create_frozen(task, mesh, self.train.dtype)
        resumed = None
        if found:
            self.checkpoints = checkpoints()
            resumed = self.checkpoints.restore(abstract)
        if resumed:
            self.state, self.data_state, self.seconds, self.window = resumed
            self.data.set_state(self.data_state)
        else:
            self.state = create_state(task.init, optimizer, rng, with_ema, mesh)
            self.state = with_params(self.state, task.warm_start(self.state.params))
            self.data_state, self.seconds = self.data.get_state(), 0.0
            self.window = []  # numbers since the last line in the log, which shows their means
        self.first = int(self.state.step)
        self.scores: tuple[int, dict[str, float]] = (-1, {})  # of the last evaluation: its step and what it found

        # ---- The step ---------------------------------------------------------------------------------------------------
        # Shardings are pinned: under Auto axes the compiler may otherwise return the state with others, and compile again.
        shardings = jax.tree.map(lambda s: s.sharding, abstract)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        step = make_train_step(task, optimizer, self.train.accum, config.optim.ema, self.train.dtype, self.train.remat)
        stream = None if self.lead else _Silence()
        self.progress = Progress(self.train.steps, self.first, task.unit, self.train.minutes * 60, stream)
        self.step = Stepper(
            jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated)),
            self.ledger,
            lambda state, frozen, batch: model_flops(task, optimizer, state.params, frozen, batch),
            devices=mesh.size,
            peak_flops=peak_flops(mesh.devices.flat[0], self.train.peak_flops),
            say=self.progress.say,
        )
        self.put = lambda batch: meshes.put_batch(mesh, batch)
        self.held_out = ValidationLoss(task, self.frozen, self.put, dtype=self.train.dtype)
        self.votes = distributed.StopConsensus(mesh)

        parts = distributed.share()[1]  # the rate is that of all processes, whose parts are much alike
        self.feed = Prefetcher(self.data, self.put, lambda batch: task.count(batch) * parts, self.train.prefetch)
        try:
            self.fed = self._take(self.feed) if self.first < self.train.steps else None
            _prepare(workdir, config)
        except BaseException:
            self.feed.close()
            raise
        if not found:
            self.checkpoints = checkpoints()

        # ---- What people see --------------------------------------------------------------------------------------------
        self.writer = MetricsWriter(workdir, self.first) if self.lead else None
        self.profile = ProfileWindow(self.train.profile, workdir, self.progress.say)
        count = sum(x.size for x in jax.tree.leaves(shapes))
        origin = f"resumed at step {self.first}" if resumed else "new run"
        self.progress.say(f"{task.name}: {count:,} parameters, {meshes.describe(mesh)}, {origin}, in {workdir}")
        if self.lead and hasattr(self.data, "about"):
            for line in self.data.about():
                self.progress.say(line)

    def go(self) -> TrainState:
        """The loop; always leaves saved checkpoints on disk and threads ended."""
        try:
            return self._go(self.feed)
        finally:
            self.feed.close()
            self.profile.close()
            self.progress.close()
            if self.writer:
                self.writer.close()
            self.checkpoints.close()
            self.ledger.write()

    def _go(self, feed: Prefetcher) -> TrainState:
        train, pending = self.train, None
        self.started = time.monotonic() - self.seconds
        self.ledger.begin(self.first)
        step = self.first
        fed = self.fed
        end = self._vote(step < train.steps and fed is None)()
        while step < train.steps and not end:
            # ---- Update; then look at the numbers of the update before, so that the device never waits for Python -------
            # A step is computed by all processes or by none: so whether each has a batch for the next is known before this one starts.
            following = self._take(feed) if step + 1 < train.steps else None
            ending = self._vote(step + 1 < train.steps and following is None)
            assert fed is not None
            with self.profile.step(step + 1):
                self.state, metrics = self.step(self.state, self.frozen, fed.arrays)
            self.data_state = fed.data_state
            self._settle(pending)
            pending, fed = (step + 1, metrics, fed), following
            step += 1

            # ---- Evaluate -> save -> next batch -------------------------------------------------------------------------
            best = False
            if step == train.steps or (train.eval_every and step % train.eval_every == 0):
                self._settle(pending)
                pending = None
                self._check_state()
                best = self._evaluate(step)
            if best or step % train.save_every == 0:
                self._settle(pending)  # a state whose numbers were not seen is never saved
                pending = None
                self._save()
            end = ending()

        # ---- The end: same order ----------------------------------------------------------------------------------------
        self._settle(pending)
        if end and end != _SIGNAL and self.scores[0] != step > self.first:
            self._evaluate(step)
        if step > self.first:
            self._save()
        with self.ledger.time("save"):
            self.checkpoints.wait()
        self.progress.say(self.ledger.table())
        self.ledger.write()
        if self.lead:
            plot_goodput(self.workdir)
        why = self._why(end) if end else "done"
        self.progress.say(f"{self.task.name}: {why} at step {step}/{train.steps} after {clock(self._elapsed())}")
        if end == _SIGNAL:
            raise SystemExit(0)
        return self.state

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _take(self, feed: Prefetcher) -> DeviceBatch | None:
        """The next batch; None if the data ended."""
        with self.ledger.time("data"):
            return next(feed, None)

    def _vote(self, no_batch: bool) -> Callable[[], int]:
        """Tells the other processes whether to stop; the answer, asked for later, is the reason of any of them, or 0."""

        def wish() -> int:
            if self.stop.name:
                return _SIGNAL
            if self.train.minutes and self._elapsed() > self.train.minutes * 60:
                return _TIME_IS_UP
            return _DATA_ENDED if no_batch else 0

        self.votes.cast(wish)
        return self.votes.result

    def _why(self, end: int) -> str:
        if end == _SIGNAL:
            return f"{self.stop.name or 'a signal to another process'}: saved, start again to go on,"
        return "the data ended" if end == _DATA_ENDED else f"train.minutes={self.train.minutes:g} used up"

    def _settle(self, pending: tuple[int, dict[str, jax.Array], DeviceBatch] | None) -> None:
        """Waits for the numbers of an update; checks, writes and shows them."""
        if pending is None:
            return
        step, metrics, fed = pending
        values = self.step.wait(metrics)
        self.ledger.done(step)
        self.profile.done(step)
        self.progress.advance(fed.units)
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            parts = ", ".join(f"{k} {v:g}" for k, v in values.items())
            records = f"records {', '.join(fed.ids[:32])}" if fed.ids else 'records unknown (give batches an "id")'
            raise self._not_finite(step, f"({parts}); {records}")
        self.window.append(values)
        # The first number after a restart is shown, but is no line of its own: the files are those of a run without one.
        written = step % self.train.log_every == 0 or step == 1
        if written or step == self.first + 1:
            means = _means(self.window) | {"lr": values["lr"]}
            since, shares = self.step.window()
            rates = self.progress.report(step, {k: v for k, v in means.items() if k != "lr"} | shares, since, self._elapsed())
            if written and self.writer:
                self.writer.write(step, means | rates | shares)
            self.ledger.write(now=False)
        if written:
            self.window.clear()

    def _check_state(self) -> None:
        """A step can end in parameters that are no numbers though its loss and gradient were: such a state is never shown, nor saved."""
        if not all_finite(self.state.params):
            raise self._not_finite(int(self.state.step), "(parameters after the update; its loss was finite)")

    def _not_finite(self, step: int, what: str) -> NonFiniteError:
        self.checkpoints.wait()
        good = self.checkpoints.newest()
        left = "nothing was saved" if good is None else f"the last checkpoint is good (step {good})"
        return NonFiniteError(f"{self.task.name}: not finite at step {step} {what}; {left}")

    def _evaluate(self, step: int) -> bool:
        """Evaluates, shows, remembers the scores. Returns whether this state is the best so far by `train.keep_best`."""
        began = time.monotonic()
        with self.ledger.time("eval"):
            scores = self.held_out(self.state.eval_params)
            if jax.process_count() == 1:
                scores |= self._shown(self.state.eval_params, step)
            elif self.task.show or type(self.task).evaluate is not Task.evaluate:
                params = distributed.to_lead(self.state.eval_params)
                if self.lead:
                    with jax.set_mesh(meshes.make_mesh(devices=jax.local_devices()[:1])):
                        scores |= self._shown(params, step)
                distributed.barrier(f"evaluated at step {step}")  # it may take long; a collective must not wait for it
            scores = distributed.gather(scores)[0]
            self.scores = step, scores
            if scores and self.writer:
                self.writer.write(step, scores, "eval")
                parts = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
                self.progress.say(f"eval at step {step}: {parts}  ({clock(time.monotonic() - began)})")
            if self.lead:
                plot_curves(self.workdir, self.task.name)
                plot_goodput(self.workdir)
        self.started += time.monotonic() - began  # train.minutes counts training only
        wanted = self.train.keep_best
        if wanted and wanted not in scores:
            self.progress.say(
                f"train.keep_best is {wanted!r}, which is not among the scores ({', '.join(scores) or 'none'}): no best is kept"
            )
        return self.checkpoints.is_best(scores)

    def _shown(self, params: Any, step: int) -> dict[str, float]:
        """The task's own evaluation; what it writes lands in eval/<step>."""
        outdir = self.workdir / "eval" / f"{step:07d}"
        if not is_remote(self.workdir):
            outdir.mkdir(parents=True, exist_ok=True)
            return dict(self.task.evaluate(params, step, Path(outdir)))
        with tempfile.TemporaryDirectory() as local:
            scores = dict(self.task.evaluate(params, step, Path(local)))
            upload(local, outdir)
        return scores

    def _save(self) -> None:
        with self.ledger.time("save"):
            self._check_state()
            step = int(self.state.step)
            if self.writer:
                self.writer.upload()  # a checkpoint never knows more than the metrics beside it
            scores = self.scores[1] if self.scores[0] == step else {}
            self.checkpoints.save(self.state, self.data_state, self._elapsed(), list(self.window), scores)
            self.ledger.saved(step)


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Of the numbers that all have: a window saved by an older version may lack some."""
    names = [name for name in window[-1] if all(name in values for values in window)]
    return {name: sum(values[name] for values in window) / len(window) for name in names}


class _Silence(io.StringIO):
    """Where all processes but the lead print."""

    def write(self, text: str, /) -> int:
        return len(text)


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
