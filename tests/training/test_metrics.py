"""Metrics files and the progress display."""

import io
import json

import pytest
from etils import epath
from etils.epath import backend
from ml_collections import ConfigDict
from tiny import TinyTask

from mdmspeech.training.goodput import GoodputTracker, read_goodput
from mdmspeech.training.metrics import MetricsWriter, plot_curves, read_metrics
from mdmspeech.training.progress import Progress, format_duration
from mdmspeech.training.validation import Evaluator
from mdmspeech.training.workdir import make_workdir
from tests.support.bucket_server import bucket_server, reached


def test_lines_after_the_restored_step_are_dropped(tmp_path):
    first = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        first.write(step, {"loss": step * 1.0})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tra')  # killed while writing
    second = MetricsWriter(tmp_path, first_step=2)
    second.write(3, {"loss": 30.0, "nan": float("nan")}, "eval")
    second.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows == [
        {"step": 1, "train/loss": 1.0},
        {"step": 2, "train/loss": 2.0},
        {"step": 3, "eval/loss": 30.0, "eval/nan": None},
    ]
    assert list((tmp_path / "tensorboard").iterdir())


DAMAGED = [
    b"\xff\xfe", b'{"step": 2, "train/loss": \xe9}', b'{"train/loss": 1.0}', b'{"step": "2"}',
    b'{"step": null}', b"[1, 2]", b"null", b"5", b"",
    b'{"step": 2, "train/loss": "low"}', b'{"step": true}', b"[" * 100_000, b'{"step": 2, "tr',
    b"\x00",
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_costs_no_other_and_stops_no_run(line, tmp_path):
    good = [{"step": 1, "train/loss": 1.0}, {"step": 3, "train/loss": None}]
    first, last = (json.dumps(row).encode() for row in good)
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([first, line, last, b""]))
    assert read_metrics(tmp_path / "metrics.jsonl") == good
    MetricsWriter(tmp_path, first_step=2).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == good[:1]


def test_the_plot_is_a_picture_and_none_without_numbers(tmp_path):
    assert plot_curves(tmp_path) is None
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    writer.write(2, {"loss": float("inf")})
    writer.close()
    assert plot_curves(tmp_path, "title").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def bucket():
    """gs://bucket is on a server of this machine."""
    with bucket_server("bucket") as server, reached(server):
        backend.fsspec_backend._get_filesystem.cache_clear()
        yield
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_workdir_on_object_storage(bucket):
    workdir = "gs://bucket/run"
    for first in (0, 1):
        writer = MetricsWriter(workdir, first)
        for step in (first + 1, first + 2):
            writer.write(step, {"loss": float(step)})
        writer.close()
    files = epath.Path(workdir)
    assert [row["step"] for row in read_metrics(files / "metrics.jsonl")] == [1, 2, 3]
    assert len(list((files / "tensorboard").iterdir())) >= 1
    assert plot_curves(workdir).read_bytes()[:4] == b"\x89PNG"
    tracker = GoodputTracker(workdir + "/ledger.json")
    tracker.begin(0)
    tracker.saved(3)
    assert read_goodput(workdir + "/ledger.json")["saved"].keys() == {"3"}


def test_what_an_evaluation_writes_goes_to_object_storage(bucket):
    class Shown(TinyTask):
        def evaluate(self, params, step, outdir):
            (outdir / "plots").mkdir()
            (outdir / "plots" / "one.txt").write_text(f"step {step}")
            return {"score": 2.0}

    workdir = epath.Path("gs://bucket/run")
    make_workdir(workdir, ConfigDict({"a": 1}))
    assert json.loads((workdir / "config.json").read_text()) == {"a": 1}
    assert Evaluator(Shown(), {}, None, workdir)({}, 7) == {"score": 2.0}
    assert (workdir / "eval" / "0000007" / "plots" / "one.txt").read_text() == "step 7"


def test_plain_lines_in_a_log():
    out = io.StringIO()
    progress = Progress(10, 4, "tokens", limit_s=5.0, stream=out)
    for _ in range(2):
        progress.advance(100)
    rates = progress.report(6, {"loss": 1.5, "mfu": 0.415}, since_s=4.0, elapsed_s=5.0)
    assert out.getvalue() == "step 6/10  loss 1.5  MFU 41.5 %  50 tokens/s  2 s/step  left 0:00\n"
    assert rates == {"tokens_per_s": 50.0, "s_per_step": 2.0}


def test_the_time_left():
    out = io.StringIO()
    progress = Progress(100, 0, "tokens", stream=out)
    for step in range(1, 5):
        progress.advance(1)
        progress.report(step, {}, since_s=2.0, elapsed_s=2.0 * step)
    assert out.getvalue().splitlines()[-1].endswith("2 s/step  left 3:12")


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    progress = Progress(10, 0, "tokens", stream=out)
    progress.advance(1)
    progress.report(1, {"loss": 1.5}, 1.0, 1.0)
    progress.say("a message")
    progress.close()
    assert "loss 1.5" in out.getvalue() and "a message" in out.getvalue()


def test_clock():
    assert [format_duration(s) for s in (0, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
