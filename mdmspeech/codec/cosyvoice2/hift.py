"""HiFT, CosyVoice2's vocoder: mel frames -> 24 kHz wave (HiFTNet, Li et al. 2023, arXiv 2309.09493;
FunAudioLLM/CosyVoice's HiFTGenerator).

F0 is predicted from the mel and drives a source of sines and noise; an up-sampling network filters
it. Both its input (the source) and its output are short STFTs at 6 kHz, so the last factor of four
to the sample rate is an inverse Fourier transform.

B batch, T mel frames, M mels, N = T * frame_samples samples, H harmonics. `stream=True` works on
blocks; see `hift_stream.py`.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mdmspeech.codec.cosyvoice2.f0_predictor import F0Predictor
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.hift_layers import Clock, Conv, ResBlock, Signal, Streamed, UpConv
from mdmspeech.codec.cosyvoice2.hift_stft import Inverse, Spectrum
from mdmspeech.codec.cosyvoice2.source import Source


@flax.struct.dataclass
class Vocoded:
    """One utterance a row; zero behind its end."""

    wave_BN: jax.Array  # in [-audio_limit, audio_limit]
    source_BN: jax.Array
    f0_BT: jax.Array  # Hz


class Decoder(Streamed):
    """Mel [B, T, M] and source [B, N, 1] -> wave [B, N, 1]."""

    config: HiFTConfig

    @nn.compact
    def __call__(self, mel: Signal, source: Signal, clock: Clock) -> Signal:
        c, stream = self.config, self.stream
        spectrum = Spectrum(stream, c.n_fft, c.hop, name="spectrum")(source, clock)
        x = Conv(stream, c.base_channels, 7, name="pre")(mel, clock)
        for i, (rate, kernel) in enumerate(zip(c.upsample_rates, c.upsample_kernels, strict=True)):
            width, stride = c.base_channels >> (i + 1), c.source_stride(i)
            x = x.of(nn.leaky_relu(x.x_BTC, c.slope))
            x = UpConv(stream, width, kernel, rate, name=f"up_{i}")(x, clock)
            if i == len(c.upsample_rates) - 1:
                x = MirroredStart(stream, name="start")(x, clock)
            kernel, pad = (1, 0) if stride == 1 else (2 * stride, stride // 2)
            s = Conv(stream, width, kernel, stride=stride, pad=pad, name=f"source_{i}")(
                spectrum, clock
            )
            s = ResBlock(stream, c.source_kernels[i], c.dilations, name=f"source_block_{i}")(
                s, clock
            )
            x = self.meet([x, s], f"stage_{i}")
            blocks = [
                ResBlock(stream, k, c.dilations, name=f"block_{i}_{j}")(x, clock)
                for j, k in enumerate(c.resblock_kernels)
            ]
            x = self.meet(blocks, f"blocks_{i}")
            x = x.of(x.x_BTC / len(blocks))
        # PyTorch's default slope: the reference gives none here
        x = x.of(nn.leaky_relu(x.x_BTC, 0.01))
        x = Conv(stream, c.n_fft + 2, 7, name="post")(x, clock)
        wave = Inverse(stream, c.n_fft, c.hop, name="inverse")(x, clock)
        return wave.of(jnp.clip(wave.x_BTC, -c.audio_limit, c.audio_limit))


class MirroredStart(Streamed):
    """One position more in front, equal to the second one (PyTorch's reflection padding): [B, T, C]
    -> [B, T + 1, C].
    """

    @nn.compact
    def __call__(self, signal: Signal, clock: Clock) -> Signal:
        x_BTC = signal.x_BTC
        if self.stream:
            wide_BTC, count = self.with_past(x_BTC, 2), x_BTC.shape[1]
        else:
            wide_BTC, count = jnp.pad(x_BTC, ((0, 0), (1, 2), (0, 0))), x_BTC.shape[1] + 1
        moved = dataclasses.replace(
            signal, x_BTC=wide_BTC[:, :count], delay=signal.delay + 1 if self.stream else 0, extra=1
        )
        at_T = clock.positions(moved)[None, :, None]
        return clock.blank(moved.of(jnp.where(at_T == 0, wide_BTC[:, 2 : 2 + count], moved.x_BTC)))


class HiFT(nn.Module):
    """The whole vocoder. The methods work on whole utterances; `__call__` on both."""

    config: HiFTConfig
    stream: bool = False

    def setup(self):
        self.f0_predictor = F0Predictor(self.stream, self.config)
        self.source = Source(self.stream, self.config)
        self.decoder = Decoder(self.stream, self.config)

    def __call__(
        self, mel_BTM: jax.Array, noise: jax.Array, clock: Clock
    ) -> tuple[Signal, Signal, Signal]:
        """Mel frames -> (wave, source, F0), each a `Signal`. `noise`: see `Source`."""
        mel = clock.blank(Signal(mel_BTM))
        f0 = self.f0_predictor(mel, clock)
        source = self.source(f0, noise, clock)
        return self.decoder(mel, source, clock), source, f0

    def predict_f0(self, mel_BTM: jax.Array, clock: Clock) -> Signal:
        """Mel frames -> F0 in Hz."""
        return self.f0_predictor(clock.blank(Signal(mel_BTM)), clock)

    def excite(self, f0_BT: jax.Array, noise: jax.Array, clock: Clock) -> Signal:
        """F0 in Hz -> source."""
        return self.source(clock.blank(Signal(f0_BT[..., None])), noise, clock)

    def decode(self, mel_BTM: jax.Array, source_BN: jax.Array, clock: Clock) -> Signal:
        """Mel frames and a source -> wave."""
        source = Signal(source_BN[..., None], self.config.frame_samples)
        return self.decoder(clock.blank(Signal(mel_BTM)), clock.blank(source), clock)


def whole(mel_BTM: jax.Array, length_B: jax.Array | None = None) -> Clock:
    """The clock of whole utterances of `length_B` frames (default: all of them)."""
    batch, frames = mel_BTM.shape[:2]
    return Clock(jnp.int32(0), jnp.full(batch, frames) if length_B is None else length_B)


def vocode(
    config: HiFTConfig,
    params: dict,
    mel_BTM: jax.Array,
    noise: jax.Array,
    length_B: jax.Array | None = None,
    known_BK: jax.Array | None = None,
    known_B: jax.Array | None = None,
) -> Vocoded:
    """Mel frames -> waves, in one go.

    Args:
      mel_BTM: natural-log mel at 50 Hz, as `audio.features` makes it for CosyVoice2.
      noise: typed keys [B], one an utterance, or standard normal noise [B, N, H].
      length_B: int32, frames of each row (default: T); what is behind them has no effect.
      known_BK: a source that replaces the computed one in the first `known_B` (default: K) samples.
    """
    model, clock = HiFT(config), whole(mel_BTM, length_B)
    f0 = model.apply({"params": params}, mel_BTM, clock, method="predict_f0").x_BTC[..., 0]
    source_BN = model.apply({"params": params}, f0, noise, clock, method="excite").x_BTC[..., 0]
    if known_BK is not None:
        size = known_BK.shape[1]
        kept = jnp.arange(size)[None] < (size if known_B is None else known_B[:, None])
        source_BN = source_BN.at[:, :size].set(jnp.where(kept, known_BK, source_BN[:, :size]))
    wave = model.apply({"params": params}, mel_BTM, source_BN, clock, method="decode")
    return Vocoded(wave.x_BTC[..., 0], source_BN, f0)


def init(config: HiFTConfig, rng: jax.Array) -> dict:
    """Untrained parameters; under `jax.eval_shape`, their shapes."""
    mel = jnp.zeros((1, 2, config.num_mels))
    return HiFT(config).init(rng, mel, jax.random.key(0)[None], whole(mel))["params"]
