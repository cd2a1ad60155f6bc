"""Training the adaptor: from speech to what the Thinker reads.

Mode "attention": a few layers of Whisper's decoder learn to write in our texts' style, and to end
where the speech ends. Mode "ctc": the spelling adaptor learns to write from nothing. In both the
Thinker takes no part, so a minute of speech costs what the adaptor costs, and the frozen speech
encoder's states were computed once. The paper's own stage 1, through the Thinker, is
`stages.thinker`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.models.ctc_adaptor import BLANK, CTCAdaptor, CTCConfig, text_to_ids
from mdmspeech.models.seq2seq_adaptor import Seq2SeqAdaptor, Seq2SeqConfig
from mdmspeech.nn import losses
from mdmspeech.training import distributed
from mdmspeech.training.optim import ParamRule
from mdmspeech.training.stages.shared import start_of
from mdmspeech.training.stages.stage import Exported, Loaders, Stage
from mdmspeech.training.stages.start import RANDOM
from mdmspeech.training.task import Task
from mdmspeech.training.warm_start import overwrite


class _StatesTask(Task):
    """What both share: batches of encoder states from `_pipeline(split, seed)`, counted in seconds
    of speech.
    """

    unit = "speech_s"
    _pipeline: Callable
    _sizes: dict[str, int]
    _span: int
    _spans: int
    config: Any

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def count(self, batch):
        return int(batch["states_valid"].sum() / 50)

    def batch_spec(self):
        """Of rows of 12 s, which few questions exceed."""
        rows, states, ids = (
            self._sizes["batch"],
            12 * 50,
            12 * self._sizes["ids_per_second"] + self._sizes["ids_more"],
        )
        of = lambda dtype, *shape: jax.ShapeDtypeStruct((rows, *shape), dtype)
        spec = {
            "states": of(jnp.float16, states, self.config.encoder_dim),
            "states_valid": of(jnp.bool_, states),
        }
        return spec | {"text": of(jnp.int32, ids), "text_valid": of(jnp.bool_, ids)}

    def _states(self, params, batch):
        """The states in the type that is computed in."""
        return batch["states"].astype(jax.tree.leaves(params)[0].dtype)

    def _hidden(self, states, rng):
        """The states with some spans of them zero, as training reads them."""
        return jnp.where(
            hide_spans(rng, states.shape[:2], self._span, self._spans)[..., None], 0.0, states
        )


class CTCTask(_StatesTask):
    """CTC on characters. Batches: states float16 [B, T, D], states_valid bool [B, T], text int32
    [B, N], text_valid bool [B, N].
    """

    name, held_out = "hearing_ctc", "val"
    weights = {"ctc": 1.0}

    def __init__(self, config: CTCConfig, pipeline, *, sizes=None, span: int = 16, spans: int = 2):
        self.config, self.model = config, CTCAdaptor(config)
        self._pipeline, self._sizes = pipeline, sizes or {}
        self._span, self._spans = span, spans

    def init(self, rng):
        return self.model.init(
            rng, jnp.zeros((1, 8, self.config.encoder_dim)), jnp.ones((1, 8), bool)
        )["params"]

    def loss(self, params, frozen, batch, rng, step):
        return self._ctc(params, batch, self._hidden(self._states(params, batch), rng))

    def held_out_loss(self, params, frozen, batch, rng, step):
        return self._ctc(params, batch, self._states(params, batch))

    def _ctc(self, params, batch, states):
        logits = self.model.apply({"params": params}, states, batch["states_valid"])
        padding = 1.0 - jnp.pad(
            batch["states_valid"], ((0, 0), (0, logits.shape[1] - states.shape[1]))
        ).astype(jnp.float32)
        text_padding = 1.0 - batch["text_valid"].astype(jnp.float32)
        nll = optax.ctc_loss(logits, padding, batch["text"], text_padding, blank_id=BLANK)
        # An utterance with more letters than states has no
        # alignment and a huge loss: it teaches nothing.
        letters = jnp.sum(batch["text_valid"], axis=1)
        possible = (letters < jnp.sum(batch["states_valid"], axis=1)) & (letters > 0)
        return {
            "ctc": (
                jnp.sum(jnp.where(possible, nll, 0.0)),
                jnp.sum(jnp.where(possible, letters, 0)).astype(jnp.float32),
            )
        }


def hide_spans(rng: jax.Array, shape: tuple[int, int], span: int, spans: int) -> jax.Array:
    """SpecAugment's time masks (Park et al. 2019): bool [B, T], up to `spans` stretches of up to
    `span` states a row.
    """
    batch, length = shape
    start_key, size_key = jax.random.split(rng)
    start = jax.random.randint(start_key, (batch, spans, 1), 0, length)
    size = jax.random.randint(size_key, (batch, spans, 1), 0, span + 1)
    place = jnp.arange(length)[None, None, :]
    return jnp.any((place >= start) & (place < start + size), axis=1)


class Seq2SeqTask(_StatesTask):
    """Next-piece cross-entropy of the seq2seq adaptor. Batches: states, states_valid as above; text
    int32 [B, N] (pieces, then the end), text_valid.

    Args:
      start: function () -> parameters of Whisper's decoder layers, see `interop.whisper_decoder`, or
        of what `config.init_from` names; None starts from nothing.
      teacher: likewise, of the decoder that is distilled, if `teacher_share` is not 0.
      teacher_share: so much of what a piece is to be is what the teacher expects there, the rest is
        the text (Hinton et al. 2015, arXiv 1503.02531). Where a text ends only the text says: a
        teacher that has heard 30 s, speech or silence, always does not stop after one of silence.
      freeze: patterns of parameters that stay as they are.
    """

    name, held_out = "hearing_attention", "val"

    def __init__(
        self,
        config: Seq2SeqConfig,
        pipeline,
        *,
        sizes=None,
        span: int = 16,
        spans: int = 2,
        start=None,
        teacher=None,
        teacher_share: float = 0.0,
        freeze: Sequence[str] = (),
    ):
        self.config, self.model = config, Seq2SeqAdaptor(config)
        self._teacher, self._teacher_share = teacher, teacher_share
        self.weights = {"text": 1.0} | ({"distillation": 1.0} if teacher_share else {})
        self.optimizer = (*(ParamRule(path, frozen=True) for path in freeze), ParamRule(".*"))
        self._pipeline, self._sizes, self._start = pipeline, sizes or {}, start
        self._span, self._spans = span, spans

    def init(self, rng):
        states, valid = jnp.zeros((1, 4, self.config.encoder_dim)), jnp.ones((1, 4), bool)
        return self.model.init(rng, states, valid, jnp.zeros((1, 2), jnp.int32))["params"]

    def warm_start(self, params):
        return params if self._start is None else overwrite(params, self._start())

    def init_frozen(self, rng):
        return {"teacher": self.init(rng)} if self._teacher_share else {}

    def load_frozen(self, abstract):
        return {"teacher": self._teacher()} if self._teacher_share else None

    def loss(self, params, frozen, batch, rng, step):
        clean = self._states(params, batch)
        logits, text, weight = self._logits(params, batch, self._hidden(clean, rng))
        share = jnp.where(text == self.config.end, 0.0, self._teacher_share)
        nats = losses.cross_entropy(logits, text)
        about = {
            "text": (jnp.sum(weight * (1 - share) * nats), jnp.sum(weight)),
            "accuracy": losses.accuracy(logits, text, weight),
        }
        if self._teacher_share:
            expected = self._logits(frozen["teacher"], batch, clean)[0]
            far = losses.divergence(jax.lax.stop_gradient(expected), logits)
            about["distillation"] = (jnp.sum(weight * share * far), jnp.sum(weight))
        return about

    def held_out_loss(self, params, frozen, batch, rng, step):
        logits, text, weight = self._logits(params, batch, self._states(params, batch))
        return {
            "text": losses.weighted_cross_entropy(logits, text, weight),
            "accuracy": losses.accuracy(logits, text, weight),
        }

    def _logits(self, params, batch, states):
        """Logits of the pieces and the end [B, N, V], those [B, N], and which are some, 1 or 0."""
        text = batch["text"]
        prompt = jnp.broadcast_to(
            jnp.array(self.config.prompt), (text.shape[0], len(self.config.prompt))
        )
        ids = jnp.concatenate([prompt, text[:, :-1]], axis=1)
        logits = self.model.apply({"params": params}, states, batch["states_valid"], ids)
        return (
            logits[:, len(self.config.prompt) - 1 :],
            text,
            batch["text_valid"].astype(jnp.float32),
        )


def from_config(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    """See `Stage.from_config`."""
    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.pipelines.bucketed_states import pieces_then, state_batches
    from mdmspeech.data.pipelines.random_source import RandomStates

    def batches(split: str, seed: int, **texts):
        random = tuple(config.data.get("parts", ())) == (RANDOM,)
        source: Any = (
            RandomStates(config.adaptor.encoder_dim, seed=seed)
            if random
            else corpus.states(root, "questions", split)
        )
        return state_batches(
            source, batch=config.data.batch, seed=seed, shard=distributed.share(), **texts
        )

    if config.mode == "ctc":
        texts: dict[str, Any] = dict(ids_per_second=24, ids_more=0)
        pipeline = partial(batches, encode_text=text_to_ids, **texts)
        return CTCTask(
            CTCConfig(**config.adaptor), pipeline, sizes=dict(batch=config.data.batch, **texts)
        )
    if config.mode != "attention":
        raise UserError(f"config.mode is {config.mode!r}: a hearing stage is 'attention' or 'ctc'")
    if "start_layers" not in config:
        raise UserError(
            "config.mode is 'attention', but the experiment has no 'start_layers': take one of "
            "that mode, experiments/compact_hearing.py"
        )

    model = Seq2SeqConfig(**config.adaptor)
    whisper = None
    if config.start_layers:
        if loaders.whisper_decoder is None:
            raise UserError(
                "config.start_layers names layers of Whisper's decoder, but this "
                "caller gave no function that loads them"
            )
        whisper = partial(loaders.whisper_decoder, model, tuple(config.start_layers))
    start = start_of(config, workdir, loaders)["start"] or whisper

    if whisper is None and config.training.get("teacher_share"):
        raise UserError(
            "config.training.teacher_share is not 0, but config.start_layers names no layers of "
            "Whisper's decoder to be the teacher: name them, or set training.teacher_share=0"
        )
    texts = dict(ids_per_second=5, ids_more=10)
    pipeline = partial(batches, encode_text=pieces_then(model.end), **texts)
    return Seq2SeqTask(
        model,
        pipeline,
        sizes=dict(batch=config.data.batch, **texts),
        start=start,
        teacher=whisper,
        **config.training,
    )


def tiny(config: ConfigDict) -> None:
    """See `Stage.tiny`."""
    if config.mode == "ctc":
        config.adaptor = dict(encoder_dim=64, dim=64, num_layers=1, stack=2, head_dim=32)
        return
    config.adaptor.update(encoder_dim=64, dim=64, num_layers=1, num_heads=2, ffn_dim=128)
    config.start_layers, config.training.teacher_share = (), 0.0


_KINDS = {"attention": "attention_adaptor", "ctc": "spelling_adaptor"}


def _export(run: Mapping[str, Any]) -> Exported:
    return Exported(_KINDS[run.get("mode", "ctc")], run["adaptor"], "adaptor")


STAGE = Stage(
    "hearing",
    ("adaptor", "mode", "data"),
    from_config,
    tiny,
    exports={"adaptor": _export},
    choices={"mode": tuple(_KINDS)},
)
