"""What people see of a run and what is measured of it, behind one object: the log line,
metrics.jsonl, TensorBoard, curves, goodput, MFU, traces.

Nothing here decides anything: a run with another observer computes the same. Only the lead process
(see `distributed`) writes and prints; all others measure for themselves.
"""

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from mdmspeech.training import distributed
from mdmspeech.training.goodput import TRAINING, GoodputTracker, plot_goodput
from mdmspeech.training.metrics import MetricsWriter, plot_curves
from mdmspeech.training.mfu import mfu, peak_flops
from mdmspeech.training.profiler import ProfileWindow
from mdmspeech.training.progress import Progress, format_duration


class RunObserver:
    """Made when the run begins; `start` when nothing is left that could be refused: until then
    nothing is written.

    Args:
      workdir: gets metrics.jsonl, tensorboard/, curves.png, ledger.json, ledger.png and profile/.
      settings: the section `train` of the config.
      title: of the curves.
      unit: what the rate counts ("tokens").
      mesh: whose devices compute.

    Attributes:
      goodput: where the wall time goes.
      window: metrics of the updates since the last line of the log, which shows their means. Part
        of a checkpoint, so that a resumed run writes the same lines.
    """

    def __init__(
        self, workdir: epath.Path, settings: Any, title: str, unit: str, mesh: jax.sharding.Mesh
    ):
        self._workdir, self._settings, self._title, self._unit, self._mesh = (
            workdir,
            settings,
            title,
            unit,
            mesh,
        )
        self._lead = distributed.is_lead()
        self.goodput = GoodputTracker(workdir / "ledger.json" if self._lead else None)
        self.window: list[dict[str, float]] = []
        self._flops = 0  # of the updates since the last line
        self._progress: Progress | None = None
        self._writer: MetricsWriter | None = None

    def start(
        self, step: int, seconds: float = 0.0, window: list[dict[str, float]] | None = None
    ) -> None:
        """The run goes on from `step`, after `seconds` of training, with the `window` of its
        checkpoint.
        """
        self._first, self.window = step, list(window or [])
        device, settings = self._mesh.devices.flat[0], self._settings
        self._peak = peak_flops(device, settings.peak_flops, settings.matmul_precision)
        limit_s = self._settings.minutes * 60
        self._progress = Progress(
            self._settings.steps, step, self._unit, limit_s, None if self._lead else _Silence()
        )
        self._profile = ProfileWindow(self._settings.profile, self._workdir, self.say)
        self._writer = MetricsWriter(self._workdir, step) if self._lead else None
        self.goodput.begin(step)
        self._started = time.monotonic() - seconds

    def back(self, step: int, window: list[dict[str, float]] | None = None) -> None:
        """The run is at `step` once more, with the `window` of its checkpoint: what it wrote of later
        steps is dropped.
        """
        assert self._progress
        self.window = list(window or [])
        self._progress.back(step)
        if self._writer:
            self._writer.close()
            self._writer = MetricsWriter(self._workdir, step)

    def say(self, line: str) -> None:
        """A message on a line of its own."""
        if self._progress:
            self._progress.say(line)
        elif self._lead:
            print(line, file=sys.stderr)

    def seconds(self) -> float:
        """Of training, over all starts; evaluations are not counted."""
        return time.monotonic() - self._started

    def trace(self, step: int) -> contextlib.AbstractContextManager[Any]:
        """Put the start of update `step` (from 1) inside: it is traced if `train.profile` wants it."""
        return self._profile.step(step)

    def step(self, step: int, values: dict[str, float] | None, units: int, flops: int) -> None:
        """The metrics of update `step` are there: a line of the log, if one is due.

        Args:
          values: None of an update that was left out: no mean knows of it.
          units: what the rate counts, in its batch.
          flops: model FLOPs of the update.
        """
        assert self._progress
        self.goodput.done(step)
        self._profile.done(step)
        self._progress.advance(units)
        self._flops += flops
        if values is not None:
            self.window.append(values)
        # The first line after a restart is shown, but not written:
        # the files are those of a run without one.
        written = step % self._settings.log_every == 0 or step == 1
        if self.window and (written or step == self._first + 1):
            means = _means(self.window) | {"lr": self.window[-1]["lr"]}
            since_s, shares = self._shares()
            rates = self._progress.report(
                step,
                {k: v for k, v in means.items() if k != "lr"} | shares,
                since_s,
                self.seconds(),
            )
            if written and self._writer:
                self._writer.write(step, means | rates | shares)
            self.goodput.write(now=False)
        if written:
            self.window.clear()

    @contextlib.contextmanager
    def evaluation(self, step: int) -> Iterator[dict[str, float]]:
        """Put the evaluation of the state after `step` updates inside, and its scores into the dict
        that this gives.
        """
        began, scores = time.monotonic(), dict[str, float]()
        with self.goodput.time("eval"):
            yield scores
            if scores and self._writer:
                self._writer.write(step, scores, "eval")
                parts = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
                self.say(
                    f"eval at step {step}: {parts}  ({format_duration(time.monotonic() - began)})"
                )
            if self._lead:
                plot_curves(self._workdir, self._title)
                plot_goodput(self._workdir)
        self._started += time.monotonic() - began

    @contextlib.contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Put the start of saving the state after `step` updates inside."""
        with self.goodput.time("save"):
            if self._writer:
                self._writer.upload()  # a checkpoint never knows more than the metrics beside it
            yield
            self.goodput.saved(step)

    def finish(self, line: str) -> None:
        """The run is over and saved: shows where its time went, then the line and how long it trained."""
        self.say(self.goodput.table())
        self.goodput.write()
        if self._lead:
            plot_goodput(self._workdir)
        self.say(f"{line} after {format_duration(self.seconds())}")

    def close(self) -> None:
        """Ends what `start` opened, in whatever way the run ended."""
        if not self._progress:
            return
        self._profile.close()
        self._progress.close()
        if self._writer:
            self._writer.close()
        self.goodput.write()

    def _shares(self) -> tuple[float, dict[str, float]]:
        """Training seconds (compiling, evaluating, saving left out) since the last call, and what
        to show of them: "data_wait" and "host", shares of it in which the devices stood still for
        data or for the host; "mfu" (if the peak is known); "goodput" of the whole run.
        """
        seconds = self.goodput.window()
        whole = sum(seconds[part] for part in TRAINING)
        shown = {
            "data_wait": seconds["data"] / max(whole, 1e-9),
            "host": seconds["other"] / max(whole, 1e-9),
        }
        if self._peak:
            shown["mfu"] = mfu(self._flops, whole, self._mesh.size, self._peak)
        self._flops = 0
        return whole, shown | {"goodput": self.goodput.goodput()}


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Of the numbers that all have: a window saved by an older version may lack some."""
    names = [name for name in window[-1] if all(name in values for values in window)]
    return {name: sum(values[name] for values in window) / len(window) for name in names}


class _Silence(io.StringIO):
    """Where all processes but the lead print."""

    def write(self, text: str, /) -> int:
        return len(text)
