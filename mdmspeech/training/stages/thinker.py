"""Stage 1 as in the paper: the adaptor, and a low-rank update of the Thinker, learn to answer what
was said (VocalNet's recipe).

Source: docs/method.md, "Speech input" and "The Thinker".

    log-mel -> speech encoder (frozen) -> stack adaptor -> vectors in place of the prompt's speech
    placeholder -> Thinker -> cross-entropy on the answer

Rows are packed with several conversations; each is computed as if it were alone. Only the
assistant's turn is supervised, and the [B, L, V] logits are never held whole.

B batch, F mel frames (100 a second), U = F/10 speech vectors, L positions of the Thinker, D its
width, V its vocabulary.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.models import lora
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.nn import losses, masks
from mdmspeech.nn.partition import constrain
from mdmspeech.training import distributed
from mdmspeech.training.stages.shared import (
    chat_of,
    each_source,
    load_named,
    mixture,
    tiny_thinker,
)
from mdmspeech.training.stages.stage import Exported, Loaders, Stage
from mdmspeech.training.stages.start import RANDOM
from mdmspeech.training.task import Params, Task

STACK = 5  # encoder states a speech vector: 10 vectors a second
FRAMES_PER_VECTOR = 2 * STACK


class SpeechToTextTask(Task):
    """Stage 1.

    Args:
      thinker: with `lora_rank` > 0 its update is trained beside the adaptor; with 0 only the
        adaptor is.
      pipeline: function (split, seed) -> batches as `batch_spec` says, see
        `data.pipelines.conversations`.
      sizes: batch, length (L) and frames (F) of a batch.
      hidden_dim: width of the adaptor's hidden layer.
      load: part ("encoder", "thinker") -> (abstract parameters) -> parameters; None where random
        ones are wanted.
      chunk: positions whose logits are computed at a time.
    """

    name, unit, held_out = "speech_to_text", "tokens", "val"
    weights = {"loss": 1.0}
    rows_apart = True

    def __init__(
        self,
        encoder: SpeechEncoderConfig,
        thinker: ThinkerConfig,
        pipeline: Any,
        sizes: dict[str, int],
        *,
        hidden_dim: int = 2048,
        load: dict[str, Callable[[Params], Params] | None] | None = None,
        chunk: int = 128,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ):
        if sizes["frames"] % FRAMES_PER_VECTOR:
            raise UserError(
                f"data.frames is {sizes['frames']}: give a multiple of "
                f"{FRAMES_PER_VECTOR}, the frames of one speech vector"
            )
        self.encoder, self.thinker = SpeechEncoder(encoder), Thinker(thinker)
        self.adaptor = StackAdaptor(thinker.dim, STACK, hidden_dim)
        self._pipeline, self._sizes, self._load = pipeline, sizes, load or {}
        self._loss: dict[str, Any] = dict(
            chunk=chunk, label_smoothing=label_smoothing, z_loss=z_loss
        )

    # ---- Parameters -----------------------------------------------------------------------------

    def init(self, rng):
        adaptor_rng, thinker_rng = jax.random.split(rng)
        states = jnp.zeros((1, STACK, self.encoder.config.dim))
        params = {"adaptor": self.adaptor.init(adaptor_rng, states)["params"]}
        if self.thinker.config.lora_rank:
            params["lora"] = lora.split(self._fresh_thinker(thinker_rng))[1]
        return params

    def init_frozen(self, rng):
        mel = jnp.zeros((1, 4, self.encoder.config.num_mels))
        encoder = self.encoder.init(rng, mel)["params"]
        return {"encoder": encoder, "thinker": lora.split(self._fresh_thinker(rng))[0]}

    def load_frozen(self, abstract):
        if all(self._load.get(name) is None for name in abstract):
            return None
        fresh = lambda name: jax.jit(lambda key: self.init_frozen(key)[name])(jax.random.key(0))
        loaders = {name: self._load.get(name) for name in abstract}
        return {
            name: load(abstract[name]) if load else fresh(name) for name, load in loaders.items()
        }

    def _fresh_thinker(self, rng):
        return self.thinker.init(rng, jnp.zeros((1, 2), jnp.int32))["params"]

    # ---- Batches --------------------------------------------------------------------------------

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def count(self, batch):
        return int((batch["segment"] > 0).sum())

    def batch_spec(self):
        s = self._sizes
        of = lambda *shape, dtype=jnp.int32: jax.ShapeDtypeStruct((s["batch"], *shape), dtype)
        spec = {
            name: of(s["length"]) for name in ("ids", "segment", "position", "speech", "target")
        }
        spec |= {
            "weight": of(s["length"], dtype=jnp.float32),
            "mel": of(s["frames"], self.encoder.config.num_mels, dtype=jnp.float16),
        }
        return spec | {name: of(s["frames"]) for name in ("mel_segment", "mel_position")}

    # ---- Losses ---------------------------------------------------------------------------------

    def loss(self, params, frozen, batch, rng, step):
        """batch: see `batch_spec`. `segment` and `mel_segment` number the conversations of a row (0
        = padding); `speech` is the index of the speech vector at a position, -1 where `ids` has a
        token; `target` the id to predict there, where `weight` > 0.
        """
        vectors = self.hear(params["adaptor"], frozen["encoder"], batch)
        thinker = lora.combine(frozen["thinker"], params.get("lora", {}))
        apply = lambda method, *args: self.thinker.apply({"params": thinker}, *args, method=method)
        speech = batch["speech"]
        typed = apply("embed", batch["ids"])
        heard = jnp.take_along_axis(
            vectors.astype(typed.dtype), jnp.maximum(speech, 0)[..., None], axis=1
        )
        x = jnp.where((speech >= 0)[..., None], heard, typed)
        hidden, _ = apply(
            "states", x, batch["position"], masks.causal(x.shape[1], segment_BT=batch["segment"])
        )
        matrix_DV = apply("output_matrix")
        project = lambda part: constrain(
            jnp.matmul(part, matrix_DV, preferred_element_type=jnp.float32),
            "batch",
            "length",
            "vocab",
        )
        return losses.projected_cross_entropy(
            hidden, project, batch["target"], batch["weight"], **self._loss
        )

    def hear(self, adaptor, encoder, batch):
        """Speech vectors [B, U, D] of the packed log-mel."""
        dtype = jax.tree.leaves(encoder)[0].dtype
        segment, position = batch["mel_segment"], batch["mel_position"]
        states = self.encoder.apply(
            {"params": encoder},
            batch["mel"].astype(dtype),
            segment_BT=segment,
            position_BT=position,
        )
        # A last group of a conversation is completed with zeros,
        # as `StackAdaptor` does at the end of a row.
        states = jnp.where((segment[:, ::2] > 0)[..., None], jax.lax.stop_gradient(states), 0)
        return self.adaptor.apply({"params": adaptor}, states)


def from_config(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    """See `Stage.from_config`."""
    encoder, thinker = SpeechEncoderConfig(**config.encoder), ThinkerConfig(**config.thinker)
    load = {
        "encoder": load_named(config, "encoder", loaders.encoder, encoder),
        "thinker": load_named(config, "thinker", loaders.thinker, thinker),
    }
    sizes = {name: config.data[name] for name in ("batch", "length", "frames")}
    settings = {
        name: config[name]
        for name in ("hidden_dim", "chunk", "label_smoothing", "z_loss")
        if name in config
    }
    pipeline = partial(_conversations, root, loaders)
    task = SpeechToTextTask(
        encoder, thinker, partial(pipeline, config), sizes, load=load, **settings
    )
    task.sources = each_source(config, pipeline)
    return task


def _conversations(root, loaders: Loaders, config: ConfigDict, split: str, seed: int):
    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.pipelines import random_source, thinker_packed

    data = config.data

    def source(part: str):
        return (
            random_source.RandomQuestions(seed=seed)
            if part == RANDOM
            else corpus.questions(root, split, parts=(part,))
        )

    return thinker_packed.lm_batches(
        {part: source(part) for part in data.parts},
        chat_of(config, loaders),
        batch=data.batch,
        frames=data.frames,
        length=data.length,
        num_mels=config.encoder.num_mels,
        seed=seed,
        **mixture(data),
        augmented=data.get("augmented", 0.0),
        shard=distributed.share(),
        threads=data.threads,
    )


def tiny(config: ConfigDict) -> None:
    """See `Stage.tiny`."""
    tiny_thinker(config)
    config.encoder.update(dim=64, num_layers=2, num_heads=4, ffn_dim=128)
    config.hidden_dim = 64
    config.data.update(length=512, frames=1000, threads=1)


def _export(run: Mapping[str, Any]) -> Exported:
    """The adaptor; the update of the Thinker is `assemble`'s business."""
    sizes = dict(
        encoder_dim=run["encoder"]["dim"],
        out_dim=run["thinker"]["dim"],
        stack=STACK,
        hidden_dim=run["hidden_dim"],
    )
    return Exported("stack_adaptor", sizes, "encoder", lambda params: params["adaptor"])


STAGE = Stage(
    "thinker",
    ("encoder", "thinker", "weights", "prompt", "data"),
    from_config,
    tiny,
    exports={"adaptor": _export},
    updates_thinker=lambda run: bool(run["thinker"]["lora_rank"]),
)
