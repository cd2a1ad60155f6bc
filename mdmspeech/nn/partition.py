"""How arrays lie on the mesh (data, fsdp, tensor): ONE table from logical axes to mesh axes, and
`constrain` for activations.

The layers name the axes of what they compute; this table alone says what is split over what.
Without a mesh in context (inference on one device, tests of a layer) nothing happens. An axis whose
size the devices do not divide stays whole.
"""

from collections.abc import Mapping, Sequence

import jax
from jax.sharding import PartitionSpec

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),  # records: every data-parallel and every FSDP device has its own
    "length": (),  # positions of a sequence: whole
    # the residual stream between layers: whole, so that parameters travel and activations do not
    "width": (),
    "heads": ("tensor",),  # attention heads, of parameters and activations
    "mlp": ("tensor",),  # hidden units of feed-forward layers, likewise
    "vocab": ("tensor",),  # rows of embedding tables, columns of logits
    # the model-width axis of parameters: memory split, gathered where it is used
    "embed": ("fsdp",),
    "none": (),  # whole
}
# records of the devices that hold the parameters together: each of them looks at all of these
RULES["group"] = tuple(axis for axis in RULES["batch"] if axis not in RULES["embed"])


def spec(
    *logical: str, shape: Sequence[int] | None = None, sizes: Mapping[str, int] | None = None
) -> PartitionSpec:
    """PartitionSpec of logical axis names.

    With `shape` and `sizes` (devices per mesh axis), a dimension whose size does not divide by its
    devices stays whole. Inside a `shard_map` over some axes, these are left out: arrays there are one
    device's part along them.

    Raises:
      ValueError: two dimensions would land on one mesh axis.
    """
    here = jax.sharding.get_abstract_mesh()
    apart = () if here.empty else here.manual_axes
    mapped = [tuple(axis for axis in RULES[name] if axis not in apart) for name in logical]
    if shape is not None and sizes is not None:
        mapped = [
            axes if n % _product(sizes, axes) == 0 else ()
            for n, axes in zip(shape, mapped, strict=True)
        ]
    used = [axis for axes in mapped for axis in axes]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {logical} use a mesh axis twice: {used}")
    return PartitionSpec(*[axes if axes else None for axes in mapped])


def on_one_device() -> bool:
    """Whether the mesh in context is of one device, or there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def constrain(x: jax.Array, *logical: str, padded: bool = False) -> jax.Array:
    """`x`, told to the compiler to lie as its logical axes say on the mesh in context
    (`jax.set_mesh`); unchanged without one.

    With `padded` an axis whose size the devices do not divide is split all the same: the compiler
    pads what each holds of it, and nothing of that is seen.

    Without such marks the compiler may split activations along the axis their parameters are split
    on, and move activations instead of parameters.
    """
    if on_one_device():
        return x
    mesh = jax.sharding.get_abstract_mesh()
    even = {} if padded else {"shape": x.shape, "sizes": mesh.shape}
    return jax.lax.with_sharding_constraint(x, spec(*logical, **even))


def lookup(table_VD: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a table [V, D] for int ids [B, T] -> [B, T, D]. The table is made whole along D
    first: else the rows come out split along D, where the layers want them split by batch, and the
    compiler moves all of them.
    """
    return constrain(constrain(table_VD, "vocab", "none")[ids], "batch", "length", "width")


def lookup_large(table_VD: jax.Array, ids: jax.Array) -> jax.Array:
    """As `lookup`, of a table with many more rows than a device has ids: the table stays where it is,
    and the rows travel. Each device looks up its columns for all ids of its group; then they change
    columns for records.
    """
    table_VD, ids = constrain(table_VD, "vocab", "embed"), constrain(ids, "group", "length")
    return constrain(
        constrain(table_VD[ids], "group", "length", "embed"), "batch", "length", "width"
    )


def axes_of(part: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Mesh axes of one dimension of a `PartitionSpec`."""
    return part if isinstance(part, tuple) else (part,) if part else ()


def _product(sizes: Mapping[str, int], axes: Sequence[str]) -> int:
    product = 1
    for axis in axes:
        product *= sizes[axis]
    return product
