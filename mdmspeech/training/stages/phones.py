"""Training the phone classifier, which aligns recordings with their text: cross-entropy on the
symbol spoken in each state of the speech encoder.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mdmspeech.data.pipelines.phone_stretches import STRETCH
from mdmspeech.models.phone_classifier import PhoneClassifier, PhoneClassifierConfig
from mdmspeech.nn import losses
from mdmspeech.training.stages.stage import Exported, Loaders, Stage
from mdmspeech.training.stages.start import RANDOM
from mdmspeech.training.task import Task


class PhonesTask(Task):
    """Batches: states float16 [B, T, D], symbols int32 [B, T], see `data.pipelines.phone_stretches`."""

    name, unit, held_out = "phones", "states", "val"
    weights = {"symbol": 1.0}

    def __init__(self, config: PhoneClassifierConfig, pipeline, batch: int = 1):
        self.config, self.model, self._pipeline, self._batch = (
            config,
            PhoneClassifier(config),
            pipeline,
            batch,
        )

    def init(self, rng):
        return self.model.init(rng, jnp.zeros((1, 4, self.config.encoder_dim)))["params"]

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def batch_spec(self):
        shape = (self._batch, STRETCH)
        return {
            "states": jax.ShapeDtypeStruct((*shape, self.config.encoder_dim), jnp.float16),
            "symbols": jax.ShapeDtypeStruct(shape, jnp.int32),
        }

    def count(self, batch):
        return int(batch["symbols"].size)

    def loss(self, params, frozen, batch, rng, step):
        return self._losses(params, batch, deterministic=False, rngs={"dropout": rng})

    def held_out_loss(self, params, frozen, batch, rng, step):
        return self._losses(params, batch)

    def _losses(self, params, batch, **dropout):
        states = batch["states"].astype(jnp.float32)
        logits = self.model.apply({"params": params}, states, **dropout)
        weight = jnp.ones(batch["symbols"].shape, jnp.float32)
        return {
            "symbol": losses.weighted_cross_entropy(logits, batch["symbols"], weight),
            "accuracy": losses.accuracy(logits, batch["symbols"], weight),
        }


def from_config(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    """See `Stage.from_config`."""
    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.pipelines.phone_stretches import NAME, RandomStretches, phone_batches

    model, data = PhoneClassifierConfig(**config.aligner), config.data

    def batches(split: str, seed: int):
        source = (
            RandomStretches(model.encoder_dim, model.symbols)
            if RANDOM in data.parts
            else corpus.states(root, NAME, split)
        )
        return phone_batches(source, split, data.batch, seed)

    return PhonesTask(model, batches, data.batch)


def tiny(config: ConfigDict) -> None:
    """See `Stage.tiny`."""
    config.aligner.update(encoder_dim=64, dim=32)


STAGE = Stage(
    "phones",
    ("aligner", "data"),
    from_config,
    tiny,
    exports={"aligner": lambda run: Exported("phone_reader", run["aligner"], "aligner")},
)
