"""The S3 tokenizer v2: 16 kHz speech as 25 supervised semantic tokens a second (CosyVoice 2, Du et
al., 2024, arXiv 2412.10117, 3.1).

The lower half of a speech recogniser with finite scalar quantisation at its cut: log-mel at 100
frames a second -> two convolutions that each halve the rate -> six Transformer layers with rotary
positions and an FSMN memory beside the attention -> 8 digits of 3 levels -> an id of 6561.
`S3Network` is the network, `token_ids` makes ids of ragged batches, `s3_speech.S3Tokenizer` takes
waves.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from mdmspeech.codec import fsq
from mdmspeech.errors import UserError
from mdmspeech.nn.attention import attend
from mdmspeech.nn.mlp import GeluMLP
from mdmspeech.nn.rope import apply_rope, rope_frequencies, rope_table
from mdmspeech.speech_format import DIGITS, FRAME_RATE, TOKEN_RATE

FRAMES_PER_TOKEN = FRAME_RATE // TOKEN_RATE
_ROPE_THETA = 10_000.0
_ATTN_EPS, _MLP_EPS = 1e-6, 1e-5  # they do differ in the published model


@dataclasses.dataclass(frozen=True)
class S3Config:
    """Sizes of an S3 tokenizer; the defaults are the published one (123.7 M parameters).

    Attributes:
      memory: frames of the FSMN's filter, an odd number (31 tokens = 1.24 s).
    """

    num_mels: int = 128
    dim: int = 1280
    num_layers: int = 6
    num_heads: int = 20
    ffn_dim: int = 5120
    memory: int = 31


class FrontEnd(nn.Module):
    """Log-mel [B, T, num_mels] -> features [B, ceil(T / 4), D]."""

    dim: int

    @nn.compact
    def __call__(self, mel_BTM: jax.Array, frames_B: jax.Array) -> jax.Array:
        x = mel_BTM
        for name in ("conv1", "conv2"):
            # so that a row ends as it would alone: in the zeros of the padding
            x = x * length_mask(frames_B, x.shape[1])[:, :, None]
            x = nn.gelu(
                nn.Conv(self.dim, (3,), strides=2, padding=1, name=name)(x), approximate=False
            )
            frames_B = (frames_B + 1) // 2
        return x


class FSMNAttention(nn.Module):
    """Self-attention plus a memory: a depthwise filter over the values (Gao et al., 2020, arXiv
    2006.01713, "SAN-M").
    """

    num_heads: int
    memory: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, real_BL: jax.Array, rope: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        batch, length, dim = x_BLD.shape
        heads = (batch, length, self.num_heads, dim // self.num_heads)
        q_BLHD = apply_rope(nn.Dense(dim, name="q")(x_BLD).reshape(heads), *rope)
        k_BLHD = apply_rope(nn.Dense(dim, use_bias=False, name="k")(x_BLD).reshape(heads), *rope)
        v_BLD = nn.Dense(dim, name="v")(x_BLD)
        mask_BLL = jnp.broadcast_to(real_BL[:, None, :], (batch, length, length))
        attended_BLD = attend(q_BLHD, k_BLHD, v_BLD.reshape(heads), mask_BLL).reshape(x_BLD.shape)
        real_BL1 = real_BL[:, :, None]
        inputs_BLD = v_BLD * real_BL1
        filtered_BLD = nn.Conv(
            dim,
            (self.memory,),
            padding=self.memory // 2,
            feature_group_count=dim,
            use_bias=False,
            name="fsmn",
        )(inputs_BLD)
        return nn.Dense(dim, name="o")(attended_BLD) + (filtered_BLD + inputs_BLD) * real_BL1


class Layer(nn.Module):
    """Pre-norm attention with memory, then a GELU MLP."""

    config: S3Config

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, real_BL: jax.Array, rope: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        c = self.config
        normed_BLD = nn.LayerNorm(epsilon=_ATTN_EPS, name="attn_norm")(x_BLD)
        x_BLD = x_BLD + FSMNAttention(c.num_heads, c.memory, name="attn")(normed_BLD, real_BL, rope)
        return x_BLD + GeluMLP(c.ffn_dim, name="mlp")(
            nn.LayerNorm(epsilon=_MLP_EPS, name="mlp_norm")(x_BLD)
        )


class S3Network(nn.Module):
    """Log-mel features -> latents that quantise to tokens."""

    config: S3Config

    @nn.compact
    def __call__(self, mel_BTM: jax.Array, frames_B: jax.Array) -> jax.Array:
        """Log-mel [B, T, num_mels] (`audio.features.s3_log_mel`) -> latents before the bound and
        the rounding [B, ceil(T / 4), 8].

        Args:
          frames_B: int, real frames of each row. Padded frames influence nothing: a row equals
            itself encoded alone.

        Raises:
          UserError: another number of mel bins.
        """
        c = self.config
        if mel_BTM.shape[2] != c.num_mels:
            raise UserError(
                f"this S3 tokenizer takes {c.num_mels} mel bins, got "
                f"{mel_BTM.shape[2]}; compute the features for it"
            )
        x_BLD = FrontEnd(c.dim, name="front")(mel_BTM, frames_B)
        length = x_BLD.shape[1]
        real_BL = length_mask(token_count(frames_B), length)
        rope = rope_table(
            jnp.arange(length)[None, :], rope_frequencies(c.dim // c.num_heads, _ROPE_THETA)
        )
        for index in range(c.num_layers):
            x_BLD = Layer(c, name=f"layer_{index}")(x_BLD, real_BL, rope)
        return nn.Dense(DIGITS, name="latent")(x_BLD)  # no norm before it


def token_ids(config: S3Config, params: dict, mel_BTM: jax.Array, frames_B: jax.Array) -> jax.Array:
    """Token ids int32 [B, ceil(T / 4)] of log-mel features [B, T, num_mels]; 0 behind each row's
    `token_count`.

    Computed in full float32 on every machine: the fast matrix products of accelerators would round
    some latents to another token.
    """
    with jax.default_matmul_precision("highest"):
        latents_BL8 = S3Network(config).apply({"params": params}, mel_BTM, frames_B)
    ids_BL = fsq.codes_to_ids(fsq.quantise(latents_BL8))
    return jnp.where(length_mask(token_count(frames_B), ids_BL.shape[1]), ids_BL, 0)


def token_count(frames):
    """Tokens of so many log-mel frames (of an int, or of an array of them): ceil(frames / 4)."""
    return (frames + FRAMES_PER_TOKEN - 1) // FRAMES_PER_TOKEN


def length_mask(lengths_B: jax.Array, length: int) -> jax.Array:
    """bool [B, length], True for the first `lengths_B` of each row."""
    return jnp.arange(length)[None, :] < lengths_B[:, None]
