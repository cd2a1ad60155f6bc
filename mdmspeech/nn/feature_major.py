"""The decoder layer of `nn.transformer`, for models that only run: activations feature by feature
[D, M], weights [N, K] as the left operand of every product.

Decoding has few columns M a forward (a block of 16 tokens, or one). As `x @ W` with few rows XLA's
CPU compiler copies ("packs") the whole of W at every call; as `W' @ x` it packs x. 16 rows of
1,024 x 8,192 take 6.8 ms the first way and 2.1 the second (2 AVX2 cores). Between the products
nothing is transposed, and the cache lies the same way. What comes out is what `LlamaBlock` gives,
up to the rounding of sums.

`prepare` lays the weights out, once; `decoder_layer` is one layer. D width, M = B x T columns (row
by row), H heads, K heads of keys and values, G = H / K, E head size, S cache slots.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from mdmspeech.nn.attention import fitted
from mdmspeech.nn.linear import widened
from mdmspeech.nn.tracing import platform

# Layers that read the same input are one product.
_JOINED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
_MASKED = -1e30
# rows of a `DroppingCache` that are written one by one
_WRITTEN_ALONE = 4


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """What a layer's weights do not say."""

    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float = 1e-6
    score_scale: float = 1.0


@struct.dataclass
class ColumnCache:
    """Keys (already rotated) and values of one layer, both [B, K, E, S]."""

    k_BKES: jax.Array
    v_BKES: jax.Array

    @classmethod
    def zeros(cls, batch: int, shape: LayerShape, slots: int, dtype: Any = jnp.float32) -> Self:
        size = (batch, shape.kv_heads, shape.head_dim, slots)
        return cls(jnp.zeros(size, dtype), jnp.zeros(size, dtype))

    @property
    def columns(self) -> int:
        """Positions there is room for."""
        return self.k_BKES.shape[-1]

    def fitted(self, rows: int, columns: int) -> Self:
        """As `nn.attention.KVCache.fitted`."""
        return jax.tree.map(lambda leaf: fitted(leaf, rows, columns, axis=-1), self)

    def write(self, k_BKET: jax.Array, v_BKET: jax.Array, write_at_B: jax.Array) -> Self:
        """New cache with k, v in slots write_at .. write_at+T-1 of each row, which must exist."""
        return type(self)(*_written((self.k_BKES, self.v_BKES), (k_BKET, v_BKET), write_at_B))


@struct.dataclass
class DroppingCache(ColumnCache):
    """A `ColumnCache` that may be written past its end: what has no slot is dropped (padded inputs,
    rows that are done).
    """

    def write(self, k_BKET: jax.Array, v_BKET: jax.Array, write_at_B: jax.Array) -> Self:
        """As `ColumnCache.write`; slots past the end are dropped. A single column always goes
        somewhere, into the last slot of a full row: only a row that is done may be written so.
        """
        length = k_BKET.shape[-1]
        if length == 1:
            write = _written_apart if platform() == "cpu" else _written
            return type(self)(*write((self.k_BKES, self.v_BKES), (k_BKET, v_BKET), write_at_B))

        def put(whole: jax.Array, part_BKET: jax.Array, write_at_B: jax.Array) -> jax.Array:
            part_BKET = part_BKET.astype(whole.dtype)
            first_B = jnp.minimum(write_at_B, whole.shape[-1] - length)
            late_B = jnp.minimum(write_at_B - first_B, length)
            for b in range(whole.shape[0]):  # see `ColumnCache.write`
                at, size = (b, 0, 0, first_B[b]), (1, *part_BKET.shape[1:])
                old = jax.lax.dynamic_slice(whole, at, size)
                both = jnp.concatenate([old, part_BKET[b : b + 1]], axis=3)
                moved = jax.lax.dynamic_slice_in_dim(both, length - late_B[b], length, axis=3)
                new = jnp.where(jnp.arange(length) < late_B[b], old, moved)
                whole = jax.lax.dynamic_update_slice(whole, new, at)
            return whole

        if len(write_at_B) > _WRITTEN_ALONE:  # one small program, whatever the number of rows
            alone = put
            put = jax.vmap(lambda *row: alone(*(leaf[None] for leaf in row))[0])
        both = (self.k_BKES, k_BKET), (self.v_BKES, v_BKET)
        return type(self)(*(put(whole, part_BKET, write_at_B) for whole, part_BKET in both))


