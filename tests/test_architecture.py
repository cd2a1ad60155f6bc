"""The house: which room may import which, how long a file may be, and what may not be used at all."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mdmspeech"
LONGEST = 500  # lines of a file

_BELOW_THE_TOP = {
    "audio",
    "nn",
    "text",
    "codec",
    "models",
    "diffusion",
    "decoding",
    "data",
    "preprocessing",
    "training",
    "inference",
    "interop",
}
_GROUND_FLOOR = {"errors", "files", "padding"}  # modules that every room may import
# Room -> rooms it may import besides itself and the ground floor.
MAY_IMPORT: dict[str, set[str]] = {
    "audio": set(),
    "nn": set(),
    "text": set(),
    "codec": {"audio", "nn", "text"},
    "diffusion": {"nn"},  # of it losses.py alone, see below
    "decoding": {"diffusion"},
    "models": {"audio", "nn", "text", "decoding"},
    "data": {"audio", "codec", "text"},
    "preprocessing": {"audio", "codec", "data", "models"},
    "training": {"audio", "models", "diffusion", "data", "codec", "nn"},
    "inference": {"models", "decoding", "diffusion", "codec", "audio", "text"},
    "interop": {"models", "codec", "nn", "text"},
    "evaluation": _BELOW_THE_TOP,
    "serving": _BELOW_THE_TOP | {"evaluation"},
    "planning": _BELOW_THE_TOP | {"evaluation"},
    "cli": _BELOW_THE_TOP | {"evaluation", "serving", "planning"},
    "": {"inference", "interop", "cli"},  # mdmspeech/__init__.py and __main__.py
}
# The science stays plain functions over arrays.
DIFFUSION_USES = {"jax", "numpy", "flax", "mdmspeech", "__future__"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import of a file, those inside functions included."""
    found = []
    package = ("mdmspeech", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            stem = ".".join(p for p in (base, node.module) if p)
            # `from mdmspeech import codec` names the room only in the alias.
            found += [(node.lineno, f"{stem}.{alias.name}" if stem == "mdmspeech" else stem) for alias in node.names]
    return found


def violations(room: str, names: list[tuple[int, str]]) -> list[str]:
    allowed = MAY_IMPORT[room] | {room, *_GROUND_FLOOR}
    wrong = []
    for line, name in names:
        parts = name.split(".")
        if room in {"cli", "evaluation"} and name in {"mdmspeech", "mdmspeech.load"}:  # the front door, for those who stand above it
            continue
        if parts[0] == "mdmspeech" and (len(parts) == 1 or parts[1] not in allowed):
            wrong.append(f"line {line}: {room or 'the package root'} may not import {name}")
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    assert not violations(room_of(path), imported(path))


def test_every_room_has_its_arrows():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= set(MAY_IMPORT)


def test_the_arrows_have_no_cycle_and_nothing_imports_cli():
    left = {room: set(targets) for room, targets in MAY_IMPORT.items()}
    while left:
        free = [room for room, targets in left.items() if not targets & set(left)]
        assert free, f"a cycle among {sorted(left)}"
        for room in free:
            del left[room]
    assert not [room for room, targets in MAY_IMPORT.items() if "cli" in targets and room != ""]


def test_the_check_itself_sees_a_wrong_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "audio").mkdir()
    file = tmp_path / "audio" / "wave.py"
    file.write_text(
        "def f():\n    from mdmspeech.codec import fsq\n    from ..models import talker\n    from mdmspeech import nn, errors\n"
    )
    assert [v.split(": ")[0] for v in violations("audio", imported(file))] == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize(
    "path", [path for room in ("diffusion", "decoding") for path in sorted((PACKAGE / room).glob("*.py"))], ids=lambda p: p.name
)
def test_diffusion_and_decoding_know_only_arrays(path):
    import sys

    names = {name for _, name in imported(path)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) <= DIFFUSION_USES
    assert {name for name in names if name.startswith("mdmspeech.nn")} <= {"mdmspeech.nn.losses"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_too_long_and_none_runs_data(path):
    """At most 500 lines; no pickle, no eval or exec of text: files that come from others are data, never code."""
    source = path.read_text()
    assert source.count("\n") <= LONGEST
    assert not {name.split(".")[0] for _, name in imported(path)} & {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            assert called not in {"eval", "exec"}, f"line {node.lineno}"
            unpickles = [
                k for k in node.keywords if k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            ]
            assert not unpickles, f"line {node.lineno}"


def test_the_median_file_is_short():
    lengths = sorted(n for p in modules() if (n := p.read_text().count("\n")) > 5)
    assert lengths[len(lengths) // 2] <= 180
