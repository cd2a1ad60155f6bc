"""The second process that answers with a model: it traces nothing, compiles nothing, converts
nothing, says nothing of it, imports nothing heavy, and answers the same.
"""

import json
import os
import subprocess
import sys

import pytest
import soundfile

from mdmspeech.interop import converted
from mdmspeech.interop.sources import load_thinker

START = """
import collections, json, sys
from mdmspeech.cli import main
from mdmspeech.cli.compiled import keep_compiled
keep_compiled()
import jax
heard = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: heard.update([event.rsplit("/")[-1]]))
from mdmspeech import programs
made = []
programs._made = (lambda make: lambda *args: made.append(args[-1].name) or make(*args))(programs._made)
code = main(sys.argv[1:])
heavy = {"optax", "orbax", "grain", "matplotlib", "librosa", "numba", "transformers", "tensorflow",
         "torch", "jax.experimental.pallas"} & set(sys.modules)
print(json.dumps([code, len(made), heard["cache_misses"], heard["cache_hits"], sorted(heavy)]))
"""


def start(home, *argv):
    """(exit code, programs traced, compiled, found compiled, heavy modules), and what was said."""
    skipped = (
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "XLA_FLAGS",
    )
    env = {name: value for name, value in os.environ.items() if name not in skipped}
    done = subprocess.run(
        [sys.executable, "-c", START, *argv],
        env={
            **env,
            "MDMSPEECH_HOME": str(home),
            "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def stamps(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    import small_speech

    file = tmp_path_factory.mktemp("question") / "question.wav"
    soundfile.write(file, small_speech.question(), 16_000)
    return file


@pytest.mark.slow
def test_a_second_chat_makes_nothing_anew(system, question, tmp_path):
    home, argv = tmp_path / "home", ["chat", str(question), "--model", str(system), "-o"]
    (code, traced, compiled, _, _), told = start(home, *argv, str(tmp_path / "1.wav"))
    assert code == 0 and traced > 5 and compiled >= traced
    for part in ("Talker", "codec", "Thinker", "front end"):
        assert told.count(f"compiling the {part} ...") == 1, told
        assert told.count(f"compiled the {part}: ") == 1
    there = stamps(home)
    assert {file.suffix for file in there} >= {".traced", ".safetensors"}

    (code, traced, compiled, found, heavy), told = start(home, *argv, str(tmp_path / "2.wav"))
    assert (code, traced, compiled, heavy) == (0, 0, 0, []) and found > 5
    assert "compil" not in told
    kept = {file: stamp for file, stamp in stamps(home).items() if "-atime" not in file.name}
    assert kept == {file: stamp for file, stamp in there.items() if "-atime" not in file.name}
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()


def test_what_follows_from_a_thinkers_weights_is_kept_beside_them(published, tmp_path):
    converted.keep(tmp_path / "copies")
    try:
        loaded = load_thinker(published / "thinker")
        made = []
        for about in ("prompt", "prompt", "another prompt", "prompt"):
            kept = loaded.keep(
                about, lambda: made.append(1) or {"0": loaded.params["norm"]["scale"]}
            )
            assert list(kept) == ["0"]
        assert len(made) == 2
    finally:
        converted.keep(None)
