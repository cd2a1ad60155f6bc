"""Attention at length: time on this machine, and memory on a TPU chip as its compiler plans it, of
dense and described masks.

Command: make bench-attention (about three minutes on 2 cores without other load). Not an experiment
  with a config, and no test.

One layer's gradient, [noisy ; clean] of L tokens in blocks of 16: the two-stream mask of stage 3
over 2 L positions. "dense" writes the mask out and keeps every score for the backward pass;
"described" is what training uses (mdmspeech/nn/masks.py).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mdmspeech.diffusion import layout
from mdmspeech.nn import masks
from mdmspeech.nn.backends import attend
from mdmspeech.nn.tracing import attention_backend
from mdmspeech.planning.topology import parse

BLOCK = 16
# rows, L, heads, head size
HERE = [(4, 256, 4, 64), (2, 512, 4, 64), (1, 1024, 4, 64), (1, 2048, 4, 64)]
TPU, SLICE = [(4, 1024, 8, 128), (4, 4096, 8, 128)], "v5e:2x2"


def gradient(length: int, described: bool):
    """(q, k, v, segment ids) -> gradients of q, k, v."""
    pattern = masks.from_mask_mod(layout.mask_mod, layout.two_stream(length, BLOCK)).pattern

    def loss(q, k, v, segment_BT):
        mask = masks.AttentionMask(pattern, segment_BT)
        return attend(q, k, v, mask if described else mask.dense()).astype(jnp.float32).sum()

    return jax.jit(jax.grad(loss, (0, 1, 2)))


def row(*cells):
    """A line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def here():
    """Seconds of the best of five runs, and temporary memory."""
    print(f"\nThis machine ({jax.devices()[0].device_kind}), float32:\n")
    row("rows", "positions", "heads", "mask", "seconds", "temporary MB")
    row(*["---"] * 6)
    for batch, length, heads, dim in HERE:
        x = jax.random.normal(jax.random.key(0), (batch, 2 * length, heads, dim))
        segment_BT = jnp.ones((batch, 2 * length), jnp.int32)
        for described in (False, True):
            compiled = gradient(length, described).lower(x, x, x, segment_BT).compile()
            seconds = []
            for _ in range(6):
                start = time.perf_counter()
                jax.block_until_ready(compiled(x, x, x, segment_BT))
                seconds.append(time.perf_counter() - start)
            megabytes = compiled.memory_analysis().temp_size_in_bytes / 1e6
            row(
                batch,
                f"2 x {length}",
                heads,
                "described" if described else "dense",
                f"{min(seconds[1:]):.3f}",
                f"{megabytes:.1f}",
            )


def tpu():
    """Temporary memory of a chip of `SLICE`, 2 of the 4 rows, half of the heads; what the compiler
    keeps on the core (VMEM) is not in it.
    """
    mesh = Mesh(
        np.array(parse(SLICE).devices()).reshape(1, 2, 2),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
    )
    print(f"\nA chip of {SLICE} (fsdp 2, tensor 2), bfloat16, compiled ahead of time:\n")
    row("rows", "positions", "heads", "mask", "temporary MB of HBM a chip")
    row(*["---"] * 5)
    for batch, length, heads, dim in TPU:

        def array(dtype, *shape):
            split = (
                PartitionSpec(("data", "fsdp"), None, "tensor")
                if len(shape) == 4
                else PartitionSpec(("data", "fsdp"))
            )
            return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, split))

        x = array(jnp.bfloat16, batch, 2 * length, heads, dim)
        for described in (False, True):
            with jax.set_mesh(mesh), attention_backend("tpu"):
                compiled = (
                    gradient(length, described)
                    .lower(x, x, x, array(jnp.int32, batch, 2 * length))
                    .compile()
                )
            megabytes = compiled.memory_analysis().temp_size_in_bytes / 1e6
            row(
                batch,
                f"2 x {length}",
                heads,
                "described" if described else "dense",
                f"{megabytes:.1f}",
            )


if __name__ == "__main__":
    here()
    tpu()
