"""Where numbers go: `metrics.jsonl` (one object a line), TensorBoard files, and a picture of the
loss curves.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import tensorboardX
from etils import epath

from mdmspeech.remote import is_remote
from mdmspeech.training.workdir import upload, write_whole

_UPLOAD_EVERY_S = 60.0


class MetricsWriter:
    """Appends scalars of a run to `<workdir>/metrics.jsonl` and `<workdir>/tensorboard/`.

    Object storage cannot append: if the workdir is there ("gs://..."), both are written to a local
    folder and copied once a minute.

    Args:
      first_step: the step the run (re)starts from; lines of later steps, left by a run that was
        killed, are dropped, so that a resumed run leaves the same file as an uninterrupted one.
    """

    def __init__(self, workdir: Any, first_step: int = 0):
        self._workdir = epath.Path(workdir)
        self._local = (
            epath.Path(tempfile.mkdtemp(prefix="metrics-")) if is_remote(workdir) else self._workdir
        )
        kept = [
            row
            for row in read_metrics(self._workdir / "metrics.jsonl")
            if row["step"] <= first_step
        ]
        path = self._local / "metrics.jsonl"
        # at once: a kill in between must not cost the lines
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a")
        self._board = tensorboardX.SummaryWriter(
            str(self._local / "tensorboard"), purge_step=first_step + 1, write_to_disk=True
        )
        self._uploaded = time.monotonic()

    def write(self, step: int, values: dict[str, float], prefix: str = "train") -> None:
        """Records `{prefix}/{name}: value` for the state after `step` updates. Non-finite values
        become null in the JSON lines.
        """
        row: dict[str, float | int | None] = {"step": step}
        for name, value in values.items():
            row[f"{prefix}/{name}"] = float(value) if math.isfinite(value) else None
            self._board.add_scalar(f"{prefix}/{name}", float(value), step)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if time.monotonic() - self._uploaded > _UPLOAD_EVERY_S:
            self.upload()

    def upload(self) -> None:
        """Copies both to the workdir, if that is on object storage."""
        if self._local != self._workdir:
            self._board.flush()
            upload(Path(self._local), self._workdir)
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._board.close()
        self.upload()


def read_metrics(path: Any) -> list[dict[str, float]]:
    """Rows of a `metrics.jsonl`; [] if there is none. Lines that are none of a run's (cut short by
    a kill, damaged) are left out.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().decode("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(row, dict)
            and isinstance(row.get("step"), int)
            and all(_is_number(value) for value in row.values())
        ):
            rows.append(row)
    return rows


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def plot_curves(workdir: Any, title: str = "") -> Any:
    """Draws every series of `metrics.jsonl` (a panel each: training parts and scores) to
    `<workdir>/curves.png`; None if empty.
    """
    rows = read_metrics(epath.Path(workdir) / "metrics.jsonl")
    names = sorted(
        {key for row in rows for key in row if key != "step"},
        key=lambda n: (n.split("/")[0] != "train", n),
    )
    if not names:
        return None
    # the Agg canvas alone: no display, no global pyplot state
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.5 * columns, 2.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        axis = figure.add_subplot(lines, columns, index + 1)
        axis.plot(
            [p[0] for p in points],
            [p[1] for p in points],
            marker="" if len(points) > 20 else ".",
            linewidth=1,
        )
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    target = epath.Path(workdir) / "curves.png"
    with target.open("wb") as file:
        figure.savefig(file, dpi=80, format="png")
    return target
