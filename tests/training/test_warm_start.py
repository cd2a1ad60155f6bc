"""A stage that starts from an earlier one's checkpoint."""

import jax
import numpy as np
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training.loop import run
from mdmspeech.training.warm_start import load_params, overwrite


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_newest_parameters_come_back_averaged_if_there_is_an_average(tmp_path, ema):
    config = tiny_config(steps=4)
    config.optim.ema = ema
    state = run(config, TinyTask(), tmp_path)
    loaded = load_params(tmp_path)
    expected = state.ema if ema else state.params
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_params(tmp_path)


def test_what_the_earlier_stage_lacks_stays_fresh_and_shapes_must_agree():
    fresh = {"old": {"kernel": np.zeros((2, 2))}, "new": {"bias": np.full(3, 7.0)}}
    merged = overwrite(fresh, {"old": {"kernel": np.ones((2, 2))}})
    assert float(merged["old"]["kernel"].sum()) == 4.0 and float(merged["new"]["bias"].sum()) == 21.0
    with pytest.raises(UserError, match="/old/kernel has shape"):
        overwrite(fresh, {"old": {"kernel": np.ones((2, 3))}})
