"""One device mesh for every run: axes (data, fsdp, tensor). A mesh of one device is the
single-device path; of several slices, the data axis goes over the network between them.

`nn.partition.RULES` says which logical axis goes to which mesh axis; here stand the logical axes of
every parameter, by the end of its path.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding

from mdmspeech.errors import UserError
from mdmspeech.nn.partition import RULES, spec
from mdmspeech.training.optim import param_path

AXES = ("data", "fsdp", "tensor")

# End of the path -> logical axes.
# A scanned stack has one more axis in front, the layers, which stays whole.
_PARAMETERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"[qkv]/kernel", ("embed", "heads")),
    (r"o/kernel", ("heads", "embed")),
    (r"(gate|up|fc1)/kernel", ("embed", "mlp")),
    (r"(down|fc2)/kernel", ("mlp", "embed")),
    (r"embedding", ("vocab", "embed")),
    (r"table", ("vocab", "embed")),
    (r"output/kernel", ("embed", "vocab")),
    (r"[qkv]/bias", ("heads",)),
    (r"fc1/bias", ("mlp",)),
    (r"[qkv]/lora_b", ("none", "heads")),
    (r"(gate|up)/lora_b", ("none", "mlp")),
    (r"o/lora_a", ("heads", "none")),
    (r"down/lora_a", ("mlp", "none")),
)
# Others: smaller than this they are cheaper to replicate than to gather; larger ones are split over
# fsdp along their largest axis that divides.
_SHARD_FROM = 2**16


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    slices: int = 0,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Mesh of `data * fsdp * tensor` devices (default: those of this run); `data=-1` takes all that
    are there.

    Several slices (TPU pods joined by the data-centre network) share the data axis alone, outermost:
    one slice has `data / slices` of it and whole fsdp and tensor axes, so that between slices
    travels one reduction of gradients, each device's own part of them.

    Args:
      slices: 0 takes what TPUs say of themselves. For islands of GPUs (or a CPU in a test) their
        number: equal runs of the devices in their order; else any axis may go over hosts.

    Raises:
      UserError: they do not fit.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = f"mesh data={data} x fsdp={fsdp} x tensor={tensor}"
    groups = _slices(devices, slices)
    if data == -1:
        data = max(len(groups[0]) // (fsdp * tensor), 1) * len(groups)
        shape = f"mesh data={data} x fsdp={fsdp} x tensor={tensor}"
    if data % len(groups):
        raise UserError(
            f"{shape} on {len(groups)} slices: the network between slices carries the data axis "
            f"only, so mesh.data must be a multiple of {len(groups)}, and one slice of "
            f"{len(groups[0])} devices must hold mesh.fsdp x mesh.tensor"
        )
    inside = (data // len(groups), fsdp, tensor)
    needed = math.prod(inside)
    if needed > len(groups[0]):
        of = f" on each of {len(groups)} slices" if len(groups) > 1 else ""
        raise UserError(f"{shape} needs {needed} devices{of}; {len(groups[0])} found")
    # Auto axes: under Explicit ones Linen's initialisers fail.
    # An axis may take part of a side of a TPU's torus, where the shape asks for it.
    try:
        laid_out = [
            mesh_utils.create_device_mesh(inside, group[:needed], allow_split_physical_axes=True)
            for group in groups
        ]
    except (AssertionError, NotImplementedError) as error:
        raise UserError(
            f"{shape} cannot be laid on a torus of {len(groups[0])} devices: use all of them"
        ) from error
    return Mesh(np.concatenate(laid_out), AXES, axis_types=(AxisType.Auto,) * 3)


def _slices(devices: Sequence[Any], wanted: int) -> list[list[Any]]:
    """The devices by slice, in the order of the slices' numbers."""
    by_slice: dict[int, list[Any]] = {}
    for device in devices:
        by_slice.setdefault(_slice_number(device), []).append(device)
    found = [by_slice[number] for number in sorted(by_slice)]
    if len({len(group) for group in found}) > 1:
        raise UserError(f"the slices are of unequal sizes: {[len(group) for group in found]}")
    if wanted <= 0 or wanted == len(found):
        return found
    if len(found) > 1:
        raise UserError(f"mesh.slices={wanted}, but the devices are of {len(found)} slices")
    if len(devices) % wanted:
        raise UserError(f"mesh.slices={wanted} does not divide {len(devices)} devices")
    size = len(devices) // wanted
    return [list(devices[start : start + size]) for start in range(0, len(devices), size)]


def _slice_number(device: Any) -> int:
    """Of a TPU. GPUs have such a number too, one a host, but a fast network between hosts."""
    return (getattr(device, "slice_index", None) or 0) if device.platform == "tpu" else 0


def data_shards(mesh: Mesh) -> int:
    """Number of devices that hold different records."""
    return int(np.prod([mesh.shape[a] for a in RULES["batch"]]))


def param_shardings(mesh: Mesh, tree: Any) -> Any:
    """Sharding of each array of a tree of parameters, gradients or optimiser moments: by its path
    (see the table above).
    """

    def one(path: Sequence[Any], leaf: Any) -> NamedSharding:
        return NamedSharding(
            mesh,
            spec(*_axes(param_path(path), leaf.shape, mesh), shape=leaf.shape, sizes=mesh.shape),
        )

    return jax.tree_util.tree_map_with_path(one, tree)


def _axes(path: str, shape: Sequence[int], mesh: Mesh) -> tuple[str, ...]:
    for end, axes in _PARAMETERS:
        if len(shape) in (len(axes), len(axes) + 1) and re.search(f"(^|/){end}$", path):
            return ("none",) * (len(shape) - len(axes)) + axes
    names = ["none"] * len(shape)
    divisible = [i for i, n in enumerate(shape) if n % mesh.shape["fsdp"] == 0]
    if np.prod(shape) >= _SHARD_FROM and divisible:
        names[max(divisible, key=lambda i: shape[i])] = "embed"
    return tuple(names)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of an array whose first axis is the batch."""
    return NamedSharding(mesh, spec("batch"))


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Host arrays [B, ...] to the devices, split over the batch axis; on several hosts each gives
    its own share. UserError if B does not divide.
    """
    shards = data_shards(mesh)
    for name, value in batch.items():
        if not value.shape or value.shape[0] * jax.process_count() % shards:
            raise UserError(
                f"batch array {name!r} of shape {value.shape}: first axis must "
                f"divide by the {shards} data-parallel devices"
            )
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }


def put_whole(value: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has whole (a parameter read from a file), to its place."""
    if isinstance(value, jax.Array) and value.sharding == sharding:
        return value
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def describe(mesh: Mesh, devices: Sequence[jax.Device] | None = None) -> str:
    """For the log: "8 x cpu (data 8)"."""
    first = (devices or mesh.devices.flat)[0]
    sizes = ", ".join(f"{a} {n}" for a, n in mesh.shape.items() if n > 1) or "one device"
    slices = len(set(map(_slice_number, mesh.devices.flat)))
    return f"{mesh.size} x {first.device_kind} ({sizes}{f', {slices} slices' * (slices > 1)})"
