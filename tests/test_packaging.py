"""What setup.cfg, constraints.txt and the Makefile promise is so."""

import ast
import configparser
import fnmatch
import itertools
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")

# `make test` runs these tests, and a make inside a make announces its folders.
OUTSIDE = {
    name: value
    for name, value in os.environ.items()
    if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
}

# Imports whose distribution has another name.
DISTRIBUTION = {
    "google": "google-auth",
    "orbax": "orbax-checkpoint",
    "yaml": "pyyaml",
    "hibari": "hibari-tts",
    "tensorflow_datasets": "tensorflow-datasets",
}
# Found by the Makefile outside of setup.cfg: GPL-3 runner of a test voice, only ever imported when
# its user installed it.
NOT_DECLARED = {"piper"}


def requirements(text: str) -> list[Requirement]:
    return [
        Requirement(line)
        for line in text.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


def declared() -> dict[str, list[Requirement]]:
    extras = {name: requirements(text) for name, text in CONFIG["options.extras_require"].items()}
    return {"": requirements(CONFIG["options"]["install_requires"])} | extras


def constraints() -> dict[str, Version]:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def third_party(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {name.split(".")[0] for name in names}
    return found - set(sys.stdlib_module_names) - {"mdmspeech", ""}


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_every_import_is_declared():
    names = {canonicalize_name(r.name) for rs in declared().values() for r in rs}
    used = {
        canonicalize_name(DISTRIBUTION.get(name, name))
        for name in third_party(ROOT / "mdmspeech") - NOT_DECLARED
    }
    assert used <= names


def test_no_torch_and_no_tensorflow():
    banned = {"torch", "tensorflow", "torchaudio", "keras"}
    assert not banned & set(constraints())
    for room in (ROOT / "mdmspeech").iterdir():
        if room.is_dir() and room.name != "evaluation":
            assert not banned & third_party(room), room.name
    # Scoring may use PyTorch where its user installed it, but imports without.
    code = "import sys, pkgutil, importlib, mdmspeech.evaluation as e\n"
    code += (
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(e.__path__, e.__name__ + "
        "'.')]; print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def test_the_extras_are_there():
    assert {"data", "eval", "gpu", "tpu", "serve", "dev"} <= set(declared())


@pytest.mark.parametrize("extra", ["", "data", "eval", "dev"])
def test_constraints_fit_what_is_asked_for_and_what_is_installed(extra):
    fixed = constraints()
    for requirement in declared()[extra]:
        name = canonicalize_name(requirement.name)
        assert name in fixed, f"{name} is not in constraints.txt: make freeze"
        assert fixed[name] in requirement.specifier
        assert Version(metadata.version(name)) == fixed[name]


def test_every_cap_has_a_reason():
    text = (ROOT / "setup.cfg").read_text()
    lines = text[: text.index("mos =")].splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"\s+[\w-]+>=[\d.]+,<", line) and "numpy" not in line:
            assert before.strip().startswith("#"), f"say above it why {line.strip()} has a cap"


def test_data_files_are_shipped():
    patterns = CONFIG["options.package_data"]["mdmspeech"].split()
    for path in tracked():
        if path.is_relative_to(ROOT / "mdmspeech") and path.suffix != ".py":
            name = path.relative_to(ROOT / "mdmspeech").as_posix()
            assert any(
                fnmatch.fnmatch(name, p) or fnmatch.fnmatch(name, p.replace("**/", ""))
                for p in patterns
            ), name


def test_importing_the_package_is_cheap():
    code = (
        "import sys, mdmspeech; assert mdmspeech.__version__; assert "
        "callable(mdmspeech.load); print('jax' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def test_the_installed_version_and_script_are_ours():
    import mdmspeech

    assert metadata.version("mdmspeech") == mdmspeech.__version__
    (script,) = [e for e in metadata.entry_points(group="console_scripts") if e.name == "mdmspeech"]
    assert callable(script.load())


def test_make_alone_lists_every_job():
    shown = subprocess.run(
        ["make"], env=OUTSIDE, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert [line.split()[1] for line in shown.splitlines()] == phony


def test_make_trains_every_compact_experiment():
    stages = re.search(r"^COMPACT := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert set(stages) == {p.stem for p in (ROOT / "experiments").glob("compact_*.py")}


def test_a_missing_python_is_said_clearly(tmp_path):
    run = subprocess.run(
        ["make", "demo", f"VENV={tmp_path}/venv", "PYTHON=python9.9"],
        env=OUTSIDE,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "python9.9 is not installed: install Python 3.11" in run.stderr


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


# Spelt in pieces, so that this file passes its own test.
PRIVATE = [
    "/" + "root/",
    "/" + "work/",
    "/" + "opt/pypi",
    "/" + "tmp/" + "brief",
    "files.python" + "hosted",
]


def test_no_machine_paths_and_no_loose_ends():
    for path in tracked():
        if path.suffix in {
            ".py",
            ".cfg",
            ".toml",
            ".txt",
            ".md",
            ".json",
            ".yaml",
        } or path.name in {"Makefile", "run"}:
            text = path.read_text()
            for word in [*PRIVATE, "TO" + "DO", "FIX" + "ME"]:
                assert word not in text, f"{path.relative_to(ROOT)} has {word}"
