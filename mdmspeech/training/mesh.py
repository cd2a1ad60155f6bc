"""One device mesh for every run: axes (data, fsdp, tensor). A mesh of one device is the single-device path."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mdmspeech.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),  # records: every data-parallel and every FSDP device has its own
    "shard": ("fsdp",),  # the largest axis of a big parameter: memory split, gathered where it is used
    "none": (),  # replicated
}
_SHARD_FROM = 2**16  # parameters smaller than this are cheaper to replicate than to gather


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Mesh of `data * fsdp * tensor` devices; `data=-1` takes all that are there. UserError if they do not fit."""
    devices = jax.devices()
    if tensor != 1:
        raise UserError(f"mesh.tensor is {tensor}: no layer is annotated for tensor parallelism; use mesh.fsdp")
    if data == -1:
        data = max(len(devices) // (fsdp * tensor), 1)
    needed = data * fsdp * tensor
    if needed > len(devices):
        raise UserError(f"mesh data={data} x fsdp={fsdp} x tensor={tensor} needs {needed} devices; {len(devices)} found")
    # Auto axes: `jax.make_mesh` defaults to Explicit ones, under which Linen's initialisers fail.
    return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:needed])


def spec(*logical: str) -> PartitionSpec:
    """PartitionSpec of logical axis names. ValueError if two dimensions would land on one mesh axis."""
    mapped = [RULES[name] for name in logical]
    used = [axis for axes in mapped for axis in axes]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {logical} use a mesh axis twice: {used}")
    return PartitionSpec(*[axes if axes else None for axes in mapped])


def data_shards(mesh: Mesh) -> int:
    """Number of devices that hold different records."""
    return int(np.prod([mesh.shape[a] for a in RULES["batch"]]))


def param_shardings(mesh: Mesh, tree: Any) -> Any:
    """Sharding of each array: big ones split over `fsdp` on their largest divisible axis, the rest replicated."""

    def one(leaf: Any) -> NamedSharding:
        names = ["none"] * len(leaf.shape)
        divisible = [i for i, n in enumerate(leaf.shape) if n % mesh.shape["fsdp"] == 0]
        if mesh.shape["fsdp"] > 1 and leaf.size >= _SHARD_FROM and divisible:
            names[max(divisible, key=lambda i: leaf.shape[i])] = "shard"
        return NamedSharding(mesh, spec(*names))

    return jax.tree.map(one, tree)


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Host arrays [B, ...] to the devices, split over the batch axis. UserError if B does not divide."""
    shards = data_shards(mesh)
    for name, value in batch.items():
        if not value.shape or value.shape[0] % shards:
            raise UserError(f"batch array {name!r} of shape {value.shape}: first axis must divide by the {shards} data-parallel devices")
    sharding = NamedSharding(mesh, spec("batch"))
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Every array of `tree` on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, spec()))


def describe(mesh: Mesh, devices: Sequence[jax.Device] | None = None) -> str:
    """For the log: "8 x cpu (data 8)"."""
    first = (devices or mesh.devices.flat)[0]
    sizes = ", ".join(f"{a} {n}" for a, n in mesh.shape.items() if n > 1) or "one device"
    return f"{mesh.size} x {first.device_kind} ({sizes})"
