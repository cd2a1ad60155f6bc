"""`mdmspeech data --states --thinker DIR`, and a Talker that is trained on what it writes."""

import dataclasses

import jax
import numpy as np
import pytest
from random_params import random_params
from small_published import THINKER

from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.data.datasets import corpus
from mdmspeech.data.datasets.thinker_states import states_name
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.pipelines.random_source import RandomSpeech
from mdmspeech.errors import UserError
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.state import create_frozen

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def root(tmp_path_factory, published):
    folder, speech = tmp_path_factory.mktemp("corpus"), RandomSpeech(12, words=1.0)
    rows = [{**speech[i], "voice": "one"} for i in range(len(speech))]
    write_dataset(
        corpus.folder_of(folder, "tokens", "mine"),
        "tokens",
        {"train": rows[:8], "val": rows[8:]},
        about={"codec": "c"},
    )
    command = ["data", "--root", str(folder), "--states", "--parts", "mine"]
    assert main([*command, "--thinker", str(published / "thinker")]) == 0
    return folder


def experiment(published, states, **prompt):
    config = load_config("experiments/talker_8b.py:runlocal")
    config.data.update(parts=("mine",), states=states, batch=2)
    config.thinker = {**dataclasses.asdict(THINKER), "scan_layers": True}
    config.talker.text_dim = 2 * THINKER.dim
    for part in config.weights:
        config.weights[part] = str(published / "thinker")
    config.prompt.update(prompt)
    return config


@pytest.mark.slow
def test_it_learns_as_one_that_runs_the_thinker(root, published, tmp_path):
    """An utterance gets the same conditions, whatever stands beside it in its row."""
    losses = []
    for states in (True, False):
        config = experiment(
            published, states, system=load_config("experiments/talker_8b.py").prompt.system
        )
        config.data.update(length=2048, text=4096)
        task = make_task(config, tmp_path, root)
        frozen = create_frozen(task, make_mesh(data=1))
        assert set(frozen["thinker"]) == (
            {"embedding"} if states else {"embedding", "layers", "norm"}
        )
        batch = numbers_of(dict(next(iter(task.batches("train", 0)))))
        params = random_params(task.init, KEY)
        text = jax.jit(task._read)(frozen["thinker"], batch)
        cond = np.asarray(task.condition(params, batch, text)[0])
        losses.append((batch["tokens"], cond))
    (tokens, read), (again, run) = losses
    # blocks by their first tokens: rows are packed otherwise
    of = lambda tokens, cond: {
        tuple(tokens[0][at : at + 4].tolist()): cond[0][at : at + 4]
        for at in range(0, 2048, 16)
        if tokens[0][at] < 6561
    }
    read, run = of(tokens, read), of(again, run)
    both = read.keys() & run.keys()
    assert len(both) > 8
    for start in both:
        np.testing.assert_allclose(read[start], run[start], atol=5e-3 * np.abs(run[start]).max())


def test_another_thinker_or_prompt_is_refused(root, published, tmp_path):
    with pytest.raises(UserError, match="was made by other conversations"):
        make_task(experiment(published, True, system="Be brief."), tmp_path, root).batches(
            "train", 0
        )
    with pytest.raises(UserError, match=r"has no test records"):
        corpus.open_part(root, "states", states_name("mine"), "test")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--thinker", "x"], "--thinker goes with --states"),
        (["--states", "--system-text", "x"], "--system-text goes with --thinker"),
        (["--states", "--thinker", "/no/such/folder", "--parts", "mine"], "/no/such/folder"),
        (["--states", "--thinker", "PUBLISHED", "--parts", "yours"], "tokens/yours"),
    ],
)
def test_what_cannot_be_made(options, told, root, published, capsys):
    options = [str(published / "thinker") if o == "PUBLISHED" else o for o in options]
    assert main(["data", "--root", str(root), *options]) == 2
    assert told in capsys.readouterr().err
