"""A Talker made ready to speak: the trunk of `models.talker` over prepared weights, without what
only training needs.

Code tables are folded (table + features @ digits, computed once), weights are laid out for few
columns (`nn.feature_major`), the output table is padded to whole vectors. Anchors are those of
`models.talker`, which read a text once.

B rows, T tokens of one forward, S cache slots, D width, V rows of the output table.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mdmspeech.models.anchors import PacedAnchors
from mdmspeech.models.talker import CodeTable, Talker, TalkerConfig
from mdmspeech.nn import feature_major
from mdmspeech.nn.feature_major import ColumnCache, LayerShape
from mdmspeech.nn.linear import widened
from mdmspeech.nn.rope import rope_frequencies
from mdmspeech.programs import KeptProgram

# The output table has whole multiples of this many rows: on CPUs reductions over the vocabulary are
# three times as fast as over 6,566, and a TPU (vectors of 128) takes the table as it lies, where it
# would lay it out anew in every call. Nothing may draw the rows behind it (`decoding.sampling.allowed_ids`).
_WHOLE = 128


class TextBefore(NamedTuple):
    """A text in front of one row's speech (prefix anchors): its keys and values, one a layer, and
    how many ids it has, int32 [1].
    """

    caches: tuple[ColumnCache, ...]
    count_B: Any


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
        return cls.plain(config), _preparing(config)(jax.device_put(params))

    @classmethod
    def abstract(cls, config: TalkerConfig, params: Any) -> tuple["PreparedTalker", dict[str, Any]]:
        """The same of shapes alone: nothing is computed."""
        return cls.plain(config), jax.eval_shape(functools.partial(_prepared, config), params)

    @classmethod
    def plain(cls, config: TalkerConfig) -> "PreparedTalker":
        """The functions, which know no structured tables."""
        return cls(dataclasses.replace(config, structured_codes=False))

    @property
    def layer_shape(self) -> LayerShape:
        """Of every layer."""
        c = self.config
        return LayerShape(c.num_heads, c.cache_heads, c.head_dim, c.norm_eps, c.score_scale)

    def empty_cache(self, slots: int) -> tuple[ColumnCache, ...]:
        """Caches of one row, one a layer and behind them one a module."""
        return tuple(
            ColumnCache.zeros(1, self.layer_shape, slots)
            for _ in range(self.config.num_layers + self.config.mtp_modules)
        )

    def _trunk(
        self, params, caches, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, before=()
    ) -> tuple[jax.Array, Callable, list[list[ColumnCache]]]:
        """`_layers` over speech tokens and their conditions."""
        x_BTD = params["inputs"][ids_BT]
        x_BTD = x_BTD + cond_BTD.astype(x_BTD.dtype)
        return self._layers(params, caches, x_BTD, positions_BT, mask_BTS, write_at_B, before)

    def _layers(
        self,
        params,
        caches,
        x_BTD,
        positions_BT,
        mask_BTS,
        write_at_B,
        before: Sequence[TextBefore] = (),
    ) -> tuple[jax.Array, Callable, list[list[ColumnCache]]]:
        """(states before the norm [D, B x T]; what runs one more layer at the same places; caches).

        caches: of consecutive rows, see `empty_cache`. before: the text in front of each row, which
          all its positions see, and go on from; () where there is none.
        """
        batch, length, width = x_BTD.shape
        x_DM = x_BTD.reshape(-1, width).T
        frequencies_F = rope_frequencies(self.config.head_dim, self.config.rope_theta)
        positions_BT = jnp.broadcast_to(positions_BT, (batch, length))
        mask_BTS = jnp.broadcast_to(mask_BTS, (batch, *mask_BTS.shape[1:]))
        if before:
            count_B = jnp.concatenate([text.count_B for text in before])
            positions_BT = positions_BT + count_B[:, None]
            slots_N = jnp.arange(before[0].caches[0].k_BKES.shape[-1])
            seen_BTN = jnp.broadcast_to(
                slots_N[None, None] < count_B[:, None, None], (batch, length, len(slots_N))
            )
            mask_BTS = jnp.concatenate([seen_BTN, mask_BTS], axis=-1)
        rope_FM = feature_major.rope_columns(positions_BT.reshape(-1), frequencies_F)
        new = [list(row) for row in caches]

        def run(weights: Any, x_DM: jax.Array, at: int) -> jax.Array:
            x_DM, written = feature_major.decoder_layer(
                weights,
                self.layer_shape,
                x_DM,
                mask_BTS,
                rope_FM,
                [row[at] for row in new],
                write_at_B,
                [text.caches[at] for text in before],
            )
            for row, cache in zip(new, written, strict=True):
                row[at] = cache
            return x_DM

        for i, layer in enumerate(params["layers"]):
            x_DM = run(layer, x_DM, i)
        return x_DM, run, new

    def logits(self, params, hidden: jax.Array) -> jax.Array:
        """Normed states [..., D] -> [..., V], float32."""
        # row by row: each is then reduced over the vocabulary, as it lies
        if self.config.output_scale != 1.0:
            hidden = hidden * self.config.output_scale
        hidden_MD = hidden.reshape(-1, hidden.shape[-1])
        out_MV = jnp.matmul(
            widened(hidden_MD, 0),
            params["outputs_DV"],
            preferred_element_type=jnp.float32,
        )[: len(hidden_MD)]
        if self.config.output_bias:
            out_MV = out_MV + params["output_bias_V"][None]
        return out_MV.reshape(*hidden.shape[:-1], -1)

    def step(
        self,
        params,
        before: Sequence[TextBefore],
        caches,
        ids_BT,
        cond_BTD,
        positions_BT,
        mask_BTS,
        write_at_B,
        num_logits,
    ):
        """A `decoding.state.ModelFn`, once `params` and `before` are given: the text in front of each
        row, () for none.
        """
        x_DM, _, new = self._trunk(
            params, caches, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, before
        )
        hidden_DM = feature_major.rms_norm(params["norm"], x_DM, self.config.norm_eps)
        batch, length = ids_BT.shape
        if num_logits < length:
            hidden_DBT = hidden_DM.reshape(-1, batch, length)[:, :, length - num_logits :]
            hidden_DM = hidden_DBT.reshape(-1, batch * num_logits)
        out_BTV = self.logits(params, hidden_DM.T).reshape(batch, num_logits, -1)
        return out_BTV, tuple(map(tuple, new))

    def heads(
        self,
        params,
        caches,
        ids_BT,
        cond_BCD,
        positions_BT,
        mask_BTS,
        write_at_B,
        count,
    ):
        """A `decoding.state.MultiTokenFn`, once `params` is given; see `Talker.heads`."""
        batch, length = ids_BT.shape
        x_DM, run, new = self._trunk(
            params, caches, ids_BT, cond_BCD[:, :length], positions_BT, mask_BTS, write_at_B
        )
        norms = [params["norm"], *(module["norm"] for module in params["modules"])]
        states = []
        for k in range(count):
            if k:
                cond_BTD = cond_BCD[:, k : k + length].astype(x_DM.dtype)
                cond_DM = cond_BTD.reshape(batch * length, -1).T
                weights = params["modules"][k - 1]["layer"]
                x_DM = run(weights, x_DM + cond_DM, self.config.num_layers + k - 1)
            normed_DM = feature_major.rms_norm(norms[k], x_DM, self.config.norm_eps)
            states.append(normed_DM.T.reshape(batch, length, -1))
        return tuple(states), tuple(map(tuple, new))

    def read_before(self, params, text_1N, count_1, slots: int) -> TextBefore:
        """What speech sees of a text in front of it (prefix anchors): of ids int32 [1, N], START among
        them, the first `count_1` [1], in caches of so many slots.
        """
        x_1ND = self.anchors(params, text_1N, method="prefix")
        place_N = jnp.arange(text_1N.shape[1])
        causal_1NN = (place_N[None, :] <= place_N[:, None])[None]
        first_1 = jnp.zeros(1, jnp.int32)
        empty = [self.empty_cache(slots)]
        _, _, (caches,) = self._layers(params, empty, x_1ND, place_N[None], causal_1NN, first_1)
        return TextBefore(tuple(caches), count_1)

    def read(self, params, symbols_BM, valid_BM) -> tuple[jax.Array, jax.Array]:
        """`Talker.read`: (features [B, M, D], log-durations [B, M]) of paced anchors."""
        reader, (batch, count) = params["reader"], symbols_BM.shape
        anchors = PacedAnchors(self.config.dim, self.config.symbols, self.config.symbol_lookahead)
        heads = self.config.dim // anchors.head_dim
        shape = LayerShape(heads, heads, anchors.head_dim)
        known_BMM = valid_BM[:, None, :] & valid_BM[:, :, None]
        frequencies_F = rope_frequencies(anchors.head_dim, anchors.rope_theta)
        rope_FM = feature_major.rope_columns(jnp.tile(jnp.arange(count), batch), frequencies_F)
        x_DM = reader["embed"]["embedding"][symbols_BM].reshape(batch * count, -1).T
        for i, right in enumerate(anchors.lookahead):
            # over a cache that holds nothing but these symbols
            cache = ColumnCache.zeros(batch, shape, count, x_DM.dtype)
            mask_BMM = known_BMM & jnp.asarray(anchors.window(count, right))[None]
            x_DM, _ = feature_major.decoder_layer(
                reader[f"layers_{i}"],
                shape,
                x_DM,
                mask_BMM,
                rope_FM,
                [cache],
                jnp.zeros(batch, jnp.int32),
            )
        x_DM = feature_major.rms_norm(reader["norm"], x_DM, 1e-6)
        hidden_DM = jax.nn.silu(feature_major.linear(reader["duration_in"], x_DM))
        durations_1M = feature_major.linear(
            reader["duration_out"], hidden_DM * self.config.output_scale
        )
        return x_DM.T.reshape(batch, count, -1), durations_1M.reshape(batch, count)

    def place(self, params, features_BMD, valid_BM, durations_BM, positions_BL) -> jax.Array:
        """`Talker.place`, conditions [B, L, D] of paced anchors, for few positions."""
        inputs = (features_BMD, valid_BM, durations_BM, positions_BL)
        text_BLE = self.anchors(params, *inputs, method="look_up")
        cond_DM = feature_major.linear(
            params["reader"]["join"], text_BLE.reshape(-1, text_BLE.shape[-1]).T
        )
        return cond_DM.T.reshape(*text_BLE.shape[:2], -1)

    def anchors(self, params, *args, method: str):
        """A method of `Talker` that needs its anchors only: "look_up", "fuse", "place_anchors",
        "prefix".
        """
        variables = {"anchors": params["anchors"], "inputs": {"table": params["inputs"]}}
        reader = Talker(dataclasses.replace(self.config, output_bias=False))
        return reader.apply({"params": variables}, *args, method=method)


@functools.cache
def _preparing(config: TalkerConfig) -> KeptProgram:
    """What lays a Talker's weights out, in one program."""
    return KeptProgram("Talker", "prepare", functools.partial(_prepared, config), config)


