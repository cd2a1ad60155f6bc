"""The page without a browser: its own files in node, in front of a stand-in of everything else."""

import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

FILES = resources.files("mdmspeech.serving") / "static"
STAND_IN = Path(__file__).with_name("stand_in_browser.js")


@pytest.fixture
def in_node(tmp_path):
    """Runs a script beside the page's files and stand_in_browser.js; what it asserts must hold."""
    if shutil.which("node") is None:
        pytest.skip("needs node (apt-get install nodejs)")

    def run(script):
        for file in FILES.iterdir():
            if file.name.endswith(".js"):
                (tmp_path / file.name).write_bytes(file.read_bytes())
        shutil.copy(STAND_IN, tmp_path)
        (tmp_path / "package.json").write_text('{"type": "module"}')
        names = "answering, ask, done, find, holdFor, microphone, notice, open, player, pushToTalk"
        names += ", refused, requests, rows, saying, socket, soon, transcribed, transcripts"
        (tmp_path / "try.js").write_text(
            f'import assert from "node:assert/strict";\n'
            f'import {{ {names} }} from "./stand_in_browser.js";\n{script}'
        )
        made = subprocess.run(
            ["node", tmp_path / "try.js"], capture_output=True, text=True, timeout=60
        )
        assert made.returncode == 0, made.stderr
        assert made.stdout + made.stderr == ""

    return run
