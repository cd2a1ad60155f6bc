"""Sizes of CosyVoice2's vocoder HiFT (FunAudioLLM/CosyVoice, `hift` in cosyvoice2.yaml); the
defaults are the published model.
"""

import dataclasses
import math

from mdmspeech.config_names import renamed_fields


@renamed_fields
@dataclasses.dataclass(frozen=True)
class HiFTConfig:
    """Mel frames at 50 Hz -> 24 kHz: three up-sampling stages to 6 kHz, there an inverse STFT of
    `n_fft` samples every `hop`.
    """

    num_mels: int = 80
    sample_rate: int = 24_000
    base_channels: int = 512  # behind the first convolution; halved at every stage
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    n_fft: int = 16
    hop: int = 4
    resblock_kernels: tuple[int, ...] = (3, 7, 11)  # one block each, averaged, at every stage
    source_kernels: tuple[int, ...] = (7, 7, 11)  # one block a stage
    dilations: tuple[int, ...] = (1, 3, 5)  # of every residual block
    slope: float = 0.1  # leaky ReLU before each up-sampling
    audio_limit: float = 0.99
    f0_channels: int = 512
    f0_num_layers: int = 5
    overtones: int = 8  # harmonics of the source above the fundamental
    sine_amplitude: float = 0.1
    # beside the sines; unvoiced frames get sine_amplitude / 3 of noise alone
    noise_std: float = 0.003
    voiced_hz: float = 10.0  # a frame with a higher F0 is voiced

    @property
    def frame_samples(self) -> int:
        """Samples of a mel frame (480, 20 ms)."""
        return math.prod(self.upsample_rates) * self.hop

    @property
    def harmonics(self) -> int:
        """Sines of the source, the fundamental included."""
        return self.overtones + 1

    def source_stride(self, stage: int) -> int:
        """STFT frames of the source a position of this stage."""
        return math.prod(self.upsample_rates[stage + 1 :])
