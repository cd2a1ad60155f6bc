"""Where a container's user has no home, or one that cannot be written: models are opened and speak,
only what must be stored asks for a place.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mdmspeech
from mdmspeech.cli import compiled, main
from mdmspeech.data.storage.record_store import data_root, writable_root
from mdmspeech.errors import UserError

HOMES = ["/", "/nonexistent", "read-only", None]

SPEAK = """
import os, sys
from mdmspeech.cli import compiled
compiled.lend_caches(); print("kept:", compiled.keep_compiled())
import mdmspeech
model = mdmspeech.load("compact")
voice = model.voice("mdm")
import mdmspeech.inference.timeline, mdmspeech.cli.say, mdmspeech.cli.chat
from mdmspeech.audio.writer import save_wave
from mdmspeech.audio.host_features import log_mel
import numpy as np
log_mel(np.zeros(1600, np.float32))
save_wave(sys.argv[1], 0.1 * np.ones(8000), 8000)
heavy = {"librosa", "numba", "sklearn", "joblib", "matplotlib", "tensorflow", "tensorflow_datasets"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
# What scoring and plots import, where nothing but the lent folder can be written.
SCORE = """
import os, sys
from mdmspeech.cli import compiled
print("lent:", compiled.lend_caches())
import mdmspeech.evaluation.griffin_lim, mdmspeech.evaluation.mos
import matplotlib.figure
"""


def as_nobody(code, tmp_path, home, *args):
    """Runs code as a user who may read everything and write only `out` and the folder for temporary
    files: uid 65534 if we are root, else ourselves.
    """
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    closed = tmp_path / "home"
    closed.mkdir(mode=0o555, exist_ok=True)
    skipped = (
        "MDMSPEECH_HOME",
        "HOME",
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_ENABLE_COMPILATION_CACHE",
        "NUMBA_CACHE_DIR",
        "MPLCONFIGDIR",
        "XDG_CACHE_HOME",
    )
    env = {name: value for name, value in os.environ.items() if name not in skipped}
    env |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(out),
        "PYTHONPATH": str(Path(mdmspeech.__file__).parents[1]),
        "XLA_FLAGS": "",
    }
    env |= {} if home is None else {"HOME": str(closed) if home == "read-only" else home}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *args]
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root needs setpriv (util-linux) to become nobody")
        reads = "+dac_read_search"  # the interpreter may be in root's home
        command = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            f"--inh-caps={reads}",
            f"--ambient-caps={reads}",
            *command,
        ]
        out.chmod(0o777)
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o111)
    return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_speaking_needs_no_home_and_no_librosa(tmp_path):
    done = as_nobody(SPEAK, tmp_path, "/nonexistent", str(tmp_path / "out" / "a.wav"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["kept: None", "heavy: []"] and not done.stderr
    assert (tmp_path / "out" / "a.wav").stat().st_size > 1000
    # what was lent is gone
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]


def test_scoring_finds_a_folder_for_its_caches(tmp_path):
    done = as_nobody(SCORE, tmp_path, "read-only")
    assert done.returncode == 0, done.stderr
    assert (
        "lent: /" in done.stdout
        and "Traceback" not in done.stderr
        and "temporary cache" not in done.stderr
    )
    assert not list((tmp_path / "out").iterdir()) and not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("home", HOMES)
def test_what_must_be_stored_asks_for_a_place(home, tmp_path):
    verbs = [
        ["--parts", "open", "--hours", "0.01"],
        ["--tokens", "--parts", "open"],
        ["--states"],
        ["--phones", "3"],
        ["--manifest", "a.jsonl"],
    ]
    code = (
        f"from mdmspeech.cli import main; import sys\nfor verb in {verbs!r}: assert "
        "main(['data', *verb]) == 2\nassert 'jax' not in sys.modules"
    )
    done = as_nobody(code, tmp_path, home)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == len(verbs) and all("$MDMSPEECH_HOME" in line for line in told), told


def test_nobody_without_an_entry(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("MDMSPEECH_HOME", raising=False)
    monkeypatch.setattr(
        Path,
        "expanduser",
        lambda self: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")),
    )
    with pytest.raises(UserError, match=r"no home folder; set \$MDMSPEECH_HOME"):
        data_root()
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert compiled.keep_compiled() is None


def test_a_home_that_is_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "home").write_text("x")
    for place in (tmp_path / "home", tmp_path / "home" / "below"):
        with pytest.raises(UserError, match=r"home is a file, not a folder; set \$MDMSPEECH_HOME"):
            writable_root(place)
        assert main(["data", "--root", str(place), "--parts", "open"]) == 2
        assert "$MDMSPEECH_HOME" in capsys.readouterr().err
    monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path / "home"))
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert compiled.keep_compiled() is None


def test_a_home_with_room_lends_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled.lend_caches() is None


def test_a_full_disk_keeps_no_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE", raising=False)
    monkeypatch.setattr(compiled, "_ROOM", 2**62)
    assert compiled.keep_compiled() is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ
