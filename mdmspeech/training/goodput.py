"""Where the wall time of a training run went, over all its starts: `<workdir>/ledger.json`.

Every second since `loop.train` was called belongs to exactly one part, so that the parts add up to
the wall time by construction:

  init      opening checkpoints and data, making or restoring the state
  compile   the step, for each new shape of a batch
  data      waiting for a batch while the devices stand still
  step      the devices compute steps that count
  redone    steps that a crash threw away: done again from the last checkpoint
  eval      evaluations
  save      the part of saving that blocks
  other     everything else the host does while the devices stand still

Goodput is step / all of them; the rest is badput. Time between a crash and the next start is not in
it, and told beside it. The ledger is a file of its own, not part of the checkpoints, because it
must know what happened *after* the last checkpoint.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from etils import epath

from mdmspeech.training.workdir import write_whole

PARTS = ("step", "redone", "init", "compile", "data", "other", "eval", "save")
TRAINING = ("step", "data", "other")  # what a step costs once everything is compiled
_WRITE_EVERY_S = 10.0


class GoodputTracker:
    """The clock of one run. Starts in the part "init"; `begin` ends that.

    Args:
      path: of the JSON file; None keeps it in memory (hosts other than the first).
      clock: seconds that never run backwards.
    """

    def __init__(self, path: Any = None, clock: Callable[[], float] = time.monotonic):
        self._path, self._clock = path and epath.Path(path), clock
        stored = read_goodput(path) if path else {}
        self._before: list[dict[str, Any]] = stored.get("starts", [])
        self._saved: dict[str, float] = stored.get("saved", {})
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "init", clock()
        self._began = time.time()
        self._first = self._step = 0
        self._written, self._window = -math.inf, dict(self._seconds)

    def begin(self, step: int) -> None:
        """Initialisation is over and the run goes on from `step`. Time that earlier starts spent on
        steps after it becomes "redone".
        """
        self._switch("other")
        self._first = self._step = step
        if self._before and (kept := 0.0 if step == 0 else self._saved.get(str(step))) is not None:
            lost = sum(row["seconds"]["step"] for row in self._before) - kept
            for row in reversed(self._before):
                moved = max(min(row["seconds"]["step"], lost), 0.0)
                row["seconds"]["step"] -= moved
                row["seconds"]["redone"] += moved
                lost -= moved
        self._saved = {s: seconds for s, seconds in self._saved.items() if int(s) <= step}
        self.write()

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Time inside belongs to `part`; a part inside another takes its time away from the outer one."""
        outer = self._switch(part)
        try:
            yield
        finally:
            self._switch(outer)

    def snapshot(self) -> dict[str, float]:
        """Seconds of each part in this start, until now."""
        self._switch(self._part)
        return dict(self._seconds)

    def count_as_step(self, since: dict[str, float]) -> None:
        """The devices were computing ever since that `snapshot`: what was noted as waiting since
        then was hidden behind a step.
        """
        now = self.snapshot()
        for part in ("data", "other"):
            hidden = now[part] - since[part]
            self._seconds[part] -= hidden
            self._seconds["step"] += hidden
            # What a window has already told of it stays told:
            # the next one must not come out negative.
            told = max(self._window[part] - since[part], 0.0)
            self._window[part] -= told
            self._window["step"] += told

    def done(self, step: int) -> None:
        """`step` updates are done."""
        self._step = step

    def saved(self, step: int) -> None:
        """A checkpoint of `step` exists: what was spent until here is safe."""
        self._saved[str(step)] = self.totals()["step"]
        self.write()

    def window(self) -> dict[str, float]:
        """Seconds of each part since the last call."""
        now = self.snapshot()
        since = {part: now[part] - self._window[part] for part in PARTS}
        self._window = now
        return since

    def totals(self) -> dict[str, float]:
        """Seconds of each part over all starts."""
        return totals(self._starts())

    def hours(self) -> float:
        """Of all starts together."""
        return hours(self._starts())

    def goodput(self) -> float:
        """Share of the wall time, over all starts, in which the devices computed steps that count."""
        return goodput(self.totals())

    def write(self, now: bool = True) -> None:
        """Writes the file; with `now=False` only if the last time is a while ago."""
        if self._path is None or (not now and self._clock() - self._written < _WRITE_EVERY_S):
            return
        write_whole(
            self._path, json.dumps({"starts": self._starts(), "saved": self._saved}, indent=1)
        )
        self._written = self._clock()

    def table(self) -> str:
        """See `table`."""
        return table(self._starts())

    def _starts(self) -> list[dict[str, Any]]:
        row = {
            "began": self._began,
            "ended": time.time(),
            "first": self._first,
            "last": self._step,
            "seconds": self.snapshot(),
        }
        return [*self._before, row]

    def _switch(self, part: str) -> str:
        now, before = self._clock(), self._part
        self._seconds[before] += now - self._since
        self._part, self._since = part, now
        return before


