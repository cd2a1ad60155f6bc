"""A Talker made ready to speak: the trunk of `models.talker` over prepared weights, without what
only training needs.

Code tables are folded (table + features @ digits, computed once), weights are laid out for few
columns (`nn.feature_major`), the output table is padded to whole vectors. Anchors are those of
`models.talker`, which read a text once.

B rows, T tokens of one forward, S cache slots, D width, V rows of the output table.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.models.talker import CodeTable, Talker, TalkerConfig
from mdmspeech.nn import feature_major
from mdmspeech.nn.feature_major import ColumnCache, LayerShape
from mdmspeech.nn.rope import rope_frequencies

# The output table has whole multiples of this many rows: reductions over the vocabulary are three
# times as fast as over 6,566. Nothing may draw the rows behind it (`decoding.sampling.allowed_ids`).
_WHOLE = 64


@dataclasses.dataclass(frozen=True)
class PreparedTalker:
    """Pure functions of one Talker. Static: hashable, it holds no arrays.

    Attributes:
      config: with folded tables (`structured_codes` False).
    """

    config: TalkerConfig

    @classmethod
    def of(cls, config: TalkerConfig, params: dict) -> tuple["PreparedTalker", dict[str, Any]]:
        """From trained parameters -> (functions, parameters as they take them)."""
        config, params = fold_tables(config, params)
        names = [f"layers_{i}" for i in range(config.num_layers)]
        table_VD = params["outputs"]["table"]
        padding = -len(table_VD) % _WHOLE
        prepared = {
            "layers": tuple(feature_major.prepare(params[name]) for name in names),
            "inputs": params["inputs"]["table"],
            "outputs_DV": jnp.pad(table_VD, ((0, padding), (0, 0))).T,
            "norm": params["norm"],
            "anchors": params["anchors"],
        }
        if config.output_bias:
            prepared["output_bias_V"] = jnp.pad(params["output_bias"], (0, padding))
        return cls(config), prepared

    @property
    def layer_shape(self) -> LayerShape:
        """Of every layer."""
        c = self.config
        return LayerShape(c.num_heads, c.cache_heads, c.head_dim, c.norm_eps, c.score_scale)

    def empty_cache(self, slots: int, rows: int = 1, dtype: Any = jnp.float32) -> tuple:
        """Caches of `rows` rows, one a layer."""
        return tuple(
            ColumnCache.zeros(rows, self.layer_shape, slots, dtype)
            for _ in range(self.config.num_layers)
        )

    def hidden(
        self, params, caches, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, before_BND=None
    ):
        """Trunk: token ids and conditions (None: none) -> (normed states [D, B x T], new caches).

        caches: of consecutive rows, see `empty_cache`. before_BND: embeddings in front of the
        tokens, as in `Talker.__call__`.
        """
        x_BTD = params["inputs"][ids_BT]
        if cond_BTD is not None:
            x_BTD = x_BTD + cond_BTD.astype(x_BTD.dtype)
        if before_BND is not None:
            x_BTD = jnp.concatenate([before_BND.astype(x_BTD.dtype), x_BTD], axis=1)
        batch, length, width = x_BTD.shape
        x_DM = x_BTD.reshape(-1, width).T
        frequencies_F = rope_frequencies(self.config.head_dim, self.config.rope_theta)
        positions_BT = jnp.broadcast_to(positions_BT, (batch, length))
        angles_FM = jnp.asarray(frequencies_F)[:, None] * positions_BT.reshape(1, -1)
        rope_FM = jnp.cos(angles_FM), jnp.sin(angles_FM)
        mask_BTS = jnp.broadcast_to(mask_BTS, (batch, *mask_BTS.shape[1:]))
        new = []
        for i, layer in enumerate(params["layers"]):
            x_DM, cache = feature_major.decoder_layer(
                layer,
                self.layer_shape,
                x_DM,
                mask_BTS,
                rope_FM,
                [row[i] for row in caches],
                write_at_B,
            )
            new.append(cache)
        x_DM = feature_major.rms_norm(params["norm"], x_DM, self.config.norm_eps)
        return x_DM, tuple(zip(*new, strict=True))

    def logits(self, params, hidden_DM: jax.Array) -> jax.Array:
        """Normed states [D, M] -> [M, V], float32."""
        # row by row: of the rows each is then reduced over the vocabulary, as it lies
        hidden_MD = hidden_DM.T
        if self.config.output_scale != 1.0:
            hidden_MD = hidden_MD * self.config.output_scale
        out_MV = jnp.matmul(hidden_MD, params["outputs_DV"], preferred_element_type=jnp.float32)
        return out_MV + params["output_bias_V"][None] if self.config.output_bias else out_MV

    def step(
        self, params, caches, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits
    ):
        """A `decoding.state.ModelFn`, once `params` is given."""
        hidden_DM, caches = self.hidden(
            params, caches, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B
        )
        batch, length = ids_BT.shape
        if num_logits < length:
            hidden_DBT = hidden_DM.reshape(-1, batch, length)[:, :, length - num_logits :]
            hidden_DM = hidden_DBT.reshape(-1, batch * num_logits)
        return self.logits(params, hidden_DM).reshape(batch, num_logits, -1), caches

    def anchors(self, params, *args, method: str):
        """A method of `Talker` that needs its anchors only: "read", "place", "fuse", ..."""
        variables = {"anchors": params["anchors"], "inputs": {"table": params["inputs"]}}
        reader = Talker(dataclasses.replace(self.config, output_bias=False))
        return reader.apply({"params": variables}, *args, method=method)


def fold_tables(config: TalkerConfig, params: dict) -> tuple[TalkerConfig, dict]:
    """The same Talker with its structured code tables (table + features @ digits) computed once, as
    plain tables.
    """
    params = jax.tree.map(jnp.asarray, params)
    if config.structured_codes:
        table = CodeTable(config.dim, True, 1.0)
        params = {
            **params,
            **{
                name: {"table": table.apply({"params": params[name]})}
                for name in ("inputs", "outputs")
            },
        }
    return dataclasses.replace(config, structured_codes=False), params
