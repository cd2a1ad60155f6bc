"""Training the adaptor: from speech to what the Thinker reads.

Mode "attention": a few layers of Whisper's decoder learn to write in our texts' style, and to end where the speech ends. Mode "ctc": the spelling adaptor
learns to write from nothing. In both the Thinker takes no part, so a minute of speech costs what the adaptor costs. Mode "lm": the paper's stage 1, the stack adaptor's vectors replace the speech placeholder of the chat prompt and the frozen Thinker's cross-entropy on the answer
is back-propagated through it (method.md section 3). In all the speech encoder is frozen and its states were computed once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mdmspeech.diffusion import objective
from mdmspeech.models.attention_adaptor import AttentionAdaptor, AttentionConfig
from mdmspeech.models.spelling_adaptor import BLANK, SpellingAdaptor, SpellingConfig
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.training.task import Task
from mdmspeech.training.warm_start import overwrite


class _StatesTask(Task):
    """What all three share: batches of encoder states from `_pipeline(split, seed)`, counted in seconds of speech."""

    unit = "speech_s"
    _pipeline: Callable

    def batches(self, split, seed):
        return self._pipeline(split, seed)

    def count(self, batch):
        return int(batch["states_valid"].sum() / 50)


class SpellingTask(_StatesTask):
    """CTC on characters. Batches: states float16 [B, T, D], states_valid bool [B, T], text int32 [B, N], text_valid bool [B, N]."""

    name, held_out = "hearing_ctc", "val"
    weights = {"ctc": 1.0}

    def __init__(self, config: SpellingConfig, pipeline, *, span: int = 16, spans: int = 2):
        self.config, self.model = config, SpellingAdaptor(config)
        self._pipeline = pipeline
        self._span, self._spans = span, spans

    def init(self, rng):
        return self.model.init(rng, jnp.zeros((1, 8, self.config.states)), jnp.ones((1, 8), bool))["params"]

    def loss(self, params, frozen, batch, rng, step):
        states = batch["states"].astype(jnp.float32)
        hidden = hide_spans(rng, states.shape[:2], self._span, self._spans)
        logits = self.model.apply({"params": params}, jnp.where(hidden[..., None], 0.0, states), batch["states_valid"])
        padding = 1.0 - jnp.pad(batch["states_valid"], ((0, 0), (0, logits.shape[1] - states.shape[1]))).astype(jnp.float32)
        text_padding = 1.0 - batch["text_valid"].astype(jnp.float32)
        nll = optax.ctc_loss(logits, padding, batch["text"], text_padding, blank_id=BLANK)
        # An utterance with more letters than states has no alignment and a huge loss: it teaches nothing.
        letters = jnp.sum(batch["text_valid"], axis=1)
        possible = (letters < jnp.sum(batch["states_valid"], axis=1)) & (letters > 0)
        return {"ctc": (jnp.sum(jnp.where(possible, nll, 0.0)), jnp.sum(jnp.where(possible, letters, 0)).astype(jnp.float32))}


def hide_spans(rng: jax.Array, shape: tuple[int, int], span: int, spans: int) -> jax.Array:
    """SpecAugment's time masks (Park et al. 2019): bool [B, T], up to `spans` stretches of up to `span` states a row."""
    batch, length = shape
    start_key, size_key = jax.random.split(rng)
    start = jax.random.randint(start_key, (batch, spans, 1), 0, length)
    size = jax.random.randint(size_key, (batch, spans, 1), 0, span + 1)
    place = jnp.arange(length)[None, None, :]
    return jnp.any((place >= start) & (place < start + size), axis=1)


class WritingTask(_StatesTask):
    """Next-piece cross-entropy of the attention adaptor. Batches: states, states_valid as above; text int32 [B, N] (pieces, then the end), text_valid.

    start: function () -> parameters of Whisper's decoder layers, see `interop.whisper_decoder`; None starts from nothing.
    """

    name, held_out = "hearing_attention", "val"
    weights = {"text": 1.0}

    def __init__(self, config: AttentionConfig, pipeline, *, span: int = 16, spans: int = 2, start=None):
        self.config, self.model = config, AttentionAdaptor(config)
        self._pipeline, self._start = pipeline, start
        self._span, self._spans = span, spans

    def init(self, rng):
        states = jnp.zeros((1, 4, self.config.states))
        return self.model.init(rng, states, jnp.ones((1, 4), bool), jnp.zeros((1, 2), jnp.int32))["params"]

    def warm_start(self, params):
        return params if self._start is None else overwrite(params, self._start())

    def loss(self, params, frozen, batch, rng, step):
        states = batch["states"].astype(jnp.float32)
        hidden = hide_spans(rng, states.shape[:2], self._span, self._spans)
        text = batch["text"]
        prompt = jnp.broadcast_to(jnp.array(self.config.prompt), (text.shape[0], len(self.config.prompt)))
        ids = jnp.concatenate([prompt, text[:, :-1]], axis=1)
        states = jnp.where(hidden[..., None], 0.0, states)
        logits = self.model.apply({"params": params}, states, batch["states_valid"], ids)
        logits = logits[:, len(self.config.prompt) - 1 :]
        weight = batch["text_valid"].astype(jnp.float32)
        return {
            "text": objective.masked_cross_entropy(logits, text, weight),
            "accuracy": objective.accuracy(logits, text, weight),
        }


class ThroughThinkerTask(_StatesTask):
    """The paper's stage 1 without LoRA: stack adaptor -> frozen Thinker -> cross-entropy on the assistant's turn.

    Batches: states, states_valid as above; before int32 [P] and after int32 [Q] (the chat prompt around the placeholder, equal for all), answer int32
    [B, N], answer_valid bool [B, N] (the end token included). `embed` and `forward` are the Thinker's functions over `frozen["thinker"]`.
    """

    name = "hearing_lm"
    weights = {"answer": 1.0}

    def __init__(self, adaptor: StackAdaptor, states: int, thinker_params, embed, forward, prompt, pipeline):
        self.model, self._states, self._embed, self._forward = adaptor, states, embed, forward
        self.frozen = {"thinker": thinker_params}
        self._before, self._after = prompt
        self._pipeline = pipeline

    def init(self, rng):
        return self.model.init(rng, jnp.zeros((1, 10, self._states)))["params"]

    def loss(self, params, frozen, batch, rng, step):
        thinker, rows = frozen["thinker"], batch["states"].shape[0]
        states = batch["states"].astype(jnp.float32) * batch["states_valid"][..., None]
        vectors = self.model.apply({"params": params}, states)
        count_B = jnp.asarray(self.model.num_vectors(jnp.sum(batch["states_valid"], axis=1)))
        heard = count_B[:, None] > jnp.arange(vectors.shape[1])[None]

        def typed(ids):
            embedded = self._embed(thinker, jnp.asarray(ids))
            return jnp.broadcast_to(embedded[None], (rows, *embedded.shape)), jnp.ones((rows, len(ids)), bool)

        before, after = typed(self._before), typed(self._after)
        parts = [before, (vectors, heard), after, (self._embed(thinker, batch["answer"]), batch["answer_valid"])]
        embedded = jnp.concatenate([vector for vector, _ in parts], axis=1)
        valid = jnp.concatenate([mask for _, mask in parts], axis=1)
        logits = self._forward(thinker, embedded, valid)[:, -batch["answer"].shape[1] - 1 : -1]
        weight = batch["answer_valid"].astype(jnp.float32)
        return {
            "answer": objective.masked_cross_entropy(logits, batch["answer"], weight),
            "accuracy": objective.accuracy(logits, batch["answer"], weight),
        }
