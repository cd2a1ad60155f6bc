"""What a record of what made a result lacks: every result in the repository is held to it."""

import re
from collections.abc import Mapping
from typing import Any

FIELDS = (
    "date",
    "commit",
    "clean",
    "command",
    "cpu",
    "cores",
    "memory_gb",
    "accelerator",
    "system",
    "versions",
    "sizes",
    "seeds",
)
AFTERWARDS = "afterwards, from the history: made at or before this commit"


def problems(made: Mapping[str, Any]) -> list[str]:
    """What is missing or cannot be, each in words; [] for a whole record."""
    found = [f"no {field}" for field in FIELDS if field not in made]
    if not re.fullmatch(r"[0-9a-f]{40}", str(made.get("commit"))):
        found.append(f"commit {made.get('commit')!r} is no commit")
    if made.get("recorded") != AFTERWARDS and not isinstance(made.get("clean"), bool):
        found.append("does not say whether the tree was clean")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", str(made.get("date"))):
        found.append(f"date {made.get('date')!r}")
    found += [
        f"{field} is empty"
        for field in ("command", "cpu", "accelerator", "versions", "sizes")
        if field in made and not made[field]
    ]
    if "seeds" in made and not isinstance(made["seeds"], Mapping):
        found.append("seeds have no names")
    return found
