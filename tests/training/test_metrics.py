"""Metrics files and the progress display."""

import io

from mdmspeech.training.metrics import MetricsWriter, plot_curves, read_metrics
from mdmspeech.training.progress import Progress, clock


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
    assert rows == [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 2.0}, {"step": 3, "eval/loss": 30.0, "eval/nan": None}]
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_plot_is_a_picture_and_none_without_numbers(tmp_path):
    assert plot_curves(tmp_path) is None
    writer = MetricsWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    writer.write(2, {"loss": float("inf")})
    writer.close()
    assert plot_curves(tmp_path, "title").read_bytes()[:4] == b"\x89PNG"


def test_plain_lines_in_a_log():
    out = io.StringIO()
    progress = Progress(10, 4, "tokens", limit_s=5.0, stream=out)
    for _ in range(2):
        progress.advance(100)
    rates = progress.report(6, {"loss": 1.5}, elapsed_s=5.0)
    line = out.getvalue()
    assert line.startswith("step 6/10  loss 1.5") and "tokens/s" in line and line.endswith("left 0:00\n")
    assert rates["tokens_per_s"] > 0 and rates["s_per_step"] > 0


def test_excluded_time_is_not_in_the_rate():
    rates = []
    for excluded in (0.0, -1000.0):  # a negative exclusion is a run that took 1000 s longer
        progress = Progress(10, 0, "tokens", stream=io.StringIO())
        progress.advance(100)
        progress.exclude(excluded)
        rates.append(progress.report(1, {}, 0.0)["s_per_step"])
    assert rates[1] - rates[0] > 900


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    progress = Progress(10, 0, "tokens", stream=out)
    progress.advance(1)
    progress.report(1, {"loss": 1.5}, 0.0)
    progress.say("a message")
    progress.close()
    assert "loss 1.5" in out.getvalue() and "a message" in out.getvalue()


def test_clock():
    assert [clock(s) for s in (0, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
