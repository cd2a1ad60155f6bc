"""The house: which room may import which, how long a file may be, and what may not be used at all."""

import ast
import graphlib
import operator
import re
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
# modules that every room may import
_GROUND_FLOOR = {
    "config_names",
    "errors",
    "files",
    "hardware",
    "padding",
    "programs",
    "remote",
    "speech_format",
    "xla_flags",
}
# Room -> rooms it may import besides itself and the ground floor.
MAY_IMPORT: dict[str, set[str]] = {
    "audio": set(),
    "nn": set(),
    "text": set(),
    "remote": set(),
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
    "scaling": _BELOW_THE_TOP | {"evaluation"},
    "cli": _BELOW_THE_TOP | {"evaluation", "serving", "planning", "scaling"},
    # mdmspeech/__init__.py, __main__.py and pretrained.py, which stand above all
    "": {"inference", "interop", "cli", "pretrained"},
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
            found += [
                (node.lineno, f"{stem}.{alias.name}" if stem == "mdmspeech" else stem)
                for alias in node.names
            ]
    return found


def violations(room: str, names: list[tuple[int, str]]) -> list[str]:
    allowed = MAY_IMPORT[room] | {room, *_GROUND_FLOOR}
    wrong = []
    for line, name in names:
        parts = name.split(".")
        # the front door, for those who stand above it
        if room in {"cli", "evaluation"} and name in {"mdmspeech", "mdmspeech.load"}:
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
        "def f():\n    from mdmspeech.codec import fsq\n    from ..models "
        "import talker\n    from mdmspeech import nn, errors\n"
    )
    assert [v.split(": ")[0] for v in violations("audio", imported(file))] == [
        "line 2",
        "line 3",
        "line 4",
    ]


