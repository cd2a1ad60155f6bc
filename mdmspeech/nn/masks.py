"""Attention masks that are described, not written out: a rule over a few integers a position, and
segments of packed rows.

A dense bool [B, T, T] mask of 8 x 1024 tokens is 64 MB a row. Here the static part is a `Pattern`,
integer vectors [T] (position, block, stream) and a rule that compares those of a query with those
of a key: the backends read off it which tiles of the matrix are empty, full or mixed, before
anything runs. The dynamic part is the segment ids of packed rows. `mdmspeech.nn.backends.attend`
takes an `AttentionMask` wherever it takes a dense mask. B batch, T positions.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mdmspeech.errors import UserError

# rule(*vectors of the queries, *vectors of the keys) -> bool, elementwise over broadcastable
# integer arrays, numpy or jax. Equality decides what compiles again: give a module-level function
# or a hashable callable, not a lambda made anew each time.
MaskMod = Callable[..., Any]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Pattern:
    """Who may attend to whom, whatever the batch: equal, and of equal hash, by content. Every
    position sees itself (else ValueError).
    """

    mask_mod: MaskMod
    vectors: tuple[np.ndarray, ...]  # int32 [T] each

    def __post_init__(self):
        vectors = tuple(np.array(v, np.int32) for v in self.vectors)
        if len({v.shape for v in vectors}) != 1 or vectors[0].ndim != 1:
            raise ValueError(
                f"a pattern needs vectors of one length, got shapes {[v.shape for v in vectors]}"
            )
        for vector in vectors:
            vector.flags.writeable = False
        object.__setattr__(self, "vectors", vectors)
        if not np.all(self.mask_mod(*vectors, *vectors)):
            raise ValueError(
                "a position that may not attend to itself: its softmax could be "
                "empty, which fused kernels cannot express"
            )

    @property
    def length(self) -> int:
        """T."""
        return len(self.vectors[0])

    def allowed(self, rows: slice, columns: slice) -> np.ndarray:
        """bool [rows, columns]: a piece of the matrix, computed here and now."""
        queries, keys = ([vector[part] for vector in self.vectors] for part in (rows, columns))
        piece = self.mask_mod(*(q[:, None] for q in queries), *(k[None, :] for k in keys))
        return np.broadcast_to(piece, (len(queries[0]), len(keys[0])))

    def compare(self, rows: slice, columns: slice) -> jax.Array:
        """The same as operations in the program: no constant of that size."""
        queries, keys = (
            [jnp.asarray(vector[part]) for vector in self.vectors] for part in (rows, columns)
        )
        piece = self.mask_mod(*(q[:, None] for q in queries), *(k[None, :] for k in keys))
        return jnp.broadcast_to(piece, (len(queries[0]), len(keys[0])))

    @functools.cached_property
    def _content(self) -> tuple[MaskMod, tuple[bytes, ...]]:
        return self.mask_mod, tuple(vector.tobytes() for vector in self.vectors)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._content)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Pattern)
            and self._hash == other._hash
            and self._content == other._content
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Pattern({getattr(self.mask_mod, '__name__', self.mask_mod)}, length {self.length})"


@struct.dataclass
class AttentionMask:
    """A pattern and, for packed or padded rows, segment ids: a token attends only within its
    segment; segment 0 is padding, which attends to nothing, is attended by nothing and gives zeros.
    `segment_BT`: int32 [B, T], or None = one segment, no padding.
    """

    pattern: Pattern = struct.field(pytree_node=False)
    segment_BT: jax.Array | None = None

    @property
    def length(self) -> int:
        """T."""
        return self.pattern.length

    def part(self, rows: slice, columns: slice) -> jax.Array:
        """bool [B or 1, rows, columns]; B where there are segments."""
        piece = self.pattern.compare(rows, columns)[None]
        if self.segment_BT is None:
            return piece
        query, key = self.segment_BT[:, rows, None], self.segment_BT[:, None, columns]
        return piece & (query == key) & (key != 0)

    def dense(self) -> jax.Array:
        """bool [B or 1, T, T], True = may attend."""
        return self.part(slice(None), slice(None))


# what attention layers take: bool [B or 1, T, S],
# True = may attend; or its description, where S = T
Mask = jax.Array | AttentionMask


def _not_later(query, key):
    return key <= query


def _anything(query, key):
    return (query == query) & (key == key)


@functools.lru_cache(maxsize=64)
def _causal(length: int, block: int) -> Pattern:
    return Pattern(_not_later, (np.arange(length) // block,))


@functools.lru_cache(maxsize=64)
def _full(length: int) -> Pattern:
    return Pattern(_anything, (np.zeros(length, np.int32),))


def causal(length: int, block: int = 1, segment_BT: jax.Array | None = None) -> AttentionMask:
    """Causal across blocks of `block` positions and full inside a block; 1 is plain causality.

    In packed rows the blocks are the row's own: segments must start at multiples of `block`.
    UserError for a block below 1.
    """
    if block < 1:
        raise UserError(f"block size {block}: a block holds at least one token")
    return AttentionMask(_causal(length, block), segment_BT)


def full(length: int, segment_BT: jax.Array | None = None) -> AttentionMask:
    """Everybody sees everybody (of its segment)."""
    return AttentionMask(_full(length), segment_BT)


def from_mask_mod(
    mask_mod: MaskMod, vectors: Sequence[np.ndarray], segment_BT: jax.Array | None = None
) -> AttentionMask:
    """Any rule: `from_mask_mod(layout.allow, layout.two_stream(length, block),
    layout.twice(segment_BL))` is the two-stream mask.
    """
    return AttentionMask(Pattern(mask_mod, tuple(vectors)), segment_BT)
