"""Axes, the rules table, and where arrays lie."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mdmspeech.errors import UserError
from mdmspeech.training.mesh import describe, make_mesh, param_shardings, put_batch, spec


def test_the_default_takes_all_devices_with_auto_axes():
    mesh = make_mesh()
    assert dict(mesh.shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert "data 8" in describe(mesh) and "one device" in describe(make_mesh(data=1))


def test_a_mesh_of_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="needs 24 devices; 8"):
        make_mesh(data=3, fsdp=4, tensor=2)


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
