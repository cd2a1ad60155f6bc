"""Twenty troubles that users of other speech servers reported: each has tests here that name it, "Trap
N", from a WAV header in every chunk (1) to a voice detector without its context (20).
"""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_each_is_tested():
    named = set()
    for file in TESTS.rglob("test_*.py"):
        if file.name != Path(__file__).name:
            for found in re.findall(r"[Tt]raps?[ _]((?:\d+(?:, | and |_)?)+)", file.read_text()):
                named |= {int(number) for number in re.findall(r"\d+", found)}
    assert named == set(range(1, 21))
