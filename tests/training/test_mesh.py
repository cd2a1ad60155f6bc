"""Axes, the rules table, and where arrays lie."""

import dataclasses
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mdmspeech.errors import UserError
from mdmspeech.training import mesh as meshes
from mdmspeech.training.mesh import describe, make_mesh, param_shardings, put_batch, spec


def test_the_default_takes_all_devices_with_auto_axes():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert "data 8" in describe(mesh) and "one device" in describe(make_mesh(data=1))


def test_a_mesh_of_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="needs 24 devices; 8"):
        make_mesh(data=3, fsdp=4, tensor=2)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh looks at of a TPU device."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    core_on_chip: int = 0
    device_kind: str = "one of a kind"
    process_index: int = 0


def mesh_of(*numbers, platform="tpu", **sizes):
    """The slice numbers along (data, fsdp, tensor) of a mesh of such devices."""
    chips = [
        Chip(i, number, (numbers[:i].count(number), 0, 0), platform)
        for i, number in enumerate(numbers)
    ]
    with mock.patch.object(meshes, "Mesh", lambda devices, *_, **__: devices):
        made = make_mesh(devices=chips, **sizes)
    return np.vectorize(lambda chip: (chip.slice_index, chip.id), otypes="ii")(made)


def test_only_the_data_axis_goes_over_the_network_between_slices():
    numbers, ids = mesh_of(1, 0, 1, 0, 1, 0, 1, 0, fsdp=2, tensor=2)
    assert numbers.shape == (2, 2, 2)
    assert (numbers[0] == 0).all() and (numbers[1] == 1).all()
    assert sorted(ids.flat) == list(range(8))
    numbers, _ = mesh_of(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, fsdp=2)
    assert numbers.shape == (6, 2, 1)
    assert numbers[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2], "each slice has one piece of it"


def test_one_slice_may_be_used_in_part_and_so_may_two():
    assert mesh_of(0, 0, 0, 0, data=2)[0].shape == (2, 1, 1)
    numbers, ids = mesh_of(0, 0, 0, 0, 1, 1, 1, 1, data=2, fsdp=2)
    assert numbers[:, :, 0].tolist() == [[0, 0], [1, 1]] and ids.size == 4


@pytest.mark.parametrize(
    ("numbers", "sizes", "words"),
    [
        ([0, 0, 1, 1], dict(data=1, fsdp=4), "must be a multiple of 2, and one slice of 2 devices"),
        ([0, 0, 1, 1], dict(data=3), "mesh data=3 x fsdp=1 x tensor=1 on 2 slices"),
        ([0, 0, 1, 1], dict(fsdp=4), "data=2 x fsdp=4 x tensor=1 needs 4 devices on each of 2"),
        ([0, 0, 0, 1], {}, r"unequal sizes: \[3, 1\]"),
        ([0, 0, 1, 1], dict(slices=4), "mesh.slices=4, but the devices are of 2 slices"),
        ([0, 0, 0, 0], dict(slices=3), "does not divide 4 devices"),
    ],
)
def test_meshes_that_slices_cannot_hold(numbers, sizes, words):
    with pytest.raises(UserError, match=words):
        mesh_of(*numbers, **sizes)


def test_hosts_of_gpus_are_no_slices_unless_the_mesh_says_so():
    assert mesh_of(0, 0, 1, 1, platform="gpu", fsdp=4)[0].shape == (1, 4, 1)
    numbers, _ = mesh_of(0, 0, 1, 1, platform="gpu", fsdp=2, slices=2)
    assert numbers[:, :, 0].tolist() == [[0, 0], [1, 1]]
    with pytest.raises(UserError, match="must be a multiple of 2"):
        mesh_of(0, 0, 1, 1, platform="gpu", data=1, fsdp=4, slices=2)


def test_two_dimensions_never_share_a_mesh_axis():
    assert spec("batch", "none") == PartitionSpec(("data", "fsdp"), None)
    with pytest.raises(ValueError, match="twice"):
        spec("batch", "embed")


def test_what_devices_do_not_divide_stays_whole():
    sizes = dict(make_mesh(2, 2, 2).shape)
    assert spec("embed", "heads", shape=(6, 9), sizes=sizes) == PartitionSpec(("fsdp",), None)
    assert spec("batch", "none", shape=(6, 4), sizes=sizes) == PartitionSpec(None, None)


def test_big_arrays_are_split_on_their_largest_divisible_axis():
    mesh = make_mesh(data=2, fsdp=4)
    tree = {
        "big": jax.ShapeDtypeStruct((250, 1024), "float32"),
        "odd": jax.ShapeDtypeStruct((251, 1023), "float32"),
        "small": jax.ShapeDtypeStruct((4,), "float32"),
    }
    got = jax.tree.map(lambda s: s.spec, param_shardings(mesh, tree))
    assert got == {
        "big": PartitionSpec(None, ("fsdp",)),
        "odd": PartitionSpec(None, None),
        "small": PartitionSpec(None),
    }


def test_batches_are_split_over_data_and_fsdp():
    mesh = make_mesh(data=2, fsdp=4)
    value = np.arange(32, dtype=np.float32).reshape(16, 2)
    (array,) = put_batch(mesh, {"x": value}).values()
    assert {s.data.shape for s in array.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(array, value)
    with pytest.raises(UserError, match="'x' of shape"):
        put_batch(mesh, {"x": value[:15]})
