"""The codec learning a voice from the Talker's tokens: the crops bring them, the decoder reads
them, and what the encoder would have heard does not matter.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params
from small_codec import SMALL

from mdmspeech.data.pipelines.codec_crops import crop
from mdmspeech.training.stages.codec import CodecTask

CODEC = dataclasses.replace(SMALL, phones=128)
TOKENS, LENGTH = 24, 20


def record():
    rng = np.random.default_rng(0)
    return {
        "id": "a",
        "audio": (rng.normal(size=LENGTH * 960) * 3000).astype(np.int16),
        "symbols": [0, 5, 6, 0],
        "frames": [8, 8, 8, 8],
        "f0": [120] * (4 * LENGTH),
        "tokens": list(range(100, 100 + LENGTH)),
    }


def test_crops_bring_the_tokens_of_their_stretch():
    whole = crop(record(), None, TOKENS, 960, 128)
    assert whole["tokens"].tolist() == [*range(100, 100 + LENGTH), *[0] * (TOKENS - LENGTH)]
    part = crop(record(), np.random.default_rng(3), 8, 960, 128)
    first = int(part["tokens"][0]) - 100
    np.testing.assert_array_equal(part["audio"], record()["audio"][first * 960 : (first + 8) * 960])
    assert "tokens" not in crop(
        {k: v for k, v in record().items() if k != "tokens"}, None, 8, 960, 128
    )


@pytest.mark.slow
def test_the_encoder_takes_no_part():
    task = CodecTask(CODEC, "wave", None)
    params = random_params(task.init, jax.random.key(0))
    batch = {
        name: jnp.asarray(value)[None]
        for name, value in crop(record(), None, TOKENS, 960, 128).items()
        if name != "id"
    }

    def total(params, batch):
        losses = task.loss(params, {}, batch, jax.random.key(1), jnp.int32(0))
        return sum(
            task.weights[name] * n / d for name, (n, d) in losses.items() if name in task.weights
        )

    value = jax.jit(jax.value_and_grad(total))
    loss, gradient = value(params, batch)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient["encoder"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient["decoder"]))
    other, _ = value(params, {**batch, "tokens": batch["tokens"] * 7 % 6561})
    assert float(loss) != float(other)
