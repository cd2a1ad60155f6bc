"""Encoder and decoder of the compact codec: local-window transformers at the token rate.

Working at 25 Hz on stacked frames makes nearly all of the arithmetic dense matrix products, on
which a CPU is as good as it gets. The decoder predicts what a source-filter synthesiser needs
(log-mel, log-F0, voicing, spectral detail); `synthesis.py` turns that into samples.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio.mel import mel_frequencies
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.transformer import LlamaBlock
from mdmspeech.speech_format import DIGITS

_SEMANTIC_HIDDEN = 512
F0_CENTRE = 5.3  # log of about 200 Hz: the predicted log-F0 is an offset from here


@flax.struct.dataclass
class Acoustics:
    """What one utterance sounds like, frame by frame (T = 4 frames a token, 10 ms each)."""

    mel_BTM: jax.Array  # normalised log-mel
    log_f0_BT: jax.Array  # continuous through unvoiced stretches
    # log-F0 minus F0_CENTRE: the same number, not rounded to the digits that the centre leaves (for
    # the source)
    pitch_BT: jax.Array
    voicing_BT: jax.Array  # logit
    hidden_BTC: jax.Array  # the decoder's own frame features, for the spectral head


class LocalStack(nn.Module):
    """Pre-norm transformer whose layer i sees `reach` positions to the left and `lookahead[i]` to the
    right.
    """

    dim: int
    reach: int
    lookahead: tuple[int, ...]
    head_dim: int

    @nn.compact
    def __call__(self, x_BLD: jax.Array, valid_BL: jax.Array) -> jax.Array:
        length = x_BLD.shape[1]
        distance = np.arange(length)[None, :] - np.arange(length)[:, None]
        positions = jnp.arange(length)[None, :]
        rope = rope_table(positions, rope_frequencies(self.head_dim, 10_000.0))
        heads = self.dim // self.head_dim
        ffn = -(-self.dim * 8 // 3 // 64) * 64
        for i, right in enumerate(self.lookahead):
            window = jnp.asarray((distance >= -self.reach) & (distance <= right))
            mask = window[None] & valid_BL[:, None, :] & valid_BL[:, :, None]
            block = LlamaBlock(
                num_heads=heads,
                num_kv_heads=heads,
                head_dim=self.head_dim,
                ffn_dim=ffn,
                norm_eps=1e-6,
                name=f"layer_{i}",
            )
            x_BLD, _ = block(x_BLD, mask, rope)
        return RMSNorm(1e-6, name="norm")(x_BLD)


class Encoder(nn.Module):
    """Normalised log-mel [B, 4L, M] -> latents [B, L, 8] before quantisation."""

    config: CompactCodecConfig

    @nn.compact
    def __call__(self, mel_BTM: jax.Array, valid_BL: jax.Array) -> jax.Array:
        c = self.config
        batch, frames, mels = mel_BTM.shape
        x = mel_BTM.reshape(batch, frames // c.frames_per_token, c.frames_per_token * mels)
        x = nn.Dense(c.encoder_dim, name="stack")(x)
        reach = (c.encoder_reach,) * c.encoder_num_layers
        x = LocalStack(c.encoder_dim, c.encoder_reach, reach, c.head_dim, name="trunk")(x, valid_BL)
        return nn.Dense(DIGITS, kernel_init=nn.initializers.orthogonal(), name="latent")(x)


class Decoder(nn.Module):
    """Codes [B, L, 8] in {-1, 0, 1} -> Acoustics with T = 4L frames. Bounded reach to the left and to
    the right (see the config).
    """

    config: CompactCodecConfig

    @nn.compact
    def __call__(
        self, codes_BL8: jax.Array, valid_BL: jax.Array, train: bool = False
    ) -> Acoustics | tuple[Acoustics, jax.Array]:
        c = self.config
        batch, length, _ = codes_BL8.shape
        x = nn.Dense(c.decoder_dim, name="embed")(_digit_pairs(codes_BL8))
        lookahead = c.decoder_lookahead + (0,) * (c.decoder_num_layers - len(c.decoder_lookahead))
        x = x + nn.Dense(c.decoder_dim, name="mix")(nn.silu(x))
        x = LocalStack(c.decoder_dim, c.decoder_reach, lookahead, c.head_dim, name="trunk")(
            x, valid_BL
        )
        frames = nn.Dense(c.frames_per_token * c.frame_dim, name="unstack")(x)
        h = frames.reshape(batch, length * c.frames_per_token, c.frame_dim)
        valid_BT = jnp.repeat(valid_BL, c.frames_per_token, axis=1)
        h = FrameBlock(c.frame_dim, reach=2, name="frame_0")(h, valid_BT)
        h = FrameBlock(c.frame_dim, reach=1, name="frame_1")(h, valid_BT)
        out = nn.Dense(c.num_mels + 2, name="acoustics")(h)
        pitch = out[..., c.num_mels] * 0.3
        acoustics = Acoustics(
            out[..., : c.num_mels], pitch + F0_CENTRE, pitch, out[..., c.num_mels + 1], h
        )
        if not train:
            return acoustics
        # Phonetic auxiliary head: which phone is spoken in each half of a token. It shapes the
        # codes and is not part of decoding.
        phone = nn.Dense(2 * c.phones, name="phone_out")(
            nn.silu(nn.Dense(256, name="phone_in")(_neighbours(codes_BL8)))
        )
        return acoustics, phone.reshape(batch, 2 * length, c.phones)


class SemanticHead(nn.Module):
    """Codes [B, L, 8] -> the speech encoder's whitened states [B, 2L, D], two a token: an auxiliary of
    training that puts what was said into the codes (cf. SpeechTokenizer, arXiv 2308.16692).
    """

    config: CompactCodecConfig

    @nn.compact
    def __call__(self, codes_BL8: jax.Array) -> jax.Array:
        batch, length, _ = codes_BL8.shape
        width = self.config.semantic_dim
        h = nn.silu(nn.Dense(_SEMANTIC_HIDDEN, name="in")(_neighbours(codes_BL8)))
        return nn.Dense(2 * width, name="out")(h).reshape(batch, 2 * length, width)


class FrameBlock(nn.Module):
    """Residual block over 2*reach+1 neighbouring frames, written as one matrix product."""

    dim: int
    reach: int

    @nn.compact
    def __call__(self, x_BTC: jax.Array, valid_BT: jax.Array) -> jax.Array:
        length = x_BTC.shape[1]
        h = RMSNorm(1e-6, name="norm")(x_BTC) * valid_BT[..., None]
        padded = jnp.pad(h, ((0, 0), (self.reach, self.reach), (0, 0)))
        near = jnp.concatenate(
            [padded[:, k : k + length] for k in range(2 * self.reach + 1)], axis=-1
        )
        return x_BTC + nn.Dense(self.dim, name="out")(nn.silu(nn.Dense(self.dim, name="in")(near)))


class SpectralHead(nn.Module):
    """Acoustics -> log-magnitude of the harmonic and the noise branch and the phase of the harmonic
    branch, each [B, T, K].

    Starts as a plain mel vocoder: the magnitudes are the mel envelope interpolated to the bins, and
      the head learns what is missing.
    """

    config: CompactCodecConfig

    @nn.compact
    def __call__(self, acoustics: Acoustics) -> tuple[jax.Array, jax.Array, jax.Array]:
        c = self.config
        bins = c.window // 2 + 1
        features = [
            acoustics.hidden_BTC,
            acoustics.mel_BTM,
            acoustics.log_f0_BT[..., None] - F0_CENTRE,
            acoustics.voicing_BT[..., None],
        ]
        h = nn.Dense(c.frame_dim, name="in")(jnp.concatenate(features, axis=-1))
        h = h + nn.Dense(c.frame_dim, name="mix_out")(
            nn.silu(nn.Dense(2 * c.frame_dim, name="mix_in")(RMSNorm(1e-6, name="norm")(h)))
        )
        out = nn.Dense(
            3 * bins,
            name="out",
            kernel_init=nn.initializers.variance_scaling(0.01, "fan_in", "normal"),
        )(h)
        envelope = (acoustics.mel_BTM * c.mel_std + c.mel_mean) @ jnp.asarray(_mel_to_bins(c))
        harmonic, noise, phase = jnp.split(out, 3, axis=-1)
        return envelope + 2.0 * harmonic, envelope + 2.0 * noise - 1.0, jnp.pi * jnp.tanh(phase)


def _neighbours(codes_BL8: jax.Array) -> jax.Array:
    """Each token's codes between those of the token before and after it (0 outside): [B, L, 24]."""
    length = codes_BL8.shape[1]
    return jnp.concatenate(
        [
            jnp.pad(codes_BL8, ((0, 0), (1 - k, 1 + k), (0, 0)))[:, 1 : 1 + length]
            for k in (-1, 0, 1)
        ],
        axis=-1,
    )


def _digit_pairs(codes: jax.Array) -> jax.Array:
    """The 8 digits, their squares (which level, not only which side) and neighbouring products: [...,
    23].
    """
    return jnp.concatenate(
        [codes, jnp.square(codes) - 2.0 / 3.0, codes[..., 1:] * codes[..., :-1]], axis=-1
    )


def _mel_to_bins(c: CompactCodecConfig) -> np.ndarray:
    """Linear interpolation from log-mel bands to FFT bins, [M, K], with the filters' own gain taken
    out at the centre of each band.
    """
    centres = mel_frequencies(c.num_mels + 2, 0.0, c.sample_rate / 2)[1:-1]
    bins = np.fft.rfftfreq(c.window, 1 / c.sample_rate)
    return np.stack([np.interp(bins, centres, row) for row in np.eye(c.num_mels)]).astype(
        np.float32
    )