def _prepared(config: TalkerConfig, params: dict) -> dict[str, Any]:
    config, params = fold_tables(config, params)
    layers = [feature_major.prepare(params[f"layers_{i}"]) for i in range(config.num_layers)]
    modules = [
        {
            "layer": feature_major.prepare(params[f"mtp_layers_{k}"]),
            "norm": params[f"mtp_norms_{k}"],
        }
        for k in range(config.mtp_modules)
    ]
    table_VD = params["outputs"]["table"]
    padding = -len(table_VD) % _WHOLE
    prepared = {
        "layers": tuple(layers),
        "modules": tuple(modules),
        "inputs": params["inputs"]["table"],
        "outputs_DV": jnp.pad(table_VD, ((0, padding), (0, 0))).T,
        "norm": params["norm"],
        "anchors": params["anchors"],
    }
    if config.anchors == "paced":
        # what is read through it is laid out; the rest is all that `Talker.look_up` needs
        prepared["reader"] = feature_major.prepare(params["anchors"])
        prepared["anchors"] = {"inside": params["anchors"]["inside"]}
    if config.output_bias:
        prepared["output_bias_V"] = jnp.pad(params["output_bias"], (0, padding))
    return prepared


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


@dataclasses.dataclass(frozen=True)
class PreparedHeads:
    """A `decoding.state.MultiTokenFn` of a prepared Talker. Make it inside jit, around the
    parameters that are traced.
    """

    talker: PreparedTalker
    params: Any

    def __call__(self, *args):
        """See `PreparedTalker.heads`."""
        return self.talker.heads(self.params, *args)

    def logits(self, states: jax.Array) -> jax.Array:
        """States [..., D] of any heads -> logits [..., V]."""
        return self.talker.logits(self.params, states)
