"""VocalNet's speech generator (arXiv 2504.04060): the autoregressive Talker, next-token (NTP) or
multi-token (MTP), that masked diffusion is compared with.

A projector (causal Llama layers) reads the Thinker's states; a causal Llama decoder runs over [bos,
text, sos, speech]; MTP modules, one layer with its own norm and output each, read the un-normed
states of the stage before, no embedding, and predict one token further each (docs/method.md,
"Autoregressive baselines"). The published architecture, weight for weight (`interop.vocalnet`);
decoding is in `models.vocalnet_decoding`, the loss in `training.multi_token_loss`.

B batch, N text states, E = D width, L speech positions (sos included), T = 1 + N + L positions of
the whole sequence, V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from mdmspeech.config_names import renamed_fields
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import lookup
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.stack import LayerStack
from mdmspeech.nn.transformer import LlamaBlock


@renamed_fields
@dataclasses.dataclass(frozen=True)
class VocalNetConfig:
    """Sizes; the defaults are VocalNet-1B's. Codes are ids 0 .. codes-1.

    Attributes:
      dim: of the Thinker's states and of every layer here; num_heads: of attention, as many for keys
        and values.
      projector_num_layers, num_layers, modules: of the projector, of the decoder, and how many MTP modules
        follow it (0 is plain NTP).
      text_group, speech_group: streaming brings text in groups of so many states, and each group
        brings so many speech tokens.
    """

    dim: int = 2048
    num_heads: int = 32
    ffn_dim: int = 8192
    projector_num_layers: int = 2
    num_layers: int = 4
    modules: int = 5
    vocab_size: int = 6565
    bos: int = 6561
    sos: int = 6562
    eos: int = 6563
    pad: int = 6564
    text_group: int = 5
    speech_group: int = 15
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


class DecoderStage(nn.Module):
    """Llama layers with a norm and an output of their own: the decoder is stage 0, MTP module k is
    stage k.
    """

    config: VocalNetConfig
    num_layers: int

    def setup(self):
        self.layers = _stack(self.config, self.num_layers)
        self.norm = RMSNorm(self.config.norm_eps)
        self.output = nn.Dense(self.config.vocab_size)

    def __call__(self, x_BTD, mask_BTS, rope, caches=None, write_at_B=None):
        """As `nn.stack.LayerStack`: (states [B, T, D] before the norm, which the next stage reads;
        the new caches or None).
        """
        return self.layers(x_BTD, mask_BTS, rope, caches, write_at_B)

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """States before the norm -> logits [B, T, V], float32."""
        return self.output(self.norm(x_BTD)).astype(jnp.float32)


class VocalNet(nn.Module):
    """The whole generator. `__call__` is the teacher-forced forward; decoding uses `embed`,
    `project`, `stage` and `logits`.
    """

    config: VocalNetConfig

    def setup(self):
        c = self.config
        self.embedding = nn.Embed(c.vocab_size, c.dim)
        self.projector = _stack(c, c.projector_num_layers)
        self.stages = [DecoderStage(c, c.num_layers if k == 0 else 1) for k in range(1 + c.modules)]

    def __call__(
        self,
        text_BNE: jax.Array,
        text_lens_B: jax.Array,
        speech_BL: jax.Array,
        speech_lens_B: jax.Array,
        streaming_B: jax.Array,
        padded_positions: bool | jax.Array = False,
    ) -> tuple[jax.Array, ...]:
        """The training forward: 1 + modules logits [B, L, V]; row p of entry k predicts speech
        token p + k.

        Args:
          text_BNE: the Thinker's states, right-padded. speech_BL: the speech tokens behind their
            sos, right-padded (the last one need not be read).
          text_lens_B, speech_lens_B: real states, and real positions of `speech_BL`, a row. Rows p
            of entry k with p + k >= speech_lens are meaningless.
          streaming_B: bool; see `masks`. The reference tosses a coin a row in training.
          padded_positions: count rotary positions over the padded layout, so that a row depends on
            its batch's longest text, as the reference trains; False: speech follows the row's own
            text, as in decoding.
        """
        length = text_BNE.shape[1]
        projected_BND, _ = self.project(
            text_BNE, jnp.arange(length)[None, :], jnp.tril(jnp.ones((1, length, length), bool))
        )
        bos_B1 = jnp.full((text_BNE.shape[0], 1), self.config.bos, jnp.int32)
        x_BTD = jnp.concatenate([self.embed(bos_B1), projected_BND, self.embed(speech_BL)], axis=1)
        text_at, speech_at = (
            jnp.arange(length + 1)[None, :],
            jnp.arange(speech_BL.shape[1])[None, :],
        )
        start_B1 = jnp.where(padded_positions, length, text_lens_B)[:, None] + 1
        positions_BT = jnp.concatenate(
            [jnp.broadcast_to(text_at, (len(text_BNE), length + 1)), start_B1 + speech_at], axis=1
        )
        found = []
        for k in range(1 + self.config.modules):
            mask_BTT = masks(
                self.config, k, length, speech_BL.shape[1], text_lens_B, speech_lens_B, streaming_B
            )
            x_BTD, _ = self.stage(k, x_BTD, positions_BT, mask_BTT)
            found.append(self.logits(k, x_BTD[:, length + 1 :]))
        return tuple(found)

    def embed(self, ids_BT: jax.Array) -> jax.Array:
        """Token ids -> [B, T, D]."""
        return lookup(self.embedding.embedding, ids_BT)

    def project(
        self, text_BTE, positions_BT, mask_BTS, caches=None, write_at_B=None
    ) -> tuple[jax.Array, Any]:
        """The Thinker's states -> the decoder's text [B, T, D], and the new caches."""
        return self.projector(text_BTE, mask_BTS, self._rope(positions_BT), caches, write_at_B)

    def stage(
        self, k: int, x_BTD, positions_BT, mask_BTS, caches=None, write_at_B=None
    ) -> tuple[jax.Array, Any]:
        """What stage k makes of the states of stage k - 1 (of embeddings, for 0): (states
        [B, T, D], the new caches).
        """
        return self.stages[k](x_BTD, mask_BTS, self._rope(positions_BT), caches, write_at_B)

    def logits(self, k: int, x_BTD: jax.Array) -> jax.Array:
        """States of stage k -> logits [B, T, V] of the token k + 1 places after each."""
        return self.stages[k].logits(x_BTD)

    def _rope(self, positions_BT):
        return rope_table(
            positions_BT, rope_frequencies(self.config.head_dim, self.config.rope_theta)
        )


def _stack(c: VocalNetConfig, num_layers: int) -> LayerStack:
    kwargs = FrozenDict(
        num_heads=c.num_heads,
        num_kv_heads=c.num_heads,
        head_dim=c.head_dim,
        ffn_dim=c.ffn_dim,
        norm_eps=c.norm_eps,
    )
    return LayerStack(LlamaBlock, kwargs, num_layers)


def masks(
    config: VocalNetConfig,
    k: int,
    text: int,
    speech: int,
    text_lens_B: jax.Array,
    speech_lens_B: jax.Array,
    streaming_B: jax.Array,
) -> jax.Array:
    """Who attends to whom in stage k of the training forward: bool [B, T, T], T = 1 + text +
    speech.

    Text never sees speech, speech is causal. Not streaming: text sees all text in both directions,
    and so does speech. Streaming: text is causal, and speech sees what has come in by then: group n
    (tokens 1 + n * speech_group .. (n + 1) * speech_group; sos belongs to group 0) the first (n +
    1) * text_group entries, bos included. A position of stage k sees the text of the position k
    ahead, whose token's successor it predicts.
    """
    text_at, speech_at = jnp.arange(text + 1), jnp.arange(speech)
    group = (jnp.maximum(speech_at + k, 1) - 1) // config.speech_group
    # the last text entry each position sees, streaming
    until = jnp.concatenate([text_at, (group + 1) * config.text_group - 1])
    until_BT = jnp.where(streaming_B[:, None], until[None, :], text)
    real_text_BI = text_at[None, :] <= text_lens_B[:, None]
    real_speech_BL = speech_at[None, :] < speech_lens_B[:, None] - k
    to_text = (text_at[None, None, :] <= until_BT[:, :, None]) & real_text_BI[:, None, :]
    earlier = speech_at[None, :] <= jnp.concatenate([jnp.full(text + 1, -1), speech_at])[:, None]
    to_speech = earlier[None] & real_speech_BL[:, None, :]
    real_BT = jnp.concatenate([real_text_BI, real_speech_BL], axis=1)
    return jnp.concatenate([to_text, to_speech], axis=2) & real_BT[:, :, None]
