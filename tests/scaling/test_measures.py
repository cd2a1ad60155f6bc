"""C, N and D of a run, and its loss under fixed masks."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.data.pipelines.random_source import RandomSpeech
from mdmspeech.data.pipelines.some_tokens import some
from mdmspeech.errors import UserError
from mdmspeech.scaling import measures
from mdmspeech.speech_format import VOCAB

LADDER = Path(__file__).parents[2] / "experiments" / "ladder.py"


def ladder(settings):
    config = load_config(f"{LADDER}:part=random,{settings}")
    return config, make_task(config, Path("none"))


@pytest.mark.parametrize(("width", "layers"), [(256, 4), (512, 4), (512, 8), (64, 2)])
def test_parameters_by_hand(width, layers):
    config, task = ladder(f"width={width},layers={layers}")
    found = measures.parameters(task)
    assert found["total"] - found["non_embedding"] == (2 * (VOCAB + 44) + 180) * width
    _, deeper = ladder(f"width={width},layers={layers + 1}")
    head = config.talker.dim // config.talker.num_heads
    layer = 4 * width**2 + 3 * width * 4 * width + 2 * width + 2 * head
    assert measures.parameters(deeper)["non_embedding"] - found["non_embedding"] == layer


def test_flops_by_hand():
    """A layer more: 6 a weight and position, and attention of 256 positions to 256."""
    costs = []
    for layers in (2, 3):
        config, task = ladder(f"width=256,layers={layers},batch=2")
        costs.append(measures.flops_of_step(task, config))
    positions = 2 * 256
    layer = 6 * 16 * 256**2 * positions + 12 * 256 * 256 * positions
    assert costs[1] - costs[0] == pytest.approx(layer, rel=1e-3)


@pytest.mark.parametrize(
    ("shares", "steps", "padding"),
    [
        ({20: 0.1, 40: 0.3}, 40, 0.2),
        ({1: 0.4, 10: 0.3, 30: 0.1}, 30, (0.4 + 9 * 0.3 + 20 * 0.1) / 30),
        ({1: 0.5}, 12, 0.5),
        ({}, 12, 0.0),
        ({10: 0.0, 20: 0.0}, 25, 0.0),
    ],
)
def test_tokens_are_positions_without_padding(shares, steps, padding):
    config, _ = ladder("batch=4")
    rows = [{"step": 5, "eval/loss": 1.0}]
    rows += [{"step": step, "train/padding": share} for step, share in shares.items()]
    seen = measures.tokens_seen(config, rows, steps)
    assert seen == round(steps * 4 * 256 * (1 - padding))


def test_unique_tokens_are_those_of_the_records_that_may_be_read():
    config, _ = ladder("batch=4")
    whole = measures.unique_tokens(config, None)
    assert whole == RandomSpeech(seed=0).counts("tokens").sum()
    config.data.unique = 10_000
    assert 10_000 <= measures.unique_tokens(config, None) < 10_300
    config.data.unique = whole + 1
    with pytest.raises(UserError, match=f"hold {whole}"):
        measures.unique_tokens(config, None)


@pytest.mark.parametrize("seed", [0, 3])
def test_some_tokens_are_records_drawn_at_random_and_less_is_a_part_of_more(seed):
    source = RandomSpeech(200)
    few, many = some(source, 2000, seed), some(source, 9000, seed)
    names = [[part[i]["id"] for i in range(len(part))] for part in (few, many)]
    assert names[1][: len(few)] == names[0] and len(set(names[1])) == len(many)
    assert names[0] != [f"random-{i}" for i in range(len(few))]
    assert [len(few[i]["tokens"]) for i in range(len(few))] == few.counts("tokens").tolist()
    assert few.counts("tokens")[:-1].sum() < 2000 <= few.counts("tokens").sum()


def test_a_limit_is_of_training_alone():
    _, task = ladder("batch=2,unique=4000")
    ids = {
        split: {i for _, batch in zip(range(80), task.batches(split, 0), strict=False)
                for row in batch["id"] for i in str(row).split(",")}
        for split in ("train", "val")
    }  # fmt: skip
    assert len(ids["train"]) < 80 < len(ids["val"])


def test_packed_rows_have_no_limit():
    config, _ = ladder("batch=2,unique=4000")
    config.data.layout = "packed"
    with pytest.raises(UserError, match=r"data\.unique goes with"):
        make_task(config, Path("none")).batches("train", 0)


@pytest.mark.slow
def test_a_model_that_knows_nothing_has_the_logarithm_of_the_vocabulary():
    config, _ = ladder("width=64,layers=1")
    config.talker.symbol_lookahead = (1,)
    config.data.update(length=64, symbols=64)
    zeros = jax.tree.map(
        lambda s: np.zeros(s.shape, np.float32),
        jax.eval_shape(make_task(config, Path("none")).init, jax.random.key(0)),
    )
    found = measures.fixed_mask_nats(
        config, zeros, lambda c: make_task(c, Path("none")), rates=(0.5,), batches=2
    )
    assert found == pytest.approx({"0.5": math.log(VOCAB), "mean": math.log(VOCAB)}, rel=1e-5)
    assert config.masking.low == 0.3 and jnp.isfinite(found["mean"])  # the config is left as it was
