"""experiments/bench_serving.py: what it counts, on a small model and a real socket. How fast that is
is not looked at.
"""

import json
import os
import sys

import numpy as np
import pytest

from experiments import bench_serving as bench

pytest.importorskip("websockets", reason="pip install 'mdmspeech[dev]'")


@pytest.fixture(scope="module")
def question():
    """At the protocol's rate."""
    from mdmspeech.audio.wave import load_wave, resample

    file = bench.ROOT / "mdmspeech" / "assets" / "question.wav"
    return resample(load_wave(str(file), 16_000), 16_000, bench.RATE)


@pytest.mark.parametrize(
    ("arrivals", "count"),
    [
        ([(5.0, 1.0)], 0),
        ([(5.0, 1.0), (5.5, 1.0), (7.0, 1.0)], 0),  # just in time
        ([(5.0, 1.0), (6.05, 1.0)], 0),  # too short to be heard
        ([(5.0, 1.0), (6.2, 1.0), (7.25, 1.0)], 1),  # what is late moves what comes after it
        ([(5.0, 0.5), (6.0, 0.5), (7.0, 0.5)], 2),
    ],
)
def test_underruns(arrivals, count):
    assert bench.underruns(arrivals) == count


@pytest.mark.slow
def test_first_sound_both_ways(server, assistant, question):
    found = bench.first_audio(f"ws://127.0.0.1:{server.port}/v1/realtime", assistant, [question])
    assert found["questions"] == 1
    assert all(0 < found[way]["median"] <= found[way]["p95"] for way in ("socket", "session"))


def test_those_inside_are_answered_and_the_rest_is_refused(running, question, monkeypatch):
    monkeypatch.setattr(bench, "TURNS", 1)
    with running(max_sessions=2) as server:
        address = f"ws://127.0.0.1:{server.port}/v1/realtime"
        found = bench.load(address, 2, [question])
        assert (found["turns"], found["asked"]) == (2, 2) and found["first_audio_ms"]["most"] > 0
        assert (found["more"]["asked"], found["more"]["refused"]) == (2, 2)
        assert bench._knock(address)[0] is None  # all have gone


def test_one_after_another(server):
    found = bench.sequential(f"ws://127.0.0.1:{server.port}/v1/realtime", os.getpid(), 10)
    assert found["conversations"] == 10 and len(found["memory_mb"]) == 11
    assert found["memory_mb"][0] > 50


@pytest.mark.slow
def test_a_server_of_its_own_and_the_page(tmp_path, monkeypatch, capsys):
    stem = tmp_path / "found"
    argv = ["--parts", "sequential", "--sequential", "1", "-o", str(stem)]
    monkeypatch.setattr(sys, "argv", ["bench_serving", *argv])
    monkeypatch.setattr(bench, "_waves", lambda count: [np.zeros(bench.RATE)])
    bench.main()
    text = stem.with_suffix(".md").read_text()
    assert "1 conversations one after another" in text and "commit" in text
    assert "First sound" not in text
    row = {"sessions": 2, "turns": 6, "asked": 6, "underruns": 1}
    row |= {"first_audio_ms": {"median": 3.0, "most": 4.0}}
    row |= {"more": {"asked": 2, "refused": 2, "slowest_ms": 5.0}}
    ways = {way: {"median": 1.0, "p95": 2.0} for way in ("socket", "session", "added")}
    found = json.loads(stem.with_suffix(".json").read_text())
    made = {"made": found["sequential"]["made"]}
    found |= {"load": {"rows": [row | made]}, "first_audio": {"questions": 7, **ways, **made}}
    text = bench.page(found)
    assert "| 2 | 6 of 6 | 3.0 (4.0) | 1 | 2 | 2 (5.0) |" in text and "7 questions" in text
    assert text.count("commit") == 3
    # another part beside those that are there
    stem.with_suffix(".json").write_text(json.dumps(found))
    monkeypatch.setattr(sys, "argv", ["bench_serving", *argv])
    bench.main()
    assert stem.with_suffix(".md").read_text().count("commit") == 3
