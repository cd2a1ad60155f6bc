"""A Thinker made ready to write: the functions of `models.thinker.Thinker` over prepared weights
(`nn.feature_major`), without what only training needs.

A Thinker reads one new token, a few drafts, or a question a forward: few columns, at which a CPU
takes the weights as the left operand two to three times as fast.

B rows, T inputs of one forward, S columns of the cache, D width, V vocabulary, M = B x T.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.models.thinker import ThinkerConfig, every_layer
from mdmspeech.nn import feature_major
from mdmspeech.nn.feature_major import DroppingCache, LayerShape
from mdmspeech.nn.partition import lookup_large
from mdmspeech.nn.rope import rope_attention_factor, rope_frequencies


@dataclasses.dataclass(frozen=True)
class PreparedThinker:
    """Pure functions of one Thinker, called as those of the module are (`apply`), so that
    `models.generation` works with either. Static: hashable, it holds no arrays.
    """

    config: ThinkerConfig

    @classmethod
    def of(cls, config: ThinkerConfig, params: dict) -> tuple["PreparedThinker", dict[str, Any]]:
        """From trained parameters -> (functions, parameters as they take them)."""
        return cls(config), prepared(params, config.scan_layers)

    def apply(
        self, variables: dict[str, Any], *args: Any, method: Callable | str, **named: Any
    ) -> Any:
        """A method of `Thinker`, as in Linen, with prepared {"params"}."""
        name = method if isinstance(method, str) else method.__name__
        return getattr(self, name)(variables["params"], *args, **named)

    def init_cache(self, batch: int, columns: int, dtype: Any = jnp.float32) -> Any:
        """As `Thinker.init_cache`."""
        empty = DroppingCache.zeros(batch, self._layer_shape, columns, dtype)
        return every_layer(self.config, empty)

    def embed(self, params: Any, ids_BT: jax.Array) -> jax.Array:
        """As `Thinker.embed`."""
        return lookup_large(params["embedding"]["embedding"], ids_BT)

    def states(
        self,
        params: Any,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        mask_BTS: jax.Array,
        cache: Any,
        write_at_B: jax.Array,
        normed: bool = True,
    ) -> tuple[jax.Array, Any]:
        """As `Thinker.states`, over a cache."""
        batch, length, width = x_BTD.shape
        x_DM = x_BTD.reshape(-1, width).T
        scaling = None if self.config.rope_scaling is None else dict(self.config.rope_scaling)
        frequencies_F = rope_frequencies(self.config.head_dim, self.config.rope_theta, scaling)
        positions_M = jnp.broadcast_to(positions_BT, (batch, length)).reshape(-1)
        rope_FM = feature_major.rope_columns(
            positions_M, frequencies_F, rope_attention_factor(scaling)
        )
        mask_BTS = jnp.broadcast_to(mask_BTS, (batch, length, mask_BTS.shape[-1]))

        def layer(x_DM: jax.Array, weights_and_cache: tuple) -> tuple[jax.Array, Any]:
            weights, cache = weights_and_cache
            shape, inputs = self._layer_shape, (mask_BTS, rope_FM, [cache], write_at_B)
            x_DM, (cache,) = feature_major.decoder_layer(weights, shape, x_DM, *inputs)
            return x_DM, cache

        if self.config.scan_layers:
            x_DM, cache = jax.lax.scan(layer, x_DM, (params["layers"]["all"], cache))
        else:
            layers = [params["layers"][str(i)] for i in range(self.config.num_layers)]
            new = []
            for weights, before in zip(layers, cache, strict=True):
                x_DM, after = layer(x_DM, (weights, before))
                new.append(after)
            cache = tuple(new)
        x_BTD = x_DM.T.reshape(batch, length, width)
        return (self.last_norm(params, x_BTD) if normed else x_BTD), cache

    def last_norm(self, params: Any, x_BTD: jax.Array) -> jax.Array:
        """As `Thinker.last_norm`."""
        return feature_major.rms_norm(params["norm"], x_BTD, self.config.norm_eps, axis=-1)

    def logits(self, params: Any, hidden_BTD: jax.Array) -> jax.Array:
        """As `Thinker.logits`."""
        tied = self.config.tie_embeddings
        weight_VD = params["embedding"]["embedding"] if tied else params["output"]["weight"]
        hidden_DM = hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).T
        out_VM = feature_major.linear({"weight": weight_VD}, hidden_DM)
        return out_VM.T.reshape(*hidden_BTD.shape[:-1], -1).astype(jnp.float32)

    @property
    def _layer_shape(self) -> LayerShape:
        c = self.config
        return LayerShape(c.num_heads, c.num_kv_heads, c.head_dim, c.norm_eps)


def prepared(
    params: dict[str, Any], scan_layers: bool = False, use_up: bool = False
) -> dict[str, Any]:
    """Trained parameters as `PreparedThinker` takes them; those that are already stay as they are.

    use_up: takes the layers out of `params` one by one, so that there is only one more than once.

    Raises:
      ValueError: low-rank updates beside the weights, see `models.lora.fuse`.
    """
    if any("lora" in jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)):
        raise ValueError("fuse the low-rank updates of a Thinker before it is prepared")
    lay_out = feature_major.prepare
    outer = lay_out({name: value for name, value in params.items() if name != "layers"})
    if scan_layers:
        return {**outer, "layers": {"all": jax.vmap(lay_out)(params["layers"]["all"])}}
    layers = params["layers"] if use_up else dict(params["layers"])
    return {**outer, "layers": {name: lay_out(layers.pop(name)) for name in list(layers)}}
