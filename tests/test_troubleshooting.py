"""docs/troubleshooting.md quotes errors that the code still tells."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
_GAP = "…"  # on the page: a name or a number
_VALUE = "\0"  # in what is told: a value that is put in
_LEAST = 12  # letters of a quote: fewer would be found anywhere


def _told(node: ast.expr) -> str:
    """What an expression of strings says, a `_VALUE` where it is not known; all branches."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else _VALUE
    if isinstance(node, ast.JoinedStr):
        return "".join(_told(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _VALUE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _told(node.left) + _told(node.right)
    return _VALUE


def texts(source: str) -> list[str]:
    """Strings of Python source, those put together as one; docstrings are none."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        _told(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in alone
    ]


def said_somewhere() -> list[str]:
    """All that the package, the page and the Makefile may say."""
    python = (path.read_text(encoding="utf-8") for path in (ROOT / "mdmspeech").rglob("*.py"))
    found = [text for source in python for text in texts(source) if len(text) >= _LEAST]
    for path in (ROOT / "mdmspeech" / "serving" / "static").glob("*.js"):
        found += re.findall(r'"([^"\n]+)"|`([^`\n]+)`', path.read_text(encoding="utf-8"))
    flat = [text if isinstance(text, str) else "".join(text) for text in found]
    return [*flat, *(ROOT / "Makefile").read_text(encoding="utf-8").splitlines()]


def quotes(page: str) -> list[str]:
    """First cells of the tables."""
    return re.findall(r"^\| `([^`]+)` \|", page, re.M)


def is_told(quote: str, said: list[str]) -> bool:
    """Whether one text has the pieces of the quote, in their order, with a value between them."""
    between = f"[^{_VALUE}]*{_VALUE}.*?"
    pattern = re.compile(
        between.join(re.escape(piece.strip()) for piece in quote.split(_GAP)), re.S
    )
    return any(pattern.search(text) for text in said)


SAID = said_somewhere()


@pytest.mark.parametrize("quote", quotes(PAGE.read_text(encoding="utf-8")))
def test_it_is_told_by_the_code(quote):
    assert len(quote.replace(_GAP, "")) >= _LEAST, "too short to find anything by"
    assert is_told(quote, SAID)


def test_every_row_quotes_and_cures():
    page = PAGE.read_text(encoding="utf-8")
    rows = [row for row in re.findall(r"^\|.*\|$", page, re.M) if not row.startswith("|---")]
    rows = [row for row in rows if not row.startswith("| it says |")]
    assert len(rows) == len(quotes(page)) > 40
    assert all(len(row.split(" | ", 1)[1]) > 20 for row in rows)
    assert len(set(quotes(page))) == len(rows)


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("is too long: … s, the limit is … s", True),
        ("the limit is … s, is too long", False),
        ("is too wide: … s", False),
        ("what the docstring says of it", False),
        ("put together by hand", True),
        ("is too long … the limit", True),
        ("is … too long", False),  # there is no value between these
    ],
)
def test_quotes_are_looked_for(quote, found):
    source = (
        'def f(x):\n    """what the docstring says of it"""\n'
        '    raise E(f"{x} is too long: {x} s, the limit is {x} s; cut it")\n'
        '\nM = "put together" + " by hand"\n'
    )
    assert is_told(quote, texts(source)) is found
