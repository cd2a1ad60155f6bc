"""The lists of planted faults do not rot, and the runner tells a caught fault from a survivor and
from a bad one.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from planted import BAD, CAUGHT, ROOT, SURVIVED, Mutant, faults_of, judge, read

LISTED = read(Path(__file__).parent)


@pytest.mark.parametrize("mutant", LISTED, ids=lambda m: f"{m.room}: {m.name}")
def test_it_can_still_be_planted(mutant):
    assert not faults_of(mutant, ROOT)


def test_names_are_unique():
    assert not [name for name, times in Counter(m.name for m in LISTED).items() if times > 1]


# ---- The runner, on a tree of three files -------------------------------------------------------

FILES = {
    "mdmspeech/__init__.py": "",
    "mdmspeech/sums.py": (
        "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - "
        "b\n\n\ndef loop(n):\n    while n > 0:\n        n -= 1\n"
    ),
    "tests/test_sums.py": (
        "from mdmspeech.sums import add, loop, sub\n\n\ndef test_add():\n    "
        "assert add(1, 2) == 3\n\n\ndef test_sub():\n    assert sub(2, 0) == 2\n"
        "\n\ndef test_loop():\n    loop(1)\n\n\ndef test_wrong():\n    assert add(1, 1) == 3\n"
    ),
}


def planted(find, replace, test, name=""):
    return Mutant(
        "room",
        name or replace,
        "mdmspeech/sums.py",
        find,
        replace,
        (f"tests/test_sums.py::{test}",),
    )


@pytest.fixture
def tree(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_what_becomes_of_a_fault(tree):
    expected = {
        planted("a + b", "a - b", "test_add"): (CAUGHT, "test_add"),
        planted("a - b", "a + b", "test_sub"): (SURVIVED, "1 tests pass"),
        planted("a - b", "a - b - 1", "test_sub"): (CAUGHT, "test_sub"),
        planted("a - b", "a - c", "test_sub"): (BAD, "NameError"),
        planted("def sub", "def minus", "test_sub"): (BAD, "cannot be collected"),
        planted("def loop(n):", "import nothing_of_this_name\ndef loop(n):", "test_loop"): (
            BAD,
            "does not import",
        ),
        planted("n -= 1", "n += 1", "test_loop"): (BAD, "never ended"),
        planted("a + b", "b + 2 * a", "test_wrong"): (BAD, "fails without the fault"),
    }
    verdicts = judge(list(expected), tree, FILES, workers=2, preload=("pytest",), limit=5)
    assert [v.mutant for v in verdicts] == list(expected)
    for verdict in verdicts:
        outcome, why = expected[verdict.mutant]
        assert verdict.outcome == outcome and why in verdict.why
    # faults are planted in copies
    assert {name: (tree / name).read_text() for name in FILES} == FILES


@pytest.mark.parametrize(
    ("find", "replace", "test", "message"),
    [
        ("a * b", "a", "test_add", "stands 0 times"),
        ("return", "yield", "test_add", "stands 2 times"),
        ("", "a", "test_add", "stands 0 times"),
        ("a + b", "a + b", "test_add", "the text itself"),
        ("a + b", "a  +  b  # the same", "test_add", "comments or spaces"),
        ("a + b", "a +", "test_add", "no Python"),
        ("a + b", "a", "test_of_nothing", "no test"),
    ],
)
def test_an_entry_that_cannot_be_planted_is_named(tree, find, replace, test, message):
    assert message in " ".join(faults_of(planted(find, replace, test), tree))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[mutants]]\nname = 'a'\n", r"give \[\[mutant\]\]"),
        ("[[mutant]]\nname = 'a'\n", "entry 1: the fields are file, find, name"),
    ],
)
def test_a_list_that_is_not_well_formed_is_named(tmp_path, text, message):
    (tmp_path / "room.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)
