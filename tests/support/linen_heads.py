"""A Talker as it is trained, with modules of multi-token prediction, as `decoding.multi_token` sees
it: what the prepared one (`models.prepared_talker.PreparedHeads`) is compared with.
"""

import dataclasses
from typing import Any

import jax

from mdmspeech.models.talker import Talker
from mdmspeech.nn.attention import KVCache


@dataclasses.dataclass(frozen=True)
class TalkerHeads:
    """One forward of the trunk and of the modules that are asked for, over their K/V caches: a
    `decoding.state.MultiTokenFn`. Make it inside jit, around the parameters that are traced.
    """

    model: Talker
    params: Any

    def __call__(
        self,
        cache: tuple[KVCache, ...],
        ids_BT: jax.Array,
        cond_BCD: jax.Array,
        positions_BT: jax.Array,
        mask_BTS: jax.Array,
        write_at_B: jax.Array,
        heads: int,
    ) -> tuple[tuple[jax.Array, ...], tuple[KVCache, ...]]:
        """See `decoding.state.MultiTokenFn`. UserError: more heads than the Talker has."""
        return self.model.apply(
            {"params": self.params},
            ids_BT,
            cond_BCD,
            mask_BTS,
            positions_BT,
            cache,
            write_at_B,
            heads,
            method="heads",
        )

    def logits(self, states: jax.Array) -> jax.Array:
        """States [..., D] of any heads -> logits [..., V]."""
        return self.model.apply({"params": self.params}, states, method="logits")
