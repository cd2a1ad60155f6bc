"""HiFT block by block: each block at the same cost, and the samples of one-shot vocoding.

Every convolution keeps its last inputs, the source its phase, the inverse STFT its last frames
(`hift_layers.py`), so nothing is computed twice and nothing is cross-faded. Noise belongs to the
frame: it comes from the utterance's key and the frame's index. HiFT sees both sides of a sample, so
exactness costs delay, `delay_samples`: 20.3 mel frames, 0.41 s, with CosyVoice2's sizes, of which
residual blocks of dilated convolutions at 400 Hz take 12 frames and F0 5. The reference withholds 8
frames, cross-fades, and is not exact (tests/support/hift_crossfade.py does it its way).

What is left between streamed and one-shot samples is float32 rounding of F0, added up in the phase:
a random walk whose steps are below 1e-5 radians a frame (measured with the reference fixture's
weights; in float64 the two are equal).

B batch, n mel frames of a block, M mels. All rows share one clock.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.cosyvoice2.hift import HiFT
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.hift_layers import OPEN, Clock
from mdmspeech.errors import UserError


@flax.struct.dataclass
class StreamState:
    """What is carried from block to block; its size depends on neither the block's nor the
    utterance's length.
    """

    layers: Any  # the collection "stream" of HiFT
    clock: Clock
    key_B: jax.Array  # typed keys of the noise, one an utterance


def start(config: HiFTConfig, key_B: jax.Array) -> StreamState:
    """The state before the first frame. key_B: typed keys; the samples are those of `hift.vocode`
    with the same ones.
    """
    clock = Clock(jnp.int32(0), jnp.full(key_B.shape[0], OPEN, jnp.int32))
    layers = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _traced(config, key_B.shape[0])[1]
    )
    return StreamState(layers, clock, key_B)


def push(
    config: HiFTConfig, params: Any, state: StreamState, mel_BnM: jax.Array, valid_Bn: jax.Array
) -> tuple[StreamState, jax.Array]:
    """Takes n more frames of every row and returns the n * frame_samples samples that came
    `delay_samples` earlier.

    valid_Bn: bool, False behind a row's last frame; when the speech is over, push invalid frames
      until its last samples are out.

    Returns:
      (new state, wave [B, n * frame_samples]). The wave begins with `delay_samples` of silence.
    """
    first, count = state.clock.first, mel_BnM.shape[1]
    ends_B = jnp.where(valid_Bn.all(axis=1), OPEN, first + valid_Bn.sum(axis=1, dtype=jnp.int32))
    clock = Clock(first, jnp.minimum(state.clock.length_B, ends_B))
    variables = {"params": params, "stream": state.layers}
    (wave, _, _), new = HiFT(config, stream=True).apply(
        variables, mel_BnM, state.key_B, clock, mutable=["stream"]
    )
    return StreamState(
        new["stream"], Clock(first + count, clock.length_B), state.key_B
    ), wave.x_BTC[..., 0]


def delay_samples(config: HiFTConfig) -> int:
    """Samples by which the wave lags behind the mel."""
    return _traced(config, 1)[0]


@functools.lru_cache(maxsize=32)
def _traced(config: HiFTConfig, batch: int) -> tuple[int, Any]:
    """(delay, shapes of the state) by abstract evaluation."""

    def run():
        mel = jnp.zeros((batch, 1, config.num_mels))
        keys = jax.random.split(jax.random.key(0), batch)
        model, clock = HiFT(config, stream=True), Clock(jnp.int32(0), jnp.zeros(batch, jnp.int32))
        params = HiFT(config).init(jax.random.key(0), mel, keys, clock)["params"]
        (wave, _, _), new = model.apply({"params": params}, mel, keys, clock, mutable=["stream"])
        return wave, new["stream"]

    wave, layers = jax.eval_shape(run)
    return wave.delay, layers


@functools.lru_cache(maxsize=8)
def compiled_push(config: HiFTConfig):
    """`push` under jit, compiled once for all streams with blocks of one size; the old state's
    memory is used for the new one.
    """
    return jax.jit(functools.partial(push, config), donate_argnums=1)


class WaveStream:
    """One utterance: any number of mel frames in, the samples that are final now out. Joined, they
    are those of `hift.vocode`.
    """

    def __init__(
        self,
        config: HiFTConfig,
        params: Any,
        key: jax.Array,
        block: int = 16,
        first: int | None = None,
    ):
        """`key`: typed, the utterance's noise. `block`: frames vocoded at a time, `first`: in the
        first block (default: as many); fewer wait for more.
        """
        first = block if first is None else first
        if min(block, first) < 1:
            raise UserError(
                f"a block of {min(block, first)} mel frames cannot be vocoded; use 1 or more"
            )
        self._config, self._params, self._block, self._next = config, params, block, first
        # A copy of the key: the state's memory is given away at every push.
        self._state = start(config, jnp.copy(key)[None])
        self._mel_TM = np.zeros((0, config.num_mels), np.float32)
        self._silence = delay_samples(config)  # samples to drop
        self._owed = 0  # samples of frames that came

    def push(self, mel_nM: np.ndarray) -> np.ndarray:
        """The next mel frames -> the samples that are final now, float32 [N] (perhaps none)."""
        if mel_nM.ndim != 2 or mel_nM.shape[1] != self._config.num_mels:
            raise UserError(
                f"mel frames of shape {list(mel_nM.shape)} do not fit the vocoder; "
                f"give [frames, {self._config.num_mels}]"
            )
        self._mel_TM = np.concatenate([self._mel_TM, np.asarray(mel_nM, np.float32)])
        self._owed += len(mel_nM) * self._config.frame_samples
        parts = [np.zeros(0, np.float32)]
        while len(self._mel_TM) >= self._next:
            block_TM, self._mel_TM = np.split(self._mel_TM, [self._next])
            parts.append(self._advance(block_TM))
        return np.concatenate(parts)

    def finish(self) -> np.ndarray:
        """The samples that are left, once there are no more frames."""
        parts = [np.zeros(0, np.float32)]
        while self._owed:
            parts.append(self._advance(self._mel_TM))
            self._mel_TM = self._mel_TM[:0]
        return np.concatenate(parts)

    def _advance(self, mel_nM: np.ndarray) -> np.ndarray:
        """One block, padded with absent frames."""
        size, self._next = self._next, self._block
        mel = np.zeros((1, size, self._config.num_mels), np.float32)
        mel[0, : len(mel_nM)] = mel_nM
        valid = np.arange(size)[None] < len(mel_nM)
        self._state, wave_1N = compiled_push(self._config)(self._params, self._state, mel, valid)
        wave_N = np.asarray(wave_1N)[0]
        dropped = min(self._silence, len(wave_N))
        self._silence -= dropped
        wave_N = wave_N[dropped:][: self._owed]
        self._owed -= len(wave_N)
        return wave_N