def _written(
    both: tuple[jax.Array, jax.Array],
    parts: tuple[jax.Array, jax.Array],
    write_at_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def put(whole: jax.Array, part_BKET: jax.Array) -> jax.Array:
        part_BKET = part_BKET.astype(whole.dtype)
        # A row after the other: each is written in place, whatever the size of the cache.
        for b in range(whole.shape[0]):
            at = (b, 0, 0, write_at_B[b])
            whole = jax.lax.dynamic_update_slice(whole, part_BKET[b : b + 1], at)
        return whole

    return put(both[0], parts[0]), put(both[1], parts[1])


def _written_apart(
    both: tuple[jax.Array, jax.Array],
    parts: tuple[jax.Array, jax.Array],
    write_at_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`_written` behind a wall: in a loop of one turn, which the compiler does not know to be one.

    XLA's CPU compiler takes the write of a single column for cheap, and does it twice: for whoever
    attends and for the next forward, each on a copy of the whole cache. A token of SmolLM2-135M
    with room for 1,024 then takes 52 ms instead of 27 (2 cores of an AMD EPYC).
    """
    once = jnp.all(write_at_B >= 0)

    def write(carry):
        return jnp.zeros_like(once), _written(carry[1], parts, write_at_B)

    return jax.lax.while_loop(lambda carry: carry[0], write, (once, both))[1]


def prepare(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `LlamaBlock`s (or a tree with some in it) as `decoder_layer` reads them: each
    linear layer's kernel [K, N] as `weight` [N, K], q, k, v in one, gate and up in one. What is no
    linear layer stays, and so does what was prepared before; a low-rank update (`models.lora`) must
    have been fused. Layers that are stacked: `jax.vmap` of this.
    """
    out = {
        name: prepare(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
    }
    if set(out) <= {"kernel", "bias"} and getattr(out.get("kernel"), "ndim", 0) == 2:
        out["weight"] = jnp.asarray(out.pop("kernel")).T
    for name, parts in _JOINED.items():
        layers = [out[part] for part in parts if isinstance(out.get(part), dict)]
        if len(layers) == len(parts) and all("weight" in layer for layer in layers):
            out = {key: value for key, value in out.items() if key not in parts}
            out[name] = _joined(layers)
    return out


def _joined(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    joined = {"weight": jnp.concatenate([layer["weight"] for layer in layers])}
    if any("bias" in layer for layer in layers):
        # one without a bias has a bias of zeros
        zeros = [jnp.zeros(layer["weight"].shape[0], jnp.float32) for layer in layers]
        joined["bias"] = jnp.concatenate(
            [layer.get("bias", zero) for layer, zero in zip(layers, zeros, strict=True)]
        )
    return joined


def linear(params: Mapping[str, Any], x_KM: jax.Array) -> jax.Array:
    """weight [N, K] (and bias [N]) of `prepare` on columns [K, M] -> [N, M]."""
    columns = x_KM.shape[1]
    y_NM = params["weight"] @ widened(x_KM.astype(params["weight"].dtype), 1)
    y_NM = y_NM[:, :columns]
    return y_NM + params["bias"][:, None].astype(y_NM.dtype) if "bias" in params else y_NM


def rms_norm(params: Mapping[str, Any], x: jax.Array, eps: float, axis: int = 0) -> jax.Array:
    """`nn.norms.RMSNorm` over `axis`."""
    scale = params["scale"].reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=axis, keepdims=True) + eps)
    return (normed * scale).astype(x.dtype)


def rope_columns(
    positions_M: jax.Array, frequencies_F: Any, attention_factor: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """`nn.rope.rope_table` of columns at int positions [M]: (cos, sin) [F, M]."""
    angles_FM = jnp.asarray(frequencies_F)[:, None] * positions_M[None, :].astype(jnp.float32)
    if attention_factor == 1.0:
        return jnp.cos(angles_FM), jnp.sin(angles_FM)
    return jnp.cos(angles_FM) * attention_factor, jnp.sin(angles_FM) * attention_factor


def decoder_layer(
    params: Mapping[str, Any],
    shape: LayerShape,
    x_DM: jax.Array,
    mask_BTS: jax.Array,
    rope_FM: tuple[jax.Array, jax.Array],
    caches: Sequence[ColumnCache],
    write_at_B: jax.Array,
    before: Sequence[ColumnCache] = (),
) -> tuple[jax.Array, tuple[ColumnCache, ...]]:
    """x [D, M] through one layer, over its cache.

    Args:
      mask_BTS: bool, True = may attend; the first S slots are looked at, of `before` and behind it
        of the cache.
      rope_FM: (cos, sin) [head_dim / 2, M] of the columns' positions.
      caches: of consecutive rows, one or more each; together B rows. A row's cache is never moved,
        so that rows can join and leave a batch.
      write_at_B: int32, first slot of the cache that each row writes.
      before: what every row sees in front of its cache and never writes, one for each of `caches`
        and all equally long; () for nothing.

    Returns:
      (x [D, M], the new caches).
    """
    attention, mlp = params["attn"], params["mlp"]
    heads_M = linear(attention["qkv"], rms_norm(params["attn_norm"], x_DM, shape.norm_eps))
    out_M, new = _attention(
        attention, shape, heads_M, mask_BTS, rope_FM, caches, write_at_B, before
    )
    x_DM = x_DM + linear(attention["o"], out_M)
    both_M = linear(mlp["gate_up"], rms_norm(params["mlp_norm"], x_DM, shape.norm_eps))
    gate_M, up_M = jnp.split(both_M, 2, axis=0)
    return x_DM + linear(mlp["down"], jax.nn.silu(gate_M) * up_M), new


def _attention(params, shape, all_M, mask_BTS, rope_FM, caches, write_at_B, before):
    """[H E, M] of queries, keys and values, together [(H + 2K) E, M]."""
    heads, kv, dim = shape.heads, shape.kv_heads, shape.head_dim
    # queries and keys in one: the same norm and rotation, few operations
    both_JEM = all_M[: (heads + kv) * dim].reshape(heads + kv, dim, -1)
    v_KEM = all_M[(heads + kv) * dim :].reshape(kv, dim, -1)
    scale_J11 = jnp.where(jnp.arange(heads + kv) < heads, shape.score_scale * dim**-0.5, 1.0)
    scale_JE1 = scale_J11[:, None, None]
    if "q_norm" in params:
        norms = [
            jnp.tile(params[f"{x}_norm"]["scale"], (n, 1)) for x, n in (("q", heads), ("k", kv))
        ]
        both32 = both_JEM.astype(jnp.float32)
        mean_J1M = jnp.mean(jnp.square(both32), axis=1, keepdims=True)
        scale_JE1 = scale_JE1 * jnp.concatenate(norms)[:, :, None]
        both_JEM = (both32 * jax.lax.rsqrt(mean_J1M + shape.norm_eps)).astype(both_JEM.dtype)
    both_JEM = _rotated(both_JEM * scale_JE1.astype(both_JEM.dtype), *rope_FM)
    q_HEM, k_KEM = both_JEM[:heads], both_JEM[heads:]
    new, out, first = [], [], 0
    for i, cache in enumerate(caches):
        rows, length = cache.k_BKES.shape[0], mask_BTS.shape[1]
        here = slice(first * length, (first + rows) * length)
        mine = slice(first, first + rows)
        split = [_by_row(x[..., here], rows) for x in (k_KEM, v_KEM)]
        cache = cache.write(*split, write_at_B[mine])
        out.append(_attend(q_HEM[..., here], [*before[i : i + 1], cache], mask_BTS[mine]))
        new.append(cache)
        first += rows
    return (out[0] if len(out) == 1 else jnp.concatenate(out, axis=-1)), tuple(new)


def _rotated(x_HEM: jax.Array, cos_FM: jax.Array, sin_FM: jax.Array) -> jax.Array:
    """`nn.rope.apply_rope` of columns."""
    first, second = jnp.split(x_HEM.astype(jnp.float32), 2, axis=1)
    cos, sin = cos_FM[None], sin_FM[None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1).astype(
        x_HEM.dtype
    )


def _by_row(x_KEM: jax.Array, rows: int) -> jax.Array:
    """[K, E, B x T] -> [B, K, E, T]."""
    kv, dim, columns = x_KEM.shape
    if rows == 1:
        return x_KEM[None]
    return x_KEM.reshape(kv, dim, rows, columns // rows).transpose(2, 0, 1, 3)


def _attend(q_HEM: jax.Array, caches: Sequence[ColumnCache], mask_BTS: jax.Array) -> jax.Array:
    """softmax(q k) v of scaled queries [H, E, M] over caches, one behind the other, of the last as
    much as the mask has -> [H E, M]; a query that may see nothing gets some finite vector.
    """
    heads, dim, columns = q_HEM.shape
    rows, kv = caches[-1].k_BKES.shape[:2]
    length, slots = mask_BTS.shape[1:]
    ends = [*itertools.accumulate(one.k_BKES.shape[-1] for one in caches[:-1]), slots]
    sizes = [end - first for first, end in itertools.pairwise([0, *ends])]
    looked_at = [
        [x[..., :size].astype(q_HEM.dtype) for x in (one.k_BKES, one.v_BKES)]
        for one, size in zip(caches, sizes, strict=True)
    ]
    # query heads that share a key head stand side by side: [B, K, E, G x T]
    q_BKGET = _by_row(q_HEM, rows).reshape(rows, kv, heads // kv, dim, length)
    q_BKEN = jnp.moveaxis(q_BKGET, 2, 3).reshape(rows, kv, dim, -1)
    batched = ((0, 1), (0, 1))
    scores = [
        jax.lax.dot_general(
            q_BKEN, k_BKES, (((2,), (2,)), batched), preferred_element_type=jnp.float32
        )
        for k_BKES, _ in looked_at
    ]
    scores_BKNS = jnp.concatenate(scores, axis=-1) if len(scores) > 1 else scores[0]
    mask_BKNS = jnp.tile(mask_BTS[:, None], (1, 1, heads // kv, 1))
    scores_BKNS = jnp.where(mask_BKNS, scores_BKNS, _MASKED)
    weights_BKNS = jnp.exp(scores_BKNS - scores_BKNS.max(axis=-1, keepdims=True))
    weights_BKNS = (weights_BKNS / weights_BKNS.sum(axis=-1, keepdims=True)).astype(q_HEM.dtype)
    parts = jnp.split(weights_BKNS, ends[:-1], axis=-1)
    out = [
        jax.lax.dot_general(v_BKES, part_BKNS, (((3,), (3,)), batched))
        for (_, v_BKES), part_BKNS in zip(looked_at, parts, strict=True)
    ]
    out_BKEN = functools.reduce(operator.add, out)
    out_BKEGT = out_BKEN.reshape(rows, kv, dim, heads // kv, length)
    # head, then feature, then row by row
    return out_BKEGT.transpose(1, 3, 2, 0, 4).reshape(heads * dim, columns)
