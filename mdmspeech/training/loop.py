"""Training of every stage. `train` reads from top to bottom; the order is always: update ->
evaluate the state -> save it -> next batch.

Saved are the states at every `train.save_every`, at a new best score (`train.keep_best`), at the
end, and when a signal asks to stop, as it comes before a preemption. With several processes (see
`distributed`) all run this loop in step.
"""

import contextlib
import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath
from flax.errors import FlaxError
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training import distributed
from mdmspeech.training import mesh as meshes
from mdmspeech.training.checkpoint import Checkpoints, absolute, check_config
from mdmspeech.training.compiled_step import CompiledStep
from mdmspeech.training.epochs import steps_of
from mdmspeech.training.mfu import model_flops
from mdmspeech.training.nonfinite import NonFiniteError, NonFinitePolicy, is_finite
from mdmspeech.training.observer import RunObserver
from mdmspeech.training.optim import make_optimizer, match_rules
from mdmspeech.training.prefetch import DeviceBatch, Prefetcher
from mdmspeech.training.profiler import check_window
from mdmspeech.training.ranges import check_ranges
from mdmspeech.training.state import (
    TrainState,
    abstract_state,
    all_finite,
    create_frozen,
    create_state,
    with_params,
)
from mdmspeech.training.step import make_train_step
from mdmspeech.training.stopping import StopReason, StopSignal, why_stopped
from mdmspeech.training.task import Task
from mdmspeech.training.validation import Evaluator
from mdmspeech.training.workdir import check_workdir, make_workdir

__all__ = ["NonFiniteError", "train"]


class _Update(NamedTuple):
    """An update that was started, whose metrics nobody has seen yet."""

    step: int
    metrics: dict[str, jax.Array]
    batch: DeviceBatch


