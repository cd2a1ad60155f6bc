"""Comparisons that assert and remember: what `make parity` prints one line each of
(tests/parity/parity_report.py).

A test marked `parity` says what it compares with `close`, `same` and `note`; a golden array is
called by its fixture and its key, "hf_qwen3 out.logits", and the report counts those that nobody
compared. What is measured travels with the test's report, so that it arrives from other processes
too (pytest-xdist).
"""

from typing import Any

import numpy as np
import pytest

PROPERTY = "parity"  # name of the user properties of a test that hold what it measured

_running: list[pytest.Item] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Knows which test is running."""
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def close(name: str, ours: Any, theirs: Any, atol: float) -> None:
    """Asserts |ours - theirs| <= atol everywhere, in equal shapes (`theirs` may be one number), and
    remembers the largest difference.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert theirs.ndim == 0 or ours.shape == theirs.shape, (
        f"{name}: {ours.shape} instead of {theirs.shape}"
    )
    assert ours.size, f"{name}: nothing to compare"
    difference = float(np.abs(ours - theirs).max())  # nan if any value is
    _remember(name, difference=difference, tolerance=float(atol), values=ours.size)
    assert difference <= atol, f"{name}: differs by {difference:.3g}, allowed is {atol:g}"


def same(name: str, ours: Any, theirs: Any, share: float = 0.0) -> None:
    """Asserts that whole numbers, texts or bits are equal, but for a `share` of them, and remembers
    how many are not.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} instead of {theirs.shape}"
    assert ours.size, f"{name}: nothing to compare"
    differ = int((ours != theirs).sum())
    _remember(name, differ=differ, allowed=int(share * ours.size), values=ours.size)
    assert differ <= share * ours.size, f"{name}: {differ} of {ours.size} values differ"


def same_shapes(name: str, ours: dict[str, list[int]], theirs: dict[str, list[int]]) -> None:
    """Asserts that two tables of tensors, name -> shape, are equal, and remembers how many entries
    are not.
    """
    names = sorted(ours.keys() | theirs.keys())
    same(
        name,
        [str(ours.get(tensor)) for tensor in names],
        [str(theirs.get(tensor)) for tensor in names],
    )


def note(name: str, text: str) -> None:
    """A measurement without a tolerance, in words: a speed, a margin."""
    _remember(name, text=text)


def _remember(name: str, **what: Any) -> None:
    assert _running, "only a running test can measure"
    test = _running[-1]
    assert test.get_closest_marker("parity"), (
        f"{test.name} measures {name!r}: mark it pytest.mark.parity, or the report lacks it"
    )
    test.user_properties.append((PROPERTY, {"name": name, **what}))
