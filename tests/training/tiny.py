"""A real task small enough for tests: a two-layer network fits random labels' means, with dropout
noise and two loss parts.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.training import distributed
from mdmspeech.training.config import base
from mdmspeech.training.optim import ParamRule
from mdmspeech.training.task import Task


class Numbers:
    """Record n of the stream is a function of (seed, n); the position is n, of the global stream.
    Global batches have `size` records.
    """

    def __init__(
        self, seed: int, size: int, bad: int | None = None, shard: tuple[int, int] = (0, 1)
    ):
        self.seed, self.size, self.bad, self.shard, self.position = seed, size, bad, shard, 0

    def __iter__(self):
        return self

    def __next__(self):
        index, count = self.shard
        own = self.size // count
        ids = self.position + index * own + np.arange(own)
        self.position += self.size
        x = np.stack(
            [np.random.default_rng([self.seed, i]).normal(size=6).astype(np.float32) for i in ids]
        )
        if self.bad is not None and self.bad in ids:
            x[list(ids).index(self.bad)] = np.nan
        mask = (ids % 3 != 0).astype(np.float32)  # uneven over micro-batches
        return {
            "x": x,
            "y": x.sum(-1, keepdims=True),
            "mask": mask,
            "id": np.array([f"record-{i}" for i in ids]),
        }

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


class TinyTask(Task):
    """loss = masked squared error + 0.1 x size of the hidden layer; `noise` makes it depend on the
    step's key.
    """

    name = "tiny"
    weights = {"mse": 1.0, "size": lambda step: 0.1 / (1.0 + step)}
    optimizer = (ParamRule("in/.*"), ParamRule("out/kernel", lr=0.5), ParamRule("out/bias"))

    def __init__(self, size: int = 8, noise: float = 0.1, bad: int | None = None):
        self.size, self.noise, self.bad = size, noise, bad
        self.evaluations: list[int] = []

    def init(self, rng):
        a, b = jax.random.split(rng)
        return {
            "in": {"kernel": 0.3 * jax.random.normal(a, (6, 16)), "bias": jnp.zeros((16,))},
            "out": {"kernel": 0.3 * jax.random.normal(b, (16, 1)), "bias": jnp.zeros((1,))},
        }

    def init_frozen(self, rng):
        return {"shift": jnp.float32(0.5)}

    def loss(self, params, frozen, batch, rng, step):
        x = batch["x"] + self.noise * jax.random.normal(rng, batch["x"].shape)
        inner, outer = params["in"], params["out"]
        hidden = jnp.tanh(matmul(x, inner["kernel"]) + inner["bias"][None]) + frozen["shift"]
        out = matmul(hidden, outer["kernel"]) + outer["bias"][None]
        error = jnp.square(out - batch["y"])[:, 0]
        count = jnp.float32(hidden.size)
        return {
            "mse": ((error * batch["mask"]).sum(), batch["mask"].sum()),
            "size": (jnp.square(hidden).sum(), count),
        }

    def batches(self, split, seed):
        return Numbers(seed, self.size, self.bad, distributed.share())

    def evaluate(self, params, step, outdir: Path):
        self.evaluations.append(step)
        (outdir / "sample.txt").write_text("sample")
        return {"norm": float(jnp.abs(params["in"]["kernel"]).sum())}


def tiny_config(**train) -> ConfigDict:
    config = base()
    config.train.update(dict(steps=8, log_every=1, eval_every=4, save_every=2, keep=3) | train)
    config.optim.update(dict(lr=1e-2, warmup=2, ema=0.9))
    return config
