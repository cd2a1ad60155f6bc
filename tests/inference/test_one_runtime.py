"""One runtime for every kind of Talker: the kind of anchors is asked for where a voice is made, and
nowhere else.
"""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "mdmspeech"
_KINDS_OF_ANCHORS = {"paced", "fixed", "prefix"}


def asks_for_anchors(source: str) -> list[int]:
    """Lines that compare something with the name of a kind of anchors, or choose by it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        constants = {x.value for side in sides for x in ast.walk(side) if _is_text(x)}
        found += [node.lineno] * bool(constants & _KINDS_OF_ANCHORS)
    return found


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_kind_of_anchors_is_asked_for_in_one_place():
    """What speaks differs in what it is made of, not in what it asks: `factory` chooses by a table."""
    for room in ("inference", "decoding"):
        for path in (PACKAGE / room).glob("*.py"):
            source = path.read_text(encoding="utf-8")
            assert not asks_for_anchors(source), path
            chosen = re.findall(r"\[[\w.]*\.anchors\]", source)
            assert len(chosen) == (path.stem == "factory"), path
    for wrong in (
        'if config.anchors == "prefix":\n    pass',
        'x = 1 if "paced" != kind else 2',
        'x = part.anchors in ("fixed", "paced")',
        'match kind:\n    case "fixed":\n        pass',
    ):
        assert asks_for_anchors(wrong)
    assert not asks_for_anchors('anchors = "paced"\ntable = {"fixed": 1}[anchors]')
