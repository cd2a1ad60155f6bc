"""Random parameters without a compiler: a program that initialises a tiny model takes two to three
seconds to compile, its shapes a tenth of that.
"""

import jax
import jax.numpy as jnp
import numpy as np

_ONES = ("scale", "alpha")
_ZEROS = ("bias", "output_bias", "lora_b")


def random_params(init, *args):
    """What `init(*args)` returns, with other random numbers: matrices of the usual size, norms and
    biases that change nothing. Of the arguments the random keys are what it is drawn from.
    """
    keys = [
        a for a in args if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    ]
    shapes = jax.eval_shape(lambda _: init(*args), keys)
    rng = np.random.default_rng([int(n) for key in keys for n in jax.random.key_data(key).ravel()])
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _drawn(path, leaf, rng), shapes)


def _drawn(path, leaf, rng):
    name = getattr(path[-1], "key", "") if path else ""
    if name in _ONES or name in _ZEROS:
        return jnp.asarray(np.full(leaf.shape, name in _ONES, leaf.dtype))
    if any(getattr(key, "key", "") == "outputs" for key in path):  # a Talker's logits begin small
        return jnp.asarray((0.01 * rng.normal(size=leaf.shape)).astype(leaf.dtype))
    inputs = np.prod(leaf.shape[:-1] if name in ("kernel", "lora_a") else leaf.shape[-1:])
    return jnp.asarray((rng.normal(size=leaf.shape) / np.sqrt(inputs)).astype(leaf.dtype))
