"""A stage may start from a part of a release; a run beside it has the same right to the name and
comes first.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from mdmspeech.cli.experiment import load_config, make_task, override
from mdmspeech.errors import UserError
from mdmspeech.interop.release import load_release
from mdmspeech.training.stages import start

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "part"), [("own_voice.py", "talker"), ("own_voice_codec.py", "codec")]
)
def test_own_voices_start_from_the_shipped_parts(experiment, part, tmp_path):
    config = load_config(str(ROOT / "experiments" / experiment))
    override(config, "data.parts=mine")
    assert config.data.parts == ("mine",)
    task = make_task(config, tmp_path / part)
    fresh = jax.jit(task.init)(jax.random.key(0))
    shipped = load_release("compact").part(part).params
    jax.tree.map(np.testing.assert_array_equal, task.warm_start(fresh), shipped)


@pytest.mark.slow
def test_the_ear_starts_from_whispers_decoder_or_from_the_shipped_part(tmp_path):
    config = load_config(str(ROOT / "experiments" / "compact_hearing.py"))
    shipped = load_release("compact").part("adaptor").params
    first = lambda tree: np.asarray(jax.tree.leaves(tree)[0], np.float32)
    fresh = jax.jit(make_task(config, tmp_path / "a").init)(jax.random.key(0))
    published = make_task(config, tmp_path / "a").warm_start(fresh)
    override(config, "init_from=compact")
    begun = make_task(config, tmp_path / "a").warm_start(fresh)
    jax.tree.map(np.testing.assert_array_equal, begun, shipped)
    # near it, as its training kept it, and not the same
    apart = lambda a, b: np.abs(first(a) - first(b)).mean()
    assert 0 < 10 * apart(published, begun) < apart(published, fresh)


def test_a_run_beside_it_comes_first(tmp_path, monkeypatch):
    config = load_config(str(ROOT / "experiments" / "own_voice.py"))
    (tmp_path / "compact" / "checkpoints").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(start, "load_params", lambda folder: asked.append(str(folder)) or {})
    task = make_task(config, tmp_path / "talker")
    task.warm_start({})
    assert asked == [str(tmp_path / "compact")]


def test_neither_a_run_nor_a_release(tmp_path):
    config = load_config(str(ROOT / "experiments" / "own_voice.py"))
    config.init_from = "nothing"
    with pytest.raises(
        UserError, match=r"hold no checkpoint: train that stage first.*no release 'nothing'"
    ):
        make_task(config, tmp_path / "talker").warm_start({})
