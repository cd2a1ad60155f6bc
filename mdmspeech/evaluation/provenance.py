"""What made a result: the commit and whether the tree was clean, the command, versions, machine,
date, sample sizes and seeds.

    made = provenance(sizes={"texts": 200}, seeds={"speech": 0})     # goes into the result's JSON as "made"
    line(made)                                                       # -> one line for the page

A result of before this module names the commit that brought it into the repository, and says so in
`recorded`.
"""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = (
    "mdmspeech",
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "faster-whisper",
    "ctranslate2",
    "jiwer",
    "whisper-normalizer",
    "speechmos",
    "onnxruntime",
    "apache-beam",
)
# what a run writes does not make the tree that it runs from unclean
_RESULTS = "experiments/results"


def provenance(*, sizes: Mapping[str, Any], seeds: Mapping[str, int]) -> dict[str, Any]:
    """The fields, JSON-ready.

    Args:
      sizes: how much was measured, by name: {"clips": 200, "clips judged by DNSMOS": 50}.
      seeds: every seed that the result depends on, by what it draws: {"speech": 0}; {} when nothing
        is drawn.

    `commit` is None where the package does not run from a checkout: then the version of mdmspeech
    has to do.
    """
    import jax

    devices = jax.devices()
    commit, clean = tree()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "clean": clean,
        "command": command(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "accelerator": "none"
        if devices[0].platform == "cpu"
        else f"{len(devices)} x {devices[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "sizes": dict(sizes),
        "seeds": dict(seeds),
    }


def line(made: Mapping[str, Any], *, also: str = "") -> str:
    """One line of Markdown in italics. also: what else to say, at its end."""
    commit = str(made.get("commit") or "unknown")[:12]
    state = (
        {True: " (clean tree)", False: " (changed tree)"}.get(bool(made["clean"]), "")
        if made.get("clean") is not None
        else ""
    )
    at = f"at or before commit {commit}" if "recorded" in made else f"commit {commit}{state}"
    parts = [
        made["date"],
        at,
        f"`{made['command']}`",
        made["cpu"],
        f"{made['cores']} cores",
        f"accelerator: {made['accelerator']}",
    ]
    parts.append(f"jax {made['versions'].get('jax')}")
    parts += [f"{name}: {value}" for name, value in made.get("sizes", {}).items()]
    parts += [f"seed of {name}: {value}" for name, value in made.get("seeds", {}).items()]
    return f"*{', '.join(map(str, parts))}{also}.*"


def tree(folder: Path | None = None) -> tuple[str | None, bool | None]:
    """(commit, whether nothing but results differs from it) of the checkout that the package runs
    from; (None, None) outside of one.
    """
    folder = folder or Path(__file__).parents[2]
    root = _git(folder, "rev-parse", "--show-toplevel")
    # an installed package, maybe below another project's checkout
    if root is None or Path(root).resolve() != folder.resolve():
        return None, None
    commit, changed = (
        _git(folder, "rev-parse", "HEAD"),
        _git(folder, "status", "--porcelain", "--", ".", f":!{_RESULTS}"),
    )
    return commit, None if changed is None else not changed


def command() -> str:
    """What was typed, without the folders of this machine: "python -m experiments.llada_curve --steps 300"."""
    words = [
        word.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~") for word in sys.orig_argv
    ]
    script = next(
        (
            i
            for i, word in enumerate(words[1:], 1)
            if not word.startswith("-") or word in ("-m", "-c")
        ),
        len(words),
    )
    if words[script : script + 1] == ["-c"]:
        return "python -c ..."
    if words[script : script + 1] == ["-m"]:
        return " ".join(["python", *words[script:]])
    return (
        " ".join([Path(words[script]).name, *words[script + 1 :]])
        if script < len(words)
        else "python"
    )


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
