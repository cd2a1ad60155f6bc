"""`attend`: one attention function, and the only place that knows what computes it on which
machine.

- splash   TPU, described masks from 256 positions on: JAX's own fused kernel, memory linear in the length (`nn.splash`)
- cudnn    GPU, half precision: the fused kernel behind `jax.nn.dot_product_attention`
- xla      every other case on an accelerator: `jax.nn.dot_product_attention` as plain operations
- tiles    CPU, described masks from 512 positions on: the same idea as plain operations (`nn.tiles`)
- heads    CPU otherwise: a loop over heads, which XLA's CPU compiler turns into plain matrix
           products (measured on 2 cores, 32 rows of 200 positions, 8 heads of 64:
           80 GFLOP/s forward and 108 with backward, against 27 and 45 for one contraction)
- grouped  CPU, a single query: all heads in one contraction
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mdmspeech.nn.masks import AttentionMask, Mask
from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.nn.partition import axes_of, spec
from mdmspeech.nn.tiles import tiled_attention
from mdmspeech.nn.tracing import platform

# finite, so that a fully masked row gives a number
# (zeroed afterwards) and never NaN, in gradients too
_MASKED = -1e30
_SPLASH_FROM, _TILES_FROM, _CUDNN_FROM = 256, 512, 64  # query positions


def attend(q_BTHD: jax.Array, k_BSKD: jax.Array, v_BSKD: jax.Array, mask: Mask) -> jax.Array:
    """softmax(q k' / sqrt(D)) v with H/K query heads sharing each K/V head -> [B, T, H, D] in q's
    dtype.

    Args:
      mask: bool [B or 1, T, S], True = may attend; or an `AttentionMask` of T = S positions. A row
        that may attend nothing gives zeros.
    """
    queries, keys, dim = q_BTHD.shape[1], k_BSKD.shape[1], q_BTHD.shape[3]
    described = isinstance(mask, AttentionMask)
    way = formulation(platform(), described, queries, keys, dim, q_BTHD.dtype, _fused_on_this_gpu())
    if isinstance(mask, AttentionMask):
        if not mask.length == queries == keys:
            raise ValueError(
                f"a mask for {mask.length} positions met {queries} queries and "
                f"{keys} keys; over a cache, give a dense one"
            )
        if way == "splash":
            # here: it imports Pallas, half a second that only a TPU has use for
            from mdmspeech.nn.splash import splash_attention

            return over_mesh(splash_attention, q_BTHD, k_BSKD, v_BSKD, mask)
        if way == "tiles":
            return over_mesh(tiled_attention, q_BTHD, k_BSKD, v_BSKD, mask)
        mask = mask.dense()
    if way == "cudnn":
        out_BTHD = jax.nn.dot_product_attention(
            q_BTHD, k_BSKD, v_BSKD, mask=mask[:, None], implementation="cudnn"
        )
    elif way == "xla":
        out_BTHD = jax.nn.dot_product_attention(
            q_BTHD, k_BSKD, v_BSKD, mask=mask[:, None], implementation="xla"
        )
    elif way == "grouped":
        out_BTHD = _attend_grouped(q_BTHD, k_BSKD, v_BSKD, mask)
    else:
        out_BTHD = _attend_by_head(q_BTHD, k_BSKD, v_BSKD, mask)
    return jnp.where(mask.any(axis=-1)[:, :, None, None], out_BTHD, 0).astype(q_BTHD.dtype)


def over_mesh(
    local: Callable[..., jax.Array],
    q_BTHD: jax.Array,
    k_BTKD: jax.Array,
    v_BTKD: jax.Array,
    mask: AttentionMask,
) -> jax.Array:
    """`local(q, k, v, mask)` on each device of the mesh in context (`jax.set_mesh`): rows over the
    batch axes, heads over the tensor axis, where they divide. For kernels and loops, which the
    partitioner cannot look into; without a mesh, a plain call."""
    mesh = jax.sharding.get_abstract_mesh()
    # the last: already inside a shard_map, so this is one device's part
    if mesh.empty or mesh.size == 1 or not mesh.auto_axes:
        return local(q_BTHD, k_BTKD, v_BTKD, mask)
    split = spec("batch", "length", "heads", "none", shape=q_BTHD.shape, sizes=mesh.shape)
    # A device needs the K/V heads of its query heads:
    # copies, where there are fewer K/V heads than shards.
    kv_heads, shards = k_BTKD.shape[2], math.prod(mesh.shape[a] for a in axes_of(split[2]))
    copies = math.lcm(kv_heads, shards) // kv_heads
    k_BTKD, v_BTKD = (x if copies == 1 else jnp.repeat(x, copies, axis=2) for x in (k_BTKD, v_BTKD))
    return jax.shard_map(
        lambda q, k, v, segment_BT: local(q, k, v, AttentionMask(mask.pattern, segment_BT)),
        in_specs=(split, split, split, PartitionSpec(*split[:2])),
        out_specs=split,
        axis_names=set(mesh.auto_axes),
        check_vma=False,  # a kernel does not say how its results vary over the mesh
    )(q_BTHD, k_BTKD, v_BTKD, mask.segment_BT)


def formulation(
    platform: str, described: bool, queries: int, keys: int, dim: int, dtype, cudnn: bool
) -> str:
    """The name, in the table above, of what computes attention.

    Args:
      platform: "cpu", "gpu" or "tpu"; described: the mask is an `AttentionMask`; queries, keys:
        lengths T and S; dim: head size.
      cudnn: this process sees a GPU on which cuDNN has fused attention.
    """
    if platform == "cpu":
        if described and queries >= _TILES_FROM:
            return "tiles"
        return "grouped" if queries == 1 else "heads"
    if platform == "tpu" and described and queries >= _SPLASH_FROM:
        return "splash"
    half = dtype in (jnp.bfloat16, jnp.float16)
    # cuDNN's own limits: head size a multiple of 8 up to 128 (256 from Hopper on), and even lengths
    # where there is a gradient.
    fits = dim % 8 == 0 and dim <= 128 and queries % 2 == 0 and keys % 2 == 0
    if platform == "gpu" and cudnn and half and fits and queries >= _CUDNN_FROM:
        return "cudnn"
    return "xla"


def _fused_on_this_gpu() -> bool:
    """Whether this process sees NVIDIA GPUs of compute capability 8 (Ampere) or newer."""
    if jax.default_backend() != "gpu":
        return False
    # ROCm names architectures, "gfx942"
    capability = getattr(jax.local_devices()[0], "compute_capability", "0")
    return capability[:1].isdigit() and float(capability) >= 8.0


def _attend_by_head(
    q_BTHD: jax.Array, k_BSKD: jax.Array, v_BSKD: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """One pair of batched matrix products a head; the division by the sum is done on the (smaller)
    output.
    """
    heads, group = q_BTHD.shape[2], q_BTHD.shape[2] // k_BSKD.shape[2]
    scale = q_BTHD.shape[-1] ** -0.5
    outs = []
    for head in range(heads):
        k_BSD, v_BSD = k_BSKD[:, :, head // group], v_BSKD[:, :, head // group]
        scores_BTS = matmul(q_BTHD[:, :, head] * scale, k_BSD.swapaxes(1, 2), jnp.float32)
        weights_BTS, total_BT1 = _exp(scores_BTS, mask_BTS)
        outs.append(matmul(weights_BTS.astype(v_BSD.dtype), v_BSD) / total_BT1.astype(v_BSD.dtype))
    return jnp.stack(outs, axis=2)


def _attend_grouped(
    q_BTHD: jax.Array, k_BSKD: jax.Array, v_BSKD: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """All heads in one contraction: for a single query a loop over heads costs more in overhead
    than in arithmetic.
    """
    batch, length, heads, dim = q_BTHD.shape
    q_BTKGD = q_BTHD.reshape(batch, length, k_BSKD.shape[2], -1, dim) * dim**-0.5
    scores = jnp.einsum("btkgd,bskd->bkgts", q_BTKGD, k_BSKD, preferred_element_type=jnp.float32)
    weights, total = _exp(scores, mask_BTS[:, None, None])
    out = jnp.einsum("bkgts,bskd->btkgd", (weights / total).astype(v_BSKD.dtype), v_BSKD)
    return out.reshape(batch, length, heads, dim)


def _exp(scores: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unnormalised softmax over the last axis, in float32: (exponentials, their sum)."""
    scores = jnp.where(mask, scores, _MASKED)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    return weights, weights.sum(axis=-1, keepdims=True)
