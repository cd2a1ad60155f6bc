"""`make plan`: a list of configurations on a list of slices, each compiled once and kept, then
written down as tables and a picture.

A compile takes from seconds to minutes; every finished one is a line of a cache file, found again
by what decides it: the configuration, the slice, the batch and the versions. With it stands a
digest of the package's code (without comments): the page tells how many plans other code has made.
A run that was killed goes on where it was.
"""

import ast
import collections
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.files import write_text
from mdmspeech.planning import report
from mdmspeech.planning.plan import Plan, versions
from mdmspeech.training.progress import format_duration

_ROOMS = (
    "nn",
    "models",
    "codec",
    "diffusion",
    "decoding",
    "inference",
    "training",
    "planning",
)  # what a plan depends on


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the list: an experiment on some slices.

    Attributes:
      config: experiment file. topologies: slices, as `topology.parse` reads them.
      rows: of the batch, a data-parallel device (train) or decoded together. what, way: see
        `configs.Planned`.
      settings: KEY=VALUE overrides.
    """

    config: str
    topologies: tuple[str, ...]
    rows: int = 1
    what: str = "train"
    settings: tuple[str, ...] = ()
    way: str = ""


class Cache:
    """Plans by key, a JSON line each, appended as they are made, with the code that made them."""

    def __init__(self, path: Path):
        self._path = Path(path)
        self._made: dict[str, tuple[str, Plan | str]] = {}
        text = self._path.read_text() if self._path.exists() else ""
        # a line cut short by a kill: the next must not be lost with it
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._made[row["key"]] = (
                    row["code"],
                    row["error"] if "error" in row else Plan.from_json(row["plan"]),
                )
            # cut short by a kill, or of an older layout: made again
            except (json.JSONDecodeError, KeyError, TypeError):
                continue

    def get(self, key: str, code: str = "") -> Plan | str | None:
        """The plan, or the words of a refusal; None if there is none, or other code than `code`
        made it ("": any will do).
        """
        made, plan = self._made.get(key, ("", None))
        return plan if not code or made == code else None

    def made_by(self, key: str) -> str:
        """The code that made it, "" if there is none."""
        return self._made.get(key, ("", ""))[0]

    def put(self, key: str, plan: Plan | str, code: str = "", made: dict | None = None) -> None:
        """made: what made it, see `evaluation.provenance`."""
        self._made[key] = code, plan
        self._path.parent.mkdir(parents=True, exist_ok=True)
        row = {"key": key, "code": code, "made": made} | (
            {"error": plan} if isinstance(plan, str) else {"plan": plan.to_json()}
        )
        with self._path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(row) + "\n")
        self._torn = False


def key_of(*parts: object) -> str:
    """Digest of everything that decides a plan."""
    return hashlib.sha256(
        json.dumps([*map(str, parts), versions()], sort_keys=True).encode()
    ).hexdigest()[:24]


def code_digest() -> str:
    """Of the rooms a plan depends on, docstrings and comments left out."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Expr)
                    and isinstance(node.value, ast.Constant)
                    and isinstance(node.value.value, str)
                ):
                    node.value.value = ""
            digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def run(
    jobs: Iterable[tuple[str, str, Callable[[], Plan]]],
    cache: Cache,
    code: str,
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    done: Callable[
        [list[Plan], list[str], int, int], None
    ] = lambda plans, refused, missing, older: None,
    made_by: Callable[[], dict] = dict,
) -> None:
    """Does the jobs (key, label, how to make the plan) that the cache lacks.

    Args:
      code: digest of the code that runs. made_by: gives what is written beside each plan (see
        `evaluation.provenance`). fresh: make those anew that other code has made.
      done: told the plans, the refusals, how many plans are missing and how many other code has
        made: at the start, and after each plan.
    """
    jobs = list(jobs)
    known = {key: cache.get(key, code if fresh else "") for key, _, _ in jobs}

    def tell() -> int:
        plans = [plan for plan in known.values() if isinstance(plan, Plan)]
        refused = [
            f"{label}: {known[key]}" for key, label, _ in jobs if isinstance(known[key], str)
        ]
        missing = sum(plan is None for plan in known.values())
        done(plans, refused, missing, older())
        return missing

    def older() -> int:
        return sum(found is not None and cache.made_by(key) != code for key, found in known.items())

    missing = tell()
    kept = f"{len(jobs)} plans, {len(jobs) - missing} of them kept from before"
    say(
        kept
        + (f", {older()} of these made by other code (--fresh makes them again)" if older() else "")
    )
    began, made = time.monotonic(), 0
    for key, label, make in jobs:
        if known[key] is not None:
            continue
        plan: Plan | str
        try:
            plan = make()
        except UserError as error:
            plan = str(error)
        known[key] = plan
        cache.put(key, plan, code, made_by())
        made += 1
        left = tell()
        verdict = plan if isinstance(plan, str) else report.table([plan]).splitlines()[1]
        say(
            f"{made}/{missing}  {label}: {verdict}  left "
            f"{format_duration((time.monotonic() - began) / made * left)}"
        )