def train(config: ConfigDict, task: Task, workdir: str | Path | epath.Path) -> TrainState:
    """Trains `task` until `train.steps`, `train.epochs` or `train.minutes`, resuming from `workdir` if
    it holds checkpoints.

    A run that has used up `train.max_hours` saves and ends with a UserError.

    SIGTERM or Ctrl-C (to any one of several processes) saves and leaves with exit code 0; a second
    Ctrl-C stops at once.

    Args:
      config: `config.base()` plus anything else; the whole of it is stored with the checkpoints.
      task: the stage.
      workdir: gets checkpoints/, metrics.jsonl, tensorboard/, curves.png, ledger.json, ledger.png,
        config.json, eval/<step>/, profile/, nonfinite.jsonl.

    Returns:
      The final state, on the devices.

    Raises:
      UserError: a setting out of its range, parameter without a rule, another config's checkpoint,
        batch that does not divide, ...; nothing is written then, and what is there stays as it is.
      NonFiniteError: see there, and `train.on_nan`.
      SystemExit: code 0, after a signal.
    """
    # ---- Settings and devices -------------------------------------------------------------------
    check_ranges(config)
    check_window(config.train.profile)
    settings, workdir = copy.deepcopy(config.train), absolute(workdir)
    mesh = meshes.make_mesh(**config.mesh)

    with jax.set_mesh(mesh), StopSignal() as stop, contextlib.ExitStack() as cleanup:
        observer = RunObserver(workdir, settings, task.name, task.unit, mesh)
        cleanup.callback(observer.close)
        check_workdir(workdir)
        resumes = any(distributed.gather(check_config(workdir, config.to_dict())))

        # ---- Parameters, as shapes --------------------------------------------------------------
        rng = jax.random.key(settings.seed)
        shapes = _abstract_params(task, rng)
        match_rules(shapes, task.optimizer)

        # ---- Data -------------------------------------------------------------------------------
        data = task.batches("train", settings.seed)
        if not hasattr(data, "get_state") or not hasattr(data, "set_state"):
            raise UserError(
                f"{task.name}: batches() gives a {type(data).__name__} without "
                "get_state/set_state: it could not be resumed"
            )
        put = lambda batch: meshes.put_batch(mesh, batch)
        settings.steps, length = steps_of(settings, data)

        # ---- Optimizer, whose schedule ends with the run; still shapes --------------------------
        optimizer = make_optimizer(config.optim, settings.steps, shapes, task.optimizer)
        with_ema = config.optim.ema > 0
        abstract = abstract_state(task.init, optimizer, rng, with_ema, mesh)

        # ---- State: of the newest checkpoint, or a fresh one ------------------------------------
        def open_checkpoints() -> Checkpoints:
            best = (settings.keep_best_mode, settings.keep_best)
            return cleanup.enter_context(
                contextlib.closing(
                    Checkpoints(workdir, config.to_dict(), settings.keep, best, observer.say)
                )
            )

        def first_state() -> TrainState:
            state = create_state(task.init, optimizer, rng, with_ema, mesh)
            return with_params(state, task.warm_start(state.params))

        frozen = create_frozen(task, mesh, settings.dtype)
        checkpoints = open_checkpoints() if resumes else None
        restored = checkpoints.restore(abstract) if checkpoints else None
        if restored:
            state, data_state, seconds, window = restored
            origin = f"resumed at step {int(state.step)}"
            try:
                data.set_state(data_state)
            except UserError:
                if not settings.new_data:
                    raise
                origin += ", on other data, from their beginning"
        else:
            state = first_state()
            data_state, seconds, window = data.get_state(), 0.0, []
            origin = "new run"
        del restored  # its arrays are donated to the first update
        first = step = int(state.step)

        # ---- Step and evaluation ----------------------------------------------------------------
        # Shardings are pinned: under Auto axes the compiler may otherwise return the state with
        # others, and compile again.
        shardings = jax.tree.map(lambda s: s.sharding, abstract)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        train_step = CompiledStep(
            jax.jit(
                make_train_step(
                    task,
                    optimizer,
                    settings.accum,
                    config.optim.ema,
                    settings.dtype,
                    settings.remat,
                    skip_nan=settings.on_nan == "skip",
                    reduce_dtype=settings.reduce_dtype,
                    precision=settings.matmul_precision,
                ),
                donate_argnums=0,
                out_shardings=(shardings, replicated),
            ),
            observer.goodput,
            lambda state, frozen, batch: model_flops(task, optimizer, state.params, frozen, batch),
            observer.say,
        )
        evaluator = Evaluator(task, frozen, put, workdir, settings.dtype)
        scores: dict[int, dict[str, float]] = {}  # of the states that were evaluated, by step

        # ---- The first batch; then all is known to fit, and the first file is written -----------
        # the rate is that of all processes, whose parts are much alike
        parts = distributed.share()[1]
        batches = Prefetcher(data, put, lambda batch: task.count(batch) * parts, settings.prefetch)
        cleanup.callback(batches.close)

        def next_batch() -> DeviceBatch | None:
            """None if the data ended."""
            with observer.goodput.time("data"):
                return next(batches, None)

        batch = next_batch() if step < settings.steps else None
        make_workdir(workdir, config)
        checkpoints = checkpoints or open_checkpoints()
        observer.start(step, seconds, window)
        count = sum(x.size for x in jax.tree.leaves(shapes))
        observer.say(
            f"{task.name}: {count:,} parameters, {meshes.describe(mesh)}, {origin}, in {workdir}"
        )
        if length:
            observer.say(length)
        if distributed.is_lead() and hasattr(data, "about"):
            for line in data.about():
                observer.say(line)

        # ---- What the loop does with a state ----------------------------------------------------
        pending: _Update | None = None

        def last_checkpoint() -> int | None:
            checkpoints.wait()
            return checkpoints.newest()

        policy = NonFinitePolicy(settings.on_nan, task.name, workdir, observer.say, last_checkpoint)

        def settle() -> bool:
            """Waits for the metrics of the pending update. A state whose metrics were not seen is
            never evaluated, nor saved. False: the state must be given up, see `go_back`.
            """
            nonlocal pending
            if pending is None:
                return True
            update, pending = pending, None
            values, units = train_step.wait(update.metrics), update.batch.units
            fine = is_finite(values)
            if fine:
                policy.fine()
            elif policy.goes_back(update.step, values, update.batch.ids):
                return False
            flops = train_step.flops(update.batch.arrays)
            observer.step(update.step, values if fine else None, units, flops)
            return True

        def go_back() -> None:
            """To the newest checkpoint, or the beginning; the data go on where they are."""
            nonlocal state, step, batch, pending
            pending = None
            train_step.forget()
            saved = None if last_checkpoint() is None else checkpoints.restore(abstract)
            state, window = (saved.state, saved.log) if saved else (first_state(), [])
            step = int(state.step)
            observer.back(step, window)
            for later in [s for s in scores if s > step]:
                del scores[later]
            batch = batch or next_batch()

        def check_params() -> None:
            """An update can end in parameters that are no numbers though its loss and gradient were."""
            if not all_finite(state.params):
                raise policy.error(step, "(parameters after the update; its loss was finite)")

        def evaluate() -> bool:
            """Whether this state is the best so far, by `train.keep_best`."""
            check_params()
            with observer.evaluation(step) as found:
                found |= evaluator(state.eval_params, step)
                if hasattr(data, "passes"):
                    found |= {f"passes/{name}": n for name, n in data.passes(data_state).items()}
            scores[step] = found
            if settings.keep_best and settings.keep_best not in found:
                names = ", ".join(found) or "none"
                observer.say(
                    f"train.keep_best is {settings.keep_best!r}, which is not among "
                    f"the scores ({names}): no best is kept"
                )
            return checkpoints.is_best(found)

        def save() -> None:
            with observer.saving(step):
                check_params()
                checkpoints.save(
                    state, data_state, observer.seconds(), list(observer.window), scores.get(step)
                )
            policy.fine(safe=True)

        def reason_to_stop(data_ended: bool) -> int:
            if settings.max_hours and observer.goodput.hours() >= settings.max_hours:
                return StopReason.BUDGET
            if stop.name:
                return StopReason.SIGNAL
            if settings.minutes and observer.seconds() > settings.minutes * 60:
                return StopReason.TIME_LIMIT
            return StopReason.DATA_ENDED if data_ended else StopReason.NONE

        # ---- The loop ---------------------------------------------------------------------------
        consensus = distributed.StopConsensus(mesh)
        consensus.cast(partial(reason_to_stop, step < settings.steps and batch is None))
        reason = consensus.result()
        while step < settings.steps and not reason:
            # ---- Update; then look at the metrics of the update before, so that the devices never
            # wait for Python -------
            # A step is computed by all processes or by none: so whether each has a batch for the
            # next is known before this one starts.
            following = next_batch() if step + 1 < settings.steps else None
            consensus.cast(partial(reason_to_stop, step + 1 < settings.steps and following is None))
            assert batch is not None
            with observer.trace(step + 1):
                state, metrics = train_step(state, frozen, batch.arrays)
            step, data_state = step + 1, batch.data_state
            good = settle()
            pending, batch = _Update(step, metrics, batch), following

            # ---- Evaluate -> save -> next batch -------------------------------------------------
            best = False
            if step == settings.steps or (settings.eval_every and step % settings.eval_every == 0):
                good = good and settle()
                best = good and evaluate()
            if best or step % settings.save_every == 0:
                good = good and settle()
                if good:
                    save()
            reason = consensus.result()
            if not good:
                go_back()
                consensus.cast(partial(reason_to_stop, batch is None))
                reason = consensus.result()

        # ---- The end: same order ----------------------------------------------------------------
        if not settle():
            go_back()
        if (
            reason in (StopReason.DATA_ENDED, StopReason.TIME_LIMIT)
            and step > first
            and step not in scores
        ):
            evaluate()
        if step > first:
            save()
        with observer.goodput.time("save"):
            checkpoints.wait()
        why = why_stopped(reason, stop.name, settings.minutes, settings.max_hours)
        observer.finish(f"{task.name}: {why} at step {step}/{settings.steps}")
        if reason == StopReason.BUDGET and step < settings.steps:
            raise UserError(
                f"all starts of this run together have used up its {settings.max_hours:g} hours at "
                f"step {step}/{settings.steps}: with more (--max-hours of a launcher, or --set "
                "train.max_hours) the same command goes on from there"
            )
        if reason == StopReason.SIGNAL:
            raise SystemExit(0)
        return state


def _abstract_params(task: Task, rng: jax.Array) -> Any:
    """Shapes of the parameters; a UserError if the model cannot be built from the sizes that the
    experiment gives it.
    """
    try:
        return jax.eval_shape(task.init, rng)
    except UserError:
        raise
    except (ValueError, TypeError, ArithmeticError, AssertionError, FlaxError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{task.name}: no model can be built from the experiment's sizes "
            f"({why}); change them back (width, heads, ...)"
        ) from error
