"""For parity with the reference: HiFT in pieces its way (FunAudioLLM/CosyVoice's token2wav): vocode
each piece by itself, cross-fade where they meet.

Each call repeats the last 8 mel frames of the call before, is given their source, withholds its own
last 8 frames of samples, and fades from the samples withheld before into its first. So it lags 8
frames (0.16 s) behind the mel, where the exact stream (`hift_stream.py`) lags 20. The price: behind
the given source the sines start at a phase of their own (as in the reference), what is faded comes
from two calls that did not see the same frames, and each call costs 8 frames more.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.cosyvoice2.hift import Vocoded, vocode
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig

OVERLAP = 8  # mel frames
_ROUND = 32  # frames of a call are padded to a multiple, so that few shapes are compiled


@flax.struct.dataclass
class Carried:
    """What a call leaves to the next; arrays of OVERLAP frames, none of them before the first call."""

    mel_TM: np.ndarray
    source_N: np.ndarray
    wave_N: np.ndarray  # withheld

    @classmethod
    def none(cls, config: HiFTConfig) -> "Carried":
        return cls(
            np.zeros((0, config.num_mels), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )


def crossfade(withheld_N: np.ndarray, wave_N: np.ndarray) -> np.ndarray:
    """`wave` with its start faded in over the end of what was withheld, by the halves of a
    symmetric Hamming window.
    """
    size = len(withheld_N)
    window = np.hamming(2 * size)
    joint = wave_N[:size] * window[:size] + withheld_N * window[size:]
    return np.concatenate([joint.astype(np.float32), wave_N[size:]])


def call(
    config: HiFTConfig,
    params: Any,
    carried: Carried,
    mel_TM: np.ndarray,
    noise_NH: np.ndarray,
    last: bool,
) -> tuple[Carried, np.ndarray]:
    """One call: the next mel frames -> (what is carried, samples).

    noise_NH: standard normal, for the carried frames and then the new ones. Needs more than OVERLAP
      frames in all, unless it is the last.
    """
    mel = np.concatenate([carried.mel_TM, mel_TM])
    frames, known = len(mel), len(carried.source_N)
    padded = -(-frames // _ROUND) * _ROUND
    mel_1TM, noise_1NH = (
        np.zeros((1, padded, config.num_mels), np.float32),
        np.zeros((1, padded * config.frame_samples, config.harmonics), np.float32),
    )
    mel_1TM[0, :frames], noise_1NH[0, : len(noise_NH)] = mel, noise_NH
    known_1K = np.zeros((1, OVERLAP * config.frame_samples), np.float32)
    known_1K[0, :known] = carried.source_N
    out = _compiled(config)(
        params, mel_1TM, noise_1NH, jnp.array([frames]), known_1K, jnp.array([known])
    )
    wave = crossfade(carried.wave_N, np.asarray(out.wave_BN)[0, : frames * config.frame_samples])
    if last:
        return Carried.none(config), wave
    held = OVERLAP * config.frame_samples
    source = np.asarray(out.source_BN)[0, : frames * config.frame_samples]
    return Carried(mel[-OVERLAP:], source[-held:], wave[-held:]), wave[:-held]


@functools.lru_cache(maxsize=8)
def _compiled(config: HiFTConfig):
    def run(params, mel_BTM, noise, length_B, known_BK, known_B) -> Vocoded:
        return vocode(config, params, mel_BTM, noise, length_B, known_BK, known_B)

    return jax.jit(run)