def made_at(out: Path, keys: Iterable[str]) -> str:
    """In words, which commits made these plans of `out`.jsonl, on what; "" where nothing says so."""
    path, wanted = Path(out).with_suffix(".jsonl"), set(keys)
    rows = (
        [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        if path.is_file()
        else []
    )
    last = {row["key"]: row.get("made") for row in rows if row["key"] in wanted}
    counts = collections.Counter(_by(made) for made in last.values() if made)
    return (
        "Made by: "
        + "; ".join(f"{by} ({count} plans)" for by, count in sorted(counts.items()))
        + "."
        if counts
        else ""
    )


def _by(made: dict) -> str:
    state = (
        "at or before"
        if "recorded" in made
        else {True: "a clean tree of", False: "a changed tree of"}.get(bool(made.get("clean")))
    )
    return f"`{made['command']}` {state} commit {str(made['commit'])[:12]}, {made['date'][:10]}"


def _speech(plans: list[Plan]) -> list[str]:
    """Tables of the ways of talking, one a number of rows."""
    talking = [plan for plan in plans if plan.way]
    return [
        f"Speaking, {rows} at a time:\n\n"
        + report.speech(plan for plan in talking if plan.rows == rows)
        for rows in sorted({plan.rows for plan in talking})
    ]


def write(
    plans: list[Plan],
    refused: list[str],
    missing: int,
    older: int,
    out: Path,
    keys: Iterable[str] = (),
) -> None:
    """`out`.md and `out`.png. missing: plans of the list that are still to be made. older: plans
    that other code has made. keys: of the list, for what `out`.jsonl says of its plans.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    training = [plan for plan in plans if plan.what == "train"]
    if training:
        report.plot_weak_scaling(out.with_suffix(".png"), training)
    seconds = [plan.seconds["compile"] for plan in plans]
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    parts = [
        "# Plans: what fits where, and how fast it could be",
        f"Made by `make plan` ({used}): each line is the real program, compiled for the slice by "
        "the TPU compiler on a CPU. Memory is what the compiler says; times are estimates from "
        "the counts of the compiled program, and were measured on no TPU. The batch a "
        "data-parallel device is the same on all slices.",
        (
            "mesh: data/fsdp/tensor. fits: yes = with 10% of the memory free, tight = compiles "
            "with less, no = out of memory. Ranges: no overlap - perfect overlap."
        ),
        (
            f"Compiling took {min(seconds):.0f} to {max(seconds):.0f} s a plan, "
            f"{sum(seconds) / 60:.0f} min together."
        )
        if seconds
        else "",
        (
            f"{older} of the {len(plans) + len(refused)} were made before later changes of the "
            "code: `mdmspeech plan --list ... --fresh` makes them anew."
        )
        if older
        else "",
        made_at(out, keys),
        f"{missing} plans of the list are still to be made: `make plan` goes on."
        if missing
        else "",
        "Assumed:\n" + "\n".join(f"- {line}" for line in report.ASSUMPTIONS),
        f"![weak scaling]({out.with_suffix('.png').name})" if training else "",
    ]
    for name in sorted({plan.name for plan in plans}):
        mine = sorted(
            (p for p in plans if p.name == name),
            key=lambda p: (p.what, p.slice_name.split("-")[0], p.chips),
        )
        parts += [f"## {name}", report.markdown(mine), *_speech(mine)]
        advice = [f"- {plan.slice_name}: {'; '.join(plan.advice)}" for plan in mine if plan.advice]
        parts += ["What would make the others fit:\n" + "\n".join(advice)] if advice else []
    if refused:
        parts += ["## Not compiled", "\n".join(f"- {line}" for line in refused)]
    write_text(out.with_suffix(".md"), "\n\n".join(part for part in parts if part) + "\n")