def read_goodput(path: Any) -> dict[str, Any]:
    """{"starts": [{began, ended (Unix seconds), first, last (steps), seconds: {part: s}}], "saved":
    {step: step seconds until it}}; empty if there is no such file or it is no ledger."""
    path = epath.Path(path)
    try:
        stored = json.loads(path.read_text()) if path.exists() else {}
        rows = [
            row | {"seconds": dict.fromkeys(PARTS, 0.0) | row["seconds"]}
            for row in stored.get("starts", [])
        ]
        return {"starts": rows, "saved": dict(stored.get("saved", {}))}
    # a damaged ledger must not stop a training run
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def totals(starts: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each part over the starts."""
    return {part: sum(row["seconds"][part] for row in starts) for part in PARTS}


def hours(starts: list[dict[str, Any]]) -> float:
    """What the starts have taken together, lost steps included."""
    return sum(totals(starts).values()) / 3600


def goodput(seconds: dict[str, float]) -> float:
    """step / sum of all parts; 0 before anything happened."""
    whole = sum(seconds.values())
    return seconds["step"] / whole if whole else 0.0


def table(starts: list[dict[str, Any]]) -> str:
    """For people: a line a part with seconds and share, largest first, and the goodput."""
    seconds = totals(starts)
    whole = sum(seconds.values())
    down = sum(max(b["began"] - a["ended"], 0.0) for a, b in itertools.pairwise(starts))
    lines = [
        (
            f"wall time {whole:.1f} s in {len(starts)} start{'s' * (len(starts) > 1)}, "
            f"goodput {100 * goodput(seconds):.1f} %"
        )
    ]
    for part, value in sorted(seconds.items(), key=lambda item: -item[1]):
        if value:
            lines.append(f"  {part:<8}{value:>11.1f} s {100 * value / whole:>5.1f} %")
    return "\n".join(
        [*lines, f"  not running between the starts: {down:.1f} s"] if len(starts) > 1 else lines
    )


def plot_goodput(workdir: Any) -> Any:
    """Draws `ledger.json` as `ledger.png`: a stacked bar for each start and one for all. Returns
    its path; None if there is no ledger.
    """
    starts = read_goodput(epath.Path(workdir) / "ledger.json").get("starts", [])
    if not starts:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    all_seconds = totals(starts)
    bars = [("all", all_seconds)]
    if len(starts) > 1:
        bars += [
            (datetime.fromtimestamp(row["began"], UTC).strftime("%m-%d %H:%M:%S"), row["seconds"])
            for row in starts
        ]
    figure = Figure(figsize=(9, 1.2 + 0.35 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    left = [0.0] * len(bars)
    for index, part in enumerate(PARTS):
        width = [seconds[part] for _, seconds in bars]
        share = all_seconds[part] / max(sum(all_seconds.values()), 1e-9)
        axis.barh(
            [name for name, _ in bars],
            width,
            left=left,
            color=f"C{index}",
            label=f"{part} {100 * share:.1f} %",
        )
        left = [a + b for a, b in zip(left, width, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel(f"seconds; goodput {100 * goodput(all_seconds):.1f} %")
    axis.legend(
        fontsize=7, ncols=len(PARTS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
    )
    target = epath.Path(workdir) / "ledger.png"
    with target.open("wb") as file:
        figure.savefig(file, dpi=80, format="png")
    return target
