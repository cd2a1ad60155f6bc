"""The report of `make parity`: what it says, what it misses, and that the committed one misses
nothing.
"""

from types import SimpleNamespace

import measured
import numpy as np
import parity_report
import pytest
from measured import close, note, same
from parity_report import FIXTURES

STEM = FIXTURES.parents[1] / "experiments" / "results" / "parity"


@pytest.fixture
def lines(monkeypatch):
    """Measures as a marked test would; returns what a report makes of it so far."""
    item = SimpleNamespace(name="test", get_closest_marker=lambda name: name, user_properties=[])
    monkeypatch.setattr(measured, "_running", [item])

    def read():
        found = {}
        for name, what in item.user_properties:
            assert name == measured.PROPERTY
            parity_report.merge(found, what)
        return found

    return read


def test_the_worst_of_several_stays(lines):
    close("a", [1.0, 2.0], [1.0, 2.25], atol=0.5)
    close("a", np.ones((2, 2)), np.float32(1), atol=0.5)
    same("b", [1, 2, 3, 4], [1, 2, 3, 5], share=0.25)
    same("b", ["x"], ["x"])
    note("c", "12 tokens/s")
    assert [parity_report.cells(line) for line in lines().values()] == [
        ("a", "2.5e-01", "of 6, allowed 0.5"),
        ("b", "1 differ", "of 5, allowed 1"),
        ("c", "12 tokens/s", ""),
    ]


def test_what_differs_is_an_error_and_a_line(lines):
    for bad in ([1.0, np.nan], [1.0, 2.6]):
        with pytest.raises(AssertionError, match=r"allowed is 0\.5"):
            close("a", [1.0, 2.0], bad, atol=0.5)
    with pytest.raises(AssertionError, match="1 of 2 values differ"):
        same("b", [1, 2], [1, 3])
    for compare in (
        lambda ours, theirs: close("c", ours, theirs, atol=1.0),
        lambda ours, theirs: same("c", ours, theirs),
    ):
        with pytest.raises(AssertionError, match=r"\(2,\) instead of \(1, 2\)"):
            compare([1, 2], [[1, 2]])
        with pytest.raises(AssertionError, match="nothing to compare"):
            compare([], [])
    assert [line["name"] for line in lines().values()] == ["a", "b"]
    assert np.isnan(lines()["a", 0.5]["difference"])


def test_only_marked_tests_measure():
    with pytest.raises(AssertionError, match=r"mark it pytest\.mark\.parity"):
        note("a", "b")


def test_a_forgotten_fixture_is_named(tmp_path):
    np.savez(tmp_path / "net.npz", **{"in.x": 1, "out.y": 2, "case.out.z": 3})
    np.savez(tmp_path / "wave.npz", **{"in.wav": 1})
    (tmp_path / "manifests").mkdir()
    for name in ("net.json", "net.safetensors", "stray.safetensors", "manifests/full.json"):
        (tmp_path / name).touch()
    missing = lambda *names: parity_report.missing([(name, 0.0) for name in names], tmp_path)
    assert missing() == [
        "net out.y",
        "net case.out.z",
        "wave",
        "manifest full",
        "stray.safetensors",
    ]
    assert missing("net out.y", "net case.out.z", "wave", "manifest full") == ["stray.safetensors"]


def test_the_committed_report_names_every_fixture():
    """After a change of fixtures: make parity, and commit what it wrote."""
    report = parity_report.read(STEM)
    assert report["problems"] == []
    assert parity_report.missing([(line["name"], 0.0) for line in report["lines"]], FIXTURES) == []
    for line in report["lines"]:
        assert line.get("difference", 0.0) <= line.get("tolerance", 0.0) and line.get(
            "differ", 0
        ) <= line.get("allowed", 0), line
    assert STEM.with_suffix(".md").read_text() == parity_report.page(
        report["made"], report["problems"], report["lines"]
    )
