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


def test_tables_in_6_bits():
    """Each value within half a step of its 64 neighbours' scale, and every step of the 63 used."""
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(40, 256)) * np.geomspace(1e-3, 10, 40)[:, None]).astype(np.float32)
    table[0, :64] = 0
    table[1, :63] = 31 - np.arange(63)
    table[1, 63] = 0
    kernel, odd = np.ones((64, 64), np.float32), np.ones((80, 60), np.float32)
    stored = to_int8({"embedding": table, "kernel": kernel, "odd": odd}, tables_in_6=True)
    assert stored["embedding"].dtype == np.uint8 and stored["embedding"].shape == (40, 192)
    assert stored["embedding:scale"].dtype == np.float16
    assert stored["kernel"].dtype == stored["odd"].dtype == np.int8
    back = from_int8(stored, "it")
    largest = np.abs(table.reshape(40, 4, 64)).max(axis=2)
    step = np.repeat(largest / 31, 64, axis=1)
    # scales are stored in 16 bits, 1/2048 of them off, and of so small values 6e-8 / 2
    assert (np.abs(back["embedding"] - table) <= 0.52 * step + 31 * 3e-8).all()
    np.testing.assert_array_equal(back["embedding"][1, :64], table[1, :64])
    assert (back["embedding"][0, :64] == 0).all()
    for wrong in (None, stored["embedding:scale"][:, :3], stored["embedding:scale"][:39]):
        lost = {"embedding": stored["embedding"]} | (
            {} if wrong is None else {"embedding:scale": wrong}
        )
        with pytest.raises(UserError, match=r"it: the scales of embedding, .* in 6 bits"):
            from_int8(lost, "it")


def test_zeros_stay_zeros():
    back = from_int8(to_int8({"kernel": np.zeros((64, 64), np.float32)}), "it")
    assert (back["kernel"] == 0).all() and np.isfinite(back["kernel"]).all()


def test_lost_or_foreign_scales():
    stored = to_int8({"kernel": np.ones((64, 64), np.float32)})
    scale = stored.pop("kernel:scale")
    for wrong in ({}, {"kernel:scale": scale[0]}, {"kernel:scale": np.ones((3, 64), np.float32)}):
        with pytest.raises(UserError, match="it: the scales of kernel"):
            from_int8({**stored, **wrong}, "it")
