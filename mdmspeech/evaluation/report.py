"""Results on disk: JSON written whole or not at all, and parts that are made once and kept, with
what made them and the figures they took the place of.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.evaluation.provenance import provenance
from mdmspeech.files import write_text

SEEDS = {"speech": 0, "the bootstrap": 0}  # those of a part: answers are greedy
_SIZES = {"count": "utterances", "questions": "questions", "words": "words"}
# of a part no figures: tables of what made it, or in detail, and counts
_NO_TABLES = ("made", "made_from", "before", "families", "codes", "timing", "stop_reasons")
_NO_NUMBERS = ("count", "questions", "words", "clips", "steps", "texts", "seconds")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` under a temporary name first, so that a kill leaves the old file or the new
    one. Makes the folder.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; `UserError` when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and evaluate again") from error


def kept(
    path: Path, made_from: dict[str, Any], make: Callable[[], dict], force: bool = False
) -> dict:
    """The part in `path`; made, with what made it, when it is missing, was made from something
    else, or `force` is set.

    A part that takes the place of another holds the other's figures as `before`.

    Args:
      made_from: what the part depends on (digests of the weights, counts, the recogniser),
        JSON-ready.
    """
    old = read_json(path) if Path(path).is_file() else {}
    if old and not force and old.get("made_from") == made_from:
        return old
    part = make()
    made = provenance(sizes=sizes_of(part), seeds=SEEDS)
    write_json(
        path,
        {
            **part,
            "made_from": made_from,
            "made": made,
            **({"before": replaced(old)} if old else {}),
        },
    )
    return read_json(path)


def figures(part: dict[str, Any]) -> dict[str, Any]:
    """The figures of a part that is no table of rows, flat: {"facts typed_right": 41, ...}; counts,
    times and what made it left out.
    """
    flat: dict[str, Any] = {}
    for key, value in part.items():
        if isinstance(value, dict):
            if key not in _NO_TABLES:
                flat |= {f"{key} {name}": number for name, number in figures(value).items()}
        elif isinstance(value, bool) or key in _NO_NUMBERS:
            continue
        elif isinstance(value, int | float):
            flat[key] = value
    return flat


def replaced(old: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a part that is made anew: its figures, which code made it when, and what had
    been kept of others in the same way.
    """
    made = old.get("made", {})
    return {
        "figures": figures(old),
        "made": {key: made[key] for key in ("date", "commit", "recorded") if key in made},
        **({"before": old["before"]} if "before" in old else {}),
    }


def sizes_of(part: dict[str, Any]) -> dict[str, int]:
    """How much was measured, by name, of those counts that a part holds."""
    found = {name: part[key] for key, name in _SIZES.items() if isinstance(part.get(key), int)}
    found |= {
        f"{name} {key}": part[name][key]
        for name in ("repeat", "human_repeat", "transcript", "human_transcript")
        for key in ("clips",)
        if name in part
    }
    mos = part.get("mos") or part.get("resynthesis", {}).get("mos", {})
    found |= {"clips judged by DNSMOS": mos["clips"]} if "clips" in mos else {}
    timed = part.get("speed", part.get("decode", {})).get("timed")
    found |= {"texts timed": timed} if timed else {}
    return found or {
        "entries": max(
            (len(value) for value in part.values() if isinstance(value, list)), default=len(part)
        )
    }
