"""TPU splash attention for described masks: memory linear in the length, and no work for empty
tiles of the matrix.

The kernel is JAX's own (jax.experimental.pallas.ops.tpu.splash_attention), forward and backward.
Here are the pieces around it: the mask as tiles, made one by one from the pattern so that the whole
matrix never exists; lengths padded to whole tiles; and segment ids.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as tiles
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as infos

from mdmspeech.nn.masks import AttentionMask, Pattern

# checkpoint name of the output and log-sum-exp, for rematerialisation policies that keep them
SAVED = "attention"
_TILES = (512, 384, 256, 128)  # multiples of the width of a TPU's vector registers


def tile_size(length: int) -> tuple[int, int]:
    """(tile, padded length) for `length` positions: the largest tile that adds at most a sixteenth,
    else one register's width.
    """
    for tile in _TILES:
        padded = -(-length // tile) * tile
        if padded - length <= length // 16:
            break
    return tile, padded


def splash_attention(
    q_BTHD: jax.Array,
    k_BTKD: jax.Array,
    v_BTKD: jax.Array,
    mask: AttentionMask,
    *,
    interpret: bool = False,
) -> jax.Array:
    """softmax(q k' / sqrt(D)) v -> [B, T, H, D] in q's dtype, accumulated in float32; padding
    (segment 0) gives zeros.

    For one device: under a mesh it belongs into a `shard_map` (`nn.backends.over_mesh`), since the
      partitioner cannot split a kernel.
    `interpret` runs the kernel's program on any device, slowly, for tests.
    """
    length, dim = q_BTHD.shape[1], q_BTHD.shape[3]
    tile, padded = tile_size(length)

    def heads_first(x_BTHD):
        return jnp.pad(x_BTHD, ((0, 0), (0, padded - length), (0, 0), (0, 0))).swapaxes(1, 2)

    q, k, v = heads_first(q_BTHD * dim**-0.5), heads_first(k_BTKD), heads_first(v_BTKD)
    segments = None
    if mask.segment_BT is not None:
        padded_BT = jnp.pad(mask.segment_BT.astype(jnp.int32), ((0, 0), (0, padded - length)))
        segments = kernels.SegmentIds(padded_BT, padded_BT)
    out_BHTD = jax.vmap(_kernel(mask.pattern, tile, padded, interpret))(q, k, v, segments)
    out_BTHD = out_BHTD.swapaxes(1, 2)[:, :length]
    if mask.segment_BT is None:
        return out_BTHD
    # in the kernel padding attends to padding
    return jnp.where((mask.segment_BT != 0)[:, :, None, None], out_BTHD, 0)


@functools.lru_cache(maxsize=64)
def _kernel(pattern: Pattern, tile: int, padded: int, interpret: bool) -> Callable[..., Any]:
    """The kernel with its list of tiles, as numpy arrays (made inside a trace, yet no tracers, so
    that all layers share it).
    """
    mask = tiles.MultiHeadMask([_Tiles(pattern, padded)])  # one for all heads
    by_query, _ = infos.process_mask(mask, (tile, tile))
    by_key, _ = infos.process_mask_dkv(mask, (tile, tile))
    sizes = kernels.BlockSizes(
        block_q=tile,
        block_kv=tile,
        block_q_dkv=tile,
        block_kv_dkv=tile,
        block_q_dq=tile,
        block_kv_dq=tile,
    )
    return kernels.SplashAttentionKernel(
        by_query,  # the forward pass
        by_query,  # the gradient of q
        by_key,  # the gradients of k and v
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=kernels.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=SAVED,
        mask_function=None,
        interpret=interpret,
    )


class _Tiles(tiles.Mask):
    """A pattern as splash attention's mask; the positions after its end are padding, which sees
    only padding.

    The kernel's set-up asks for every tile several times: the few that differ are kept, full and
    empty ones as broadcast scalars.
    """

    def __init__(self, pattern: Pattern, padded: int):
        self._pattern, self._padded = pattern, padded
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        self._mixed: dict[bytes, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return self._padded, self._padded

    def __getitem__(self, index) -> np.ndarray:
        rows, columns = index
        key = (rows.start, rows.stop, columns.start, columns.stop)
        if key not in self._known:
            self._known[key] = self._shared(self._tile(rows, columns))
        return self._known[key]

    def _tile(self, rows: slice, columns: slice) -> np.ndarray:
        end = self._pattern.length
        tile = np.arange(rows.start, rows.stop)[:, None] >= end
        tile = tile & (np.arange(columns.start, columns.stop)[None, :] >= end)
        real = self._pattern.allowed(rows, columns)
        tile[: real.shape[0], : real.shape[1]] = real
        return tile

    def _shared(self, tile: np.ndarray) -> np.ndarray:
        if tile.all() or not tile.any():
            return np.broadcast_to(tile.flat[0], tile.shape)
        return self._mixed.setdefault(tile.tobytes(), tile)
