"""Where the flow starts: noise that belongs to a frame of an utterance, however the utterance is cut or batched.

Either a table (the reference draws one, once and for all, so that every prefix of every utterance starts from the same values) or a key of each
utterance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError

OFFICIAL_FRAMES = 15_000  # of the official table: 5 minutes at 50 frames a second
_BLOCK = 16  # values that torch makes at once


def frame_noise(source: jax.Array, index_BT: jax.Array, num_mels: int) -> jax.Array:
    """Noise of each row's frames, float32 [B, T, M].

    Args:
      source: typed keys [B], one an utterance, or a table [P, M] (then frame P is again frame 0).
      index_BT: int32, number of the frame in its utterance, the prompt included.
    """
    if jnp.issubdtype(source.dtype, jax.dtypes.prng_key):
        draw = lambda key, index: jax.random.normal(jax.random.fold_in(key, index), (num_mels,))
        return jax.vmap(jax.vmap(draw, (None, 0)))(source, index_BT)
    return source[index_BT % source.shape[0]]


def check_noise(source: jax.Array | np.ndarray, rows: int, num_mels: int) -> None:
    """Raises UserError unless `source` is something that `frame_noise` takes for that many rows and mel bins."""
    if jnp.issubdtype(source.dtype, jax.dtypes.prng_key):
        if source.shape != (rows,):
            raise UserError(f"the flow needs a noise key a row, [{rows}], got keys of shape {list(source.shape)}; use jax.random.split")
    elif source.ndim != 2 or source.shape[1] != num_mels or not source.shape[0]:
        raise UserError(f"a table of noise must be [frames, {num_mels}], got {list(source.shape)}; use keys or official_noise()")


@functools.lru_cache(maxsize=1)
def official_noise(frames: int = OFFICIAL_FRAMES, num_mels: int = 80) -> np.ndarray:
    """The reference's table, float32 [frames, M]: `torch.randn(1, 80, 15000)` after `torch.manual_seed(0)`, without torch.

    torch's generator is the Mersenne Twister. It draws one 32-bit integer a value, takes 24 bits of it as a uniform number, and turns blocks of 16
    into normal ones by Box and Muller's transform: eight radii, then eight angles. (Sizes that 16 does not divide are treated otherwise there.)

    Raises:
      UserError: frames * num_mels is no multiple of 16.
    """
    count = frames * num_mels
    if count % _BLOCK:
        raise UserError(
            f"the official noise comes in blocks of {_BLOCK}: {frames} frames of {num_mels} are no multiple; use the full table"
        )
    twister = np.random.RandomState(0)  # the generator and the seeding of torch
    integers = twister.randint(0, 2**32, size=(count // _BLOCK, _BLOCK), dtype=np.uint32)
    uniform = (integers & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, : _BLOCK // 2]))
    angle = np.float32(2 * np.pi) * uniform[:, _BLOCK // 2 :]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1, dtype=np.float32)
    table = np.ascontiguousarray(normal.reshape(num_mels, frames).T)
    table.flags.writeable = False  # it is shared
    return table
