"""What a file asks of this repository's own modules is there, also where it asks inside a function
or belongs to no test: a module that moved takes everybody along who names it.
"""

import ast
import functools
import importlib
from pathlib import Path

import pytest

from mdmspeech.errors import UserError

ROOT = Path(__file__).parents[1]
OURS = {"mdmspeech", "experiments"}
FOLDERS = ("mdmspeech", "experiments", "launch")


def files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def missing(module: str, name: str = "") -> str:
    """What `from module import name` lacks; nothing where only another package is not installed."""
    try:
        found = importlib.import_module(module)
        if not name or hasattr(found, name):
            return ""
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError as error:
        return error.name if (error.name or "").split(".")[0] in OURS else ""
    except UserError:  # apache-beam is not installed
        return ""
    return ""


def lacking(text: str) -> list[str]:
    """Of a file's source: "line N: module" for every name of ours that is not there."""
    wanted = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            wanted += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted += [(node.lineno, node.module, alias.name) for alias in node.names]
    return [
        f"line {line}: {lacks}"
        for line, module, name in wanted
        if module.split(".")[0] in OURS and (lacks := missing(module, name))
    ]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_what_it_imports_of_ours_is_there(path):
    assert not lacking(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("from mdmspeech.data.nowhere.sources import speech", "mdmspeech.data.nowhere"),
        ("from mdmspeech.codec import quantize", "mdmspeech.codec.quantize"),
        ("def f():\n    import mdmspeech.nowhere", "mdmspeech.nowhere"),
        ("from experiments import nothing", "experiments.nothing"),
        ("from mdmspeech.codec import fsq\nfrom apache_nowhere import Pipeline", ""),
    ],
)
def test_a_wrong_import_is_seen(text, lacks):
    assert [line.split(": ")[1] for line in lacking(text)] == ([lacks] if lacks else [])
