"""Weights in 8 bits: bounded error, small tensors untouched, and the scales of one tensor do not
leak into another.
"""

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.interop.int8 import from_int8, to_int8


def test_error_is_at_most_half_a_step():
    rng = np.random.default_rng(0)
    tensors = {
        "a/kernel": (rng.normal(size=(64, 96)) * np.geomspace(1e-3, 10, 96)).astype(np.float32),
        "table": (rng.normal(size=(96, 64)) * np.geomspace(1e-3, 10, 96)[:, None]).astype(
            np.float32
        ),
        "bias": rng.normal(size=96).astype(np.float32),
    }
    stored = to_int8(tensors)
    assert stored["a/kernel"].dtype == stored["table"].dtype == np.int8
    assert stored["a/kernel:scale"].shape == (1, 96) and stored["table:scale"].shape == (96, 1)
    back = from_int8(stored, "it")
    assert back.keys() == tensors.keys()
    for name in ("a/kernel", "table"):
        assert (np.abs(back[name] - tensors[name]) <= 0.5 * stored[name + ":scale"] * 1.001).all()
    np.testing.assert_array_equal(back["bias"], tensors["bias"])


def test_the_halves_of_a_lora_have_a_scale_a_rank():
    stored = to_int8({"x/lora_a": np.ones((576, 8)), "x/lora_b": np.ones((8, 576))})
    assert stored["x/lora_a:scale"].size == stored["x/lora_b:scale"].size == 8


def test_zeros_stay_zeros():
    back = from_int8(to_int8({"kernel": np.zeros((64, 64), np.float32)}), "it")
    assert (back["kernel"] == 0).all() and np.isfinite(back["kernel"]).all()


def test_lost_or_foreign_scales():
    stored = to_int8({"kernel": np.ones((64, 64), np.float32)})
    scale = stored.pop("kernel:scale")
    for wrong in ({}, {"kernel:scale": scale[0]}, {"kernel:scale": np.ones((3, 64), np.float32)}):
        with pytest.raises(UserError, match="it: the scales of kernel"):
            from_int8({**stored, **wrong}, "it")