def rotten(init: Path) -> list[str]:
    """What is wrong with a room's docstring: there is none, or it names in backticks what is
    neither in the room nor a room.
    """
    tree = ast.parse(init.read_text())
    said = ast.get_docstring(tree) or ""
    there = {path.stem for path in init.parent.iterdir()} | {
        path.name for path in PACKAGE.iterdir()
    }
    there |= {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    there |= {
        "mdmspeech",
        *(node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))),
    }
    named = {name.split(".")[0] for name in re.findall(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)*)`", said)}
    return [name for name in sorted(named) if name not in there] if said else ["no docstring"]


def test_every_room_says_what_is_in_it():
    assert not {
        str(init.parent.relative_to(ROOT)): wrong
        for init in PACKAGE.rglob("__init__.py")
        if (wrong := rotten(init))
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", ["no docstring"]),
        ("x = 1", ["no docstring"]),
        ('"""Of `one` and `audio`."""', []),
        ('"""Of `one` and `gone`; `two.py`."""', ["gone"]),
        ('"""Calls `load`."""\nfrom mdmspeech.room.one import load', []),
        ('"""`mdmspeech plan`, `Class` and two words."""', []),
    ],
)
def test_a_rotten_docstring_is_seen(text, wrong, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "__init__.py").write_text(text)
    assert rotten(tmp_path / "__init__.py") == wrong


_SPEECH_FORMAT = PACKAGE / "speech_format.py"
# Module-level numbers that look like those of the speech format and are others.
_OTHER_NUMBERS = {
    ("audio/fbank.py", "_HOP"): "Kaldi's, which is Whisper's too",
    ("interop/whisper_decoder.py", "_START"): "Whisper's token",
    ("codec/cosyvoice2/prompt.py", "_FRAME"): "energies of a recording are looked at every 25 ms",
    ("evaluation/silence.py", "_FRAME_SECONDS"): "and of a judged clip every 20 ms",
    (
        "training/stages/thinker.py",
        "FRAMES_PER_VECTOR",
    ): "follows from STACK, which is the adaptor's own",
}
_UNMISTAKABLE = {6561, 6562, 6563, 6564, 6565, 6566, 16_000, 24_000}
_LIKE_THE_FORMATS = (
    "RATE",
    "SECONDS",
    "UNIT",
    "TOKEN",
    "STATE",
    "FRAME",
    "HOP",
    "CODES",
    "VOCAB",
    "ANCHOR",
    "BASE",
)


def second_definitions(path: Path) -> list[str]:
    """Names of the module-level numbers of a file that `speech_format` holds already: the same
    name, a number nothing else has, or a like name and number.
    """
    formats = _numbers(_SPEECH_FORMAT)
    found = []
    for name, value in _numbers(path).items():
        plain = name.strip("_")
        telling = value != round(value) or not 0 <= value <= 10  # many things are 3 or 10
        alike = (
            telling
            and value in formats.values()
            and any(part in plain for part in _LIKE_THE_FORMATS)
        )
        if plain in formats or value in _UNMISTAKABLE or alike:
            found.append(name)
    return found


def _numbers(path: Path) -> dict[str, float]:
    """Module-level names that are given numbers (sums, products and quotients of constants and of
    such names too).
    """
    known: dict[str, float] = {}
    for node in ast.parse(path.read_text()).body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        for target in targets:
            both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            for name, value in (
                zip(target.elts, node.value.elts, strict=True) if both else [(target, node.value)]
            ):
                if isinstance(name, ast.Name) and (number := _number(value, known)) is not None:
                    known[name.id] = number
    return known


def _number(node: ast.expr | None, known: dict[str, float]) -> float | None:
    if isinstance(node, ast.Constant):
        return (
            node.value
            if isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
            else None
        )
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return None if (value := _number(node.operand, known)) is None else -value
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left, known), _number(node.right, known)
        does = {
            ast.Add: operator.add,
            ast.Mult: operator.mul,
            ast.Div: operator.truediv,
            ast.FloorDiv: operator.floordiv,
            ast.Pow: operator.pow,
        }
        if left is not None and right is not None and type(node.op) in does:
            return does[type(node.op)](left, right)
    return None


def test_the_speech_format_is_defined_once():
    again = {
        (str(path.relative_to(PACKAGE)), name)
        for path in modules()
        if path != _SPEECH_FORMAT
        for name in second_definitions(path)
    }
    assert again == set(_OTHER_NUMBERS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RATE = 16_000", ["RATE"]),
        ("_BANDS, _RATE = 40, 24_000", ["_RATE"]),
        ("HEARD: int = 16000", ["HEARD"]),
        ("EOS = 7", ["EOS"]),
        ("_PAD = 0", ["_PAD"]),
        ("TABLE = 6561 + 5", ["TABLE"]),
        ("LEVEL = 3\nSIZE = LEVEL**8", ["SIZE"]),
        ("_TOKEN = 0.04", ["_TOKEN"]),
        ("UNIT_SECONDS = 1 / 40", ["UNIT_SECONDS"]),
        ("NO_ANCHOR, NULL_ANCHOR = -1, -2", ["NO_ANCHOR", "NULL_ANCHOR"]),
        ("FIRST_ANCHOR = -1", ["FIRST_ANCHOR"]),
        ("RATE = 8_000", []),
        ("SHARE = 0.04", []),
        ("LEAD_FRAMES = 4", []),
        ("def f():\n    rate = 16_000", []),
        ("CODES = {'EUR': 'euro'}", []),
    ],
)
def test_a_second_definition_is_seen(text, found, tmp_path):
    (tmp_path / "one.py").write_text(text)
    assert second_definitions(tmp_path / "one.py") == found


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports anywhere: at its top, inside functions, for
    type checking only.
    """
    names = {_dotted(path): path for path in modules()}
    graph = {}
    for name, path in names.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = (
                    ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level])
                    if node.level
                    else ""
                )
                stem = ".".join(part for part in (base, node.module) if part)
                found |= {
                    whole if (whole := f"{stem}.{alias.name}") in names else stem
                    for alias in node.names
                }
        graph[name] = (found & set(names)) - {name}
    return graph


def import_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, the first one again at the end; [] if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("mdmspeech", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def test_no_module_imports_itself_through_others():
    assert not import_circle(import_graph())


@pytest.mark.parametrize(
    ("first", "second", "circle"),
    [
        ("from mdmspeech.room.two import g\n", "", False),
        ("from mdmspeech.room.two import g\n", "import mdmspeech.room.one\n", True),
        (
            "from mdmspeech.room import two\n",
            "def g():\n    from mdmspeech.room.one import f\n",
            True,
        ),
        (
            "def f():\n    from . import two\n",
            "class G:\n    def g(self):\n        from .one import f\n",
            True,
        ),
        # three -> two -> one
        ("import mdmspeech.room.three\n", "from mdmspeech.room import one\n", True),
        ("if TYPE_CHECKING:\n    from .two import g\n", "from .one import f\n", True),
        ("from mdmspeech.room.one import f\n", "", False),  # names itself only
    ],
)
def test_a_circle_is_seen_lazy_relative_or_long(first, second, circle, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    for name, text in {
        "__init__": "",
        "one": first,
        "two": second,
        "three": "from .two import g\n",
    }.items():
        (tmp_path / "room" / f"{name}.py").write_text(text)
    assert bool(import_circle(import_graph())) == circle


@pytest.mark.parametrize(
    "path",
    [path for room in ("diffusion", "decoding") for path in sorted((PACKAGE / room).glob("*.py"))],
    ids=lambda p: p.name,
)
def test_diffusion_and_decoding_know_only_arrays(path):
    import sys

    names = {name for _, name in imported(path)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) <= DIFFUSION_USES
    assert {name for name in names if name.startswith("mdmspeech.nn")} <= {"mdmspeech.nn.losses"}


def too_long(root: Path) -> dict[str, int]:
    """Lines of every Python file that has more than 500: of the package, and of what surrounds it."""
    paths = [
        path
        for folder in ("mdmspeech", "tests", "experiments", "launch")
        for path in (root / folder).rglob("*.py")
    ]
    lengths = {str(p.relative_to(root)): p.read_text(encoding="utf-8").count("\n") for p in paths}
    return {name: length for name, length in lengths.items() if length > LONGEST}


def test_no_file_is_too_long():
    assert not too_long(ROOT)


@pytest.mark.parametrize("folder", ["mdmspeech/audio", "tests/data", "experiments", "launch"])
def test_a_file_that_is_too_long_is_seen_wherever_it_is(folder, tmp_path):
    (tmp_path / folder).mkdir(parents=True)
    for length in (LONGEST, LONGEST + 1):
        (tmp_path / folder / f"of_{length}.py").write_text("x = 1\n" * length)
    assert too_long(tmp_path) == {f"{folder}/of_501.py": 501}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_runs_data(path):
    """No pickle, no eval or exec of text: files that come from others are data, never code."""
    source = path.read_text()
    assert not {name.split(".")[0] for _, name in imported(path)} & {
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "shelve",
        "marshal",
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            assert called not in {"eval", "exec"}, f"line {node.lineno}"
            unpickles = [
                k
                for k in node.keywords
                if k.arg == "allow_pickle"
                and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            ]
            assert not unpickles, f"line {node.lineno}"


def test_the_median_file_is_short():
    lengths = sorted(n for p in modules() if (n := p.read_text().count("\n")) > 5)
    assert lengths[len(lengths) // 2] <= 180
