"""Where the flow starts: noise that belongs to a frame of an utterance, however the utterance is
cut or batched.

Either a table (the reference draws one, once and for all, so that every prefix of every utterance
starts from the same values) or a key of each utterance.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError


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
    """Raises UserError unless `source` is something that `frame_noise` takes for that many rows and
    mel bins.
    """
    if jnp.issubdtype(source.dtype, jax.dtypes.prng_key):
        if source.shape != (rows,):
            raise UserError(
                f"the flow needs a noise key a row, [{rows}], got keys of shape "
                f"{list(source.shape)}; use jax.random.split"
            )
    elif source.ndim != 2 or source.shape[1] != num_mels or not source.shape[0]:
        raise UserError(
            f"a table of noise must be [frames, {num_mels}], got {list(source.shape)}; or use keys"
        )
