"""The report of `make parity`: a line for everything compared, and an error for every golden array
that nothing was compared with.

`pytest -m parity --parity-report STEM` prints it and writes STEM.md and STEM.json. It fails when a
test fails, when a fixture under tests/fixtures has an output that no test named, and when PyTorch,
the other side of a part of it, is not installed. When all tests have run, and the machine is free,
it lets ours and `transformers` race (race.py).
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from measured import PROPERTY

from mdmspeech.evaluation.provenance import line as made_line
from mdmspeech.evaluation.provenance import provenance
from mdmspeech.evaluation.report import write_json

FIXTURES = Path(__file__).parents[1] / "fixtures"
RACE = Path(__file__).with_name("race.py")
OTHERS = ("torch", "transformers")


def pytest_addoption(parser):
    parser.addoption(
        "--parity-report",
        metavar="STEM",
        help="write what the tests marked `parity` measured to STEM.md and STEM.json",
    )


def pytest_configure(config):
    stem = config.getoption("--parity-report")
    if stem is None or hasattr(config, "workerinput"):
        return
    missing = [name for name in OTHERS if importlib.util.find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"--parity-report needs {' and '.join(missing)}: pip install -e "
            ".[parity], or say make parity"
        )
    config.pluginmanager.register(Report(Path(stem)), "parity-report")


class Report:
    """Collects what tests measured (also in other processes) and writes it when all have run."""

    def __init__(self, stem: Path) -> None:
        self.stem, self.lines, self.failed, self.problems = stem, {}, [], []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "teardown":
            for name, what in report.user_properties:
                if name == PROPERTY:
                    merge(self.lines, what)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        self.problems = [f"no test compared {name}" for name in missing(self.lines, FIXTURES)]
        self.problems += [f"failed: {name}" for name in self.failed]
        for name, text in self.race().items():
            merge(self.lines, {"name": name, "text": text})
        lines = [self.lines[key] for key in sorted(self.lines)]
        made = provenance(sizes={"comparisons": len(lines)}, seeds={})
        made["versions"] |= {name: metadata.version(name) for name in OTHERS}
        write_json(
            self.stem.with_suffix(".json"),
            {"made": made, "problems": self.problems, "lines": lines},
        )
        self.stem.with_suffix(".md").write_text(page(made, self.problems, lines), encoding="utf-8")
        if self.problems:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def race(self) -> dict[str, str]:
        """What race.py says, in a process of its own that knows nothing of the tests' eight devices."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"XLA_FLAGS", "JAX_NUMPY_RANK_PROMOTION"}
        }
        done = subprocess.run(
            [sys.executable, RACE],
            env=environment,
            cwd=RACE.parents[2],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            self.problems.append(f"{RACE.name} failed: {done.stderr.strip().splitlines()[-1]}")
            return {}
        return {
            f"SmolLM2: {name}": text
            for name, text in json.loads(done.stdout.splitlines()[-1]).items()
        }

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("parity")
        for key in sorted(self.lines):
            terminalreporter.write_line("{:<64} {:<24} {}".format(*cells(self.lines[key])))
        for problem in self.problems:
            terminalreporter.write_line(f"PROBLEM {problem}", red=True)


def merge(lines: dict[tuple[str, float], dict], what: dict) -> None:
    """Adds one measurement. Of several differences under one name and tolerance the largest stays;
    what is counted adds up.
    """
    key = what["name"], what.get("tolerance", 0.0)
    known = lines.get(key)
    if known is None or "text" in what:
        lines[key] = dict(what)
        return
    for field in ("differ", "allowed", "values"):
        if field in what:
            known[field] += what[field]
    if "difference" in what:
        # nan stays nan
        known["difference"] = float(np.maximum(known["difference"], what["difference"]))


def missing(lines: Iterable[tuple[str, float]], fixtures: Path) -> list[str]:
    """Fixtures no line names: outputs of .npz files as "stem key", inputs alone and manifests as
    "stem"; files nothing reads at all.
    """
    named, wanted, stems = {name for name, _ in lines}, [], set()
    for path in sorted(fixtures.rglob("*.npz")):
        stems.add(path.stem)
        with np.load(path) as arrays:
            outputs = [f"{path.stem} {key}" for key in arrays.files if "out." in key]
        wanted += outputs or [path.stem]
    manifests = sorted(path for path in fixtures.rglob("*.json") if path.parent.name == "manifests")
    wanted += [f"manifest {path.stem}" for path in manifests]
    others = (
        path
        for path in fixtures.rglob("*")
        if path.is_file() and path not in manifests and path.stem not in stems
    )
    return [name for name in wanted if name not in named] + [path.name for path in sorted(others)]


def cells(line: dict) -> tuple[str, str, str]:
    """What, what came out, what is allowed."""
    if "text" in line:
        return line["name"], line["text"], ""
    if "differ" in line:
        return (
            line["name"],
            f"{line['differ']} differ",
            f"of {line['values']}, allowed {line['allowed']}",
        )
    return (
        line["name"],
        f"{line['difference']:.1e}",
        f"of {line['values']}, allowed {line['tolerance']:g}",
    )


def page(made: dict, problems: list[str], lines: list[dict]) -> str:
    """The report as Markdown."""
    versions = ", ".join(
        f"{name} {made['versions'][name]}" for name in ("jax", "flax", "numpy", *OTHERS)
    )
    head = [
        "# Parity",
        "",
        (
            "What `make parity` compared with the reference implementations, each "
            "line with the largest difference that was found."
        ),
        (
            "Names that begin with a fixture are arrays of tests/fixtures; `values` "
            "is how many were compared."
        ),
        "",
        made_line(made, also=f"; {versions}"),
        "",
    ]
    if problems:
        head += ["**Problems**", "", *(f"- {problem}" for problem in problems), ""]
    measured, said = (
        [line for line in lines if "text" not in line],
        [line for line in lines if "text" in line],
    )
    table = ["| what | largest difference | values | allowed |", "|---|---|---|---|"]
    for line in measured:
        found, allowed = (
            (line["differ"], line["allowed"])
            if "differ" in line
            else (f"{line['difference']:.1e}", f"{line['tolerance']:g}")
        )
        table.append(
            f"| {line['name']} | {found}{' differ' if 'differ' in line else ''} | "
            f"{line['values']} | {allowed} |"
        )
    notes = (
        [
            "",
            "| what | measured |",
            "|---|---|",
            *(f"| {line['name']} | {line['text']} |" for line in said),
        ]
        if said
        else []
    )
    return "\n".join([*head, *table, *notes]) + "\n"


def read(stem: Path) -> dict:
    """The JSON of a report."""
    return json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
