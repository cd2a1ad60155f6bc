"""The speech encoder: Whisper's (Radford et al., 2022, arXiv 2212.04356), frozen in every system of
ours.

Log-mel at 100 frames a second -> two convolutions (the second halves the rate) -> sinusoid
positions -> pre-norm Transformer -> states at 50 a second. Whisper pads all speech to 30 s; here
any shorter length is encoded as it is, by slicing the table of positions, and rows of a bucketed
batch can be masked so that each equals itself encoded alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from mdmspeech.audio.features import whisper_log_mel
from mdmspeech.errors import UserError
from mdmspeech.nn.attention import Attention
from mdmspeech.nn.masks import Mask, full
from mdmspeech.nn.mlp import GeluMLP
from mdmspeech.nn.partition import constrain
from mdmspeech.nn.stack import LayerStack
from mdmspeech.speech_format import INPUT_RATE, WHISPER_HOP

_NORM_EPS = 1e-5
TAIL = 1.0  # seconds of silence after each wave, see `encode_waves`


@dataclasses.dataclass(frozen=True)
class SpeechEncoderConfig:
    """Sizes of a Whisper encoder; the defaults are Whisper-base (20.6 M parameters).

    Attributes:
      max_positions: longest output, at 50 states a second (1500 = 30 s).
      scan_layers: see `nn.stack`.
    """

    num_mels: int = 80
    dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    max_positions: int = 1500
    scan_layers: bool = False


WHISPER_BASE = SpeechEncoderConfig()
WHISPER_LARGE_V3 = SpeechEncoderConfig(
    num_mels=128, dim=1280, num_layers=32, num_heads=20, ffn_dim=5120, scan_layers=True
)


class EncoderLayer(nn.Module):
    """Pre-norm attention in both directions + GELU MLP, with Whisper's biases (none on k). Called
    like every stacked layer.
    """

    num_heads: int
    ffn_dim: int

    @nn.compact
    def __call__(self, x_BTD, mask_BTS, rope=None, cache=None, write_at_B=None):
        head_dim = x_BTD.shape[-1] // self.num_heads
        attention = Attention(
            self.num_heads,
            self.num_heads,
            head_dim,
            qkv_bias=True,
            k_bias=False,
            out_bias=True,
            name="attn",
        )
        attended_BTD, _ = attention(
            nn.LayerNorm(epsilon=_NORM_EPS, name="attn_norm")(x_BTD), mask_BTS
        )
        x_BTD = constrain(x_BTD + attended_BTD, "batch", "length", "width")
        normed_BTD = nn.LayerNorm(epsilon=_NORM_EPS, name="mlp_norm")(x_BTD)
        return constrain(
            x_BTD + GeluMLP(self.ffn_dim, name="mlp")(normed_BTD), "batch", "length", "width"
        ), None


class SpeechEncoder(nn.Module):
    """Log-mel frames -> speech states."""

    config: SpeechEncoderConfig

    @nn.compact
    def __call__(
        self,
        mel_BTM: jax.Array,
        frame_mask_BT: jax.Array | None = None,
        *,
        segment_BT: jax.Array | None = None,
        position_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Encodes log-mel features [B, T, num_mels] (100 a second) to states [B, ceil(T/2), D] (50
        a second).

        Args:
          frame_mask_BT: bool, True = real frame, or None if all are. Padded frames influence
            nothing: a masked row equals the row encoded alone. (Whisper itself does attend to its
            padding: give None and pad the wave to 30 s to have that.)
          segment_BT, position_BT: int32, for rows packed with several utterances: which one a frame
            belongs to (from 1; 0 = padding) and the frame's index in it. Utterances start at even
            frames and at least 2 frames of padding follow each, so that no convolution reaches
            across: then each equals itself encoded alone. Instead of frame_mask_BT.

        Raises:
          UserError: more frames than the model has positions for, or another number of mel bins.
        """
        config = self.config
        length = (mel_BTM.shape[1] + 1) // 2
        if position_BT is None and length > config.max_positions:
            raise UserError(
                f"speech of {mel_BTM.shape[1] / 100:g} s is too long for this "
                f"encoder, the limit is {config.max_positions / 50:g} s"
            )
        if mel_BTM.shape[2] != config.num_mels:
            raise UserError(
                f"this encoder takes {config.num_mels} mel bins, got "
                f"{mel_BTM.shape[2]}; compute the features for it"
            )
        if segment_BT is not None:
            frame_mask_BT = segment_BT > 0
        frames_BT1 = (
            None if frame_mask_BT is None else frame_mask_BT[:, :, None].astype(mel_BTM.dtype)
        )
        x_BTM = mel_BTM if frames_BT1 is None else mel_BTM * frames_BT1
        x_BTD = nn.gelu(
            nn.Conv(config.dim, (3,), padding=1, name="conv1")(x_BTM), approximate=False
        )
        x_BTD = x_BTD if frames_BT1 is None else x_BTD * frames_BT1
        x_BTD = nn.gelu(
            nn.Conv(config.dim, (3,), strides=2, padding=1, name="conv2")(x_BTD), approximate=False
        )
        table_PD = self.param("positions", _sinusoid_init, (config.max_positions, config.dim))
        table_BTD = (
            table_PD[None, :length] if position_BT is None else table_PD[position_BT[:, ::2] // 2]
        )
        x_BTD = constrain(x_BTD + table_BTD.astype(x_BTD.dtype), "batch", "length", "width")
        layer_kwargs = FrozenDict(num_heads=config.num_heads, ffn_dim=config.ffn_dim)
        layers = LayerStack(
            EncoderLayer, layer_kwargs, config.num_layers, config.scan_layers, name="layers"
        )
        x_BTD, _ = layers(x_BTD, _who_hears_whom(length, frame_mask_BT, segment_BT))
        return nn.LayerNorm(epsilon=_NORM_EPS, name="norm")(x_BTD)


def _who_hears_whom(
    length: int, frame_mask_BT: jax.Array | None, segment_BT: jax.Array | None
) -> Mask:
    if segment_BT is not None:
        return full(length, segment_BT[:, ::2])
    mask_BTS = jnp.ones((1, length, length), bool)
    return mask_BTS if frame_mask_BT is None else mask_BTS & frame_mask_BT[:, None, ::2]


def encode_waves(
    encoder: SpeechEncoder, params, waves_BN: jax.Array, samples_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """16 kHz waves, padded with zeros, and their lengths -> (states [B, T, D], bool [B, T]: which
    of them are real).

    `TAIL` seconds of silence (less if the positions do not suffice) are heard after each wave.
    Whisper has only heard speech that silence follows, up to 30 s, and its decoder reads from it
    where a text ends: without any it never stops. One second is enough for one that is trained so,
    and costs little.
    """
    length = waves_BN.shape[1]
    most = encoder.config.max_positions * 2 * WHISPER_HOP
    padded = max(min(length + int(TAIL * INPUT_RATE), most), length)
    mel_BTM = whisper_log_mel(
        jnp.pad(waves_BN, ((0, 0), (0, padded - length))), encoder.config.num_mels
    )
    heard_B = jnp.minimum(samples_B + int(TAIL * INPUT_RATE), padded)
    frames_BT = frame_mask(-(-heard_B // WHISPER_HOP), mel_BTM.shape[1]) & (samples_B > 0)[:, None]
    return encoder.apply({"params": params}, mel_BTM, frames_BT), frames_BT[:, ::2]


def frame_mask(num_frames_B: jax.Array, length: int) -> jax.Array:
    """bool [B, length], True for the first `num_frames_B` frames of each row."""
    return jnp.arange(length)[None, :] < num_frames_B[:, None]


def sinusoids(length: int, dim: int) -> np.ndarray:
    """Whisper's position table [length, dim]: sines then cosines, wavelengths from 2 pi to 10000 *
    2 pi.
    """
    rates = np.exp(-np.log(10000.0) / (dim // 2 - 1) * np.arange(dim // 2))
    angles = np.arange(length)[:, None] * rates[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _sinusoid_init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    del key  # the table is fixed
    return jnp.asarray(sinusoids(*shape))
