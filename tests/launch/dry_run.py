"""A dry run of a launcher, and options that several tests give it."""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ["--name", "run1", "--config", "experiments/compact_talker.py"]
BUCKET = ["--workdir", "gs://bucket/some run", "--project", "proj", "--zone", "us-east5-b"]


def launch(name, *options):
    """A dry run, in this process; programs cannot be started in it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(subprocess, "Popen", None)
        try:
            code = importlib.import_module(name).main(list(options))
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(name, code, out.getvalue(), err.getvalue())


def files(script):
    """{path: text} of the files that a script writes."""
    return {
        shlex.split(path)[0]: text
        for path, end, text in re.findall(
            r"^cat > ([^\n]*) <<'(\w+)'\n(.*?\n)\2$", script, re.M | re.S
        )
    }
