"""Names of slices, and the table of chips."""

import dataclasses
import subprocess
import sys

import pytest

from mdmspeech.errors import UserError
from mdmspeech.hardware import SHAPES, TPUS, find_chip
from mdmspeech.planning.topology import parse


@pytest.mark.parametrize(
    ("name", "shape", "chips", "slice_name"),
    [
        ("v5p:4x4x4", (4, 4, 4), 64, "v5p-128"),
        ("v5p-8", (2, 2, 1), 4, "v5p-8"),
        ("v5p-512", (4, 8, 8), 256, "v5p-512"),
        ("v4-32", (2, 2, 4), 16, "v4-32"),
        ("v5e-16", (4, 4), 16, "v5e-16"),
        ("v5litepod-256", (16, 16), 256, "v5e-256"),
        (" V6E:2x4 ", (2, 4), 8, "v6e-8"),
        ("v6e-1", (1, 1), 1, "v6e-1"),
        ("2xv5e-256", (16, 16), 512, "2xv5e-256"),
        ("4 x v5p:4x4x4", (4, 4, 4), 256, "4xv5p-128"),
    ],
)
def test_names_people_use(name, shape, chips, slice_name):
    topology = parse(name)
    assert (topology.shape, topology.chips, topology.slice_name) == (shape, chips, slice_name)
    assert parse(topology.name) == topology


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("h100-8", "unknown topology 'h100-8': give v4, v5e, v5p, v6e"),
        ("v5p", "unknown topology"),
        ("v5p:4x4", "wired in 3 dimensions"),
        ("v5e:2x0", "wired in 2 dimensions"),
        ("v5p-7", "known are v5p-8, v5p-16"),
        ("v5e-12", "known are v5e-1, v5e-4"),
        ("0xv5e-16", "of 0 slices: give 1 or more"),
        ("2*v5e-16", "their number in front (2xv5e-256)"),
    ],
)
def test_names_nobody_knows(name, told):
    with pytest.raises(UserError, match=r"topolog|slice") as error:
        parse(name)
    assert told in str(error.value)


def test_the_number_of_slices_may_stand_beside_the_name():
    assert parse("v5e-16", slices=2) == parse("2xv5e-16")
    assert parse("v5e-16", slices=1) == parse("v5e-16")


def test_rings():
    assert parse("v5p:4x4x4").rings == (True, True, True)
    assert parse("v5p:2x4x4").rings == (False, False, False), "3D slices close all axes or none"
    assert parse("v5e:8x16").rings == (False, True)
    assert parse("v6e:4x4").rings == (False, False)


def test_the_table_of_chips():
    for name, tpu in TPUS.items():
        chip = tpu.chip
        assert 1e14 < chip.bf16_flops < 2e15
        assert 15 * 2**30 < chip.memory < 200 * 2**30
        assert 100 < chip.bf16_flops / chip.bandwidth < 1000, "FLOPs a byte"
        assert chip.bandwidth > 2 * tpu.dims * tpu.link > tpu.dcn / tpu.host, (
            "memory is faster than links, links than the network"
        )
        assert tpu.cores * tpu.dims in (2, 6)
        assert all(
            len(shape) == dims for dims, shapes in SHAPES.items() for shape in shapes.values()
        )
        assert name in tpu.names and dataclasses.is_dataclass(chip)


@pytest.mark.parametrize("name", ["v4-8", "v5e-4", "v5p-8", "v6e-1"])
def test_libtpu_knows_the_chips(name, libtpu):
    topology = parse(name)
    devices = topology.devices()
    assert len(devices) == topology.chips, "one device a chip"
    assert find_chip(devices[0].device_kind) is topology.tpu.chip
    assert sorted(d.coords[: len(topology.shape)] for d in devices)[-1] == [
        n - 1 for n in topology.shape
    ]


def test_a_shape_that_libtpu_refuses(libtpu):
    with pytest.raises(UserError, match="libtpu does not take the topology v5e:3x5"):
        parse("v5e:3x5").devices()


def test_without_libtpu(monkeypatch):
    from mdmspeech.planning import topology

    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mdmspeech\[plan\]'"):
        parse("v5e-4").devices()


def test_two_processes_plan_at_once(libtpu):
    """libtpu locks out a second process unless it is told that nobody here wants a TPU."""
    assert parse("v5e-4").devices()
    code = "from mdmspeech.planning.topology import parse; print(len(parse('v5p-8').devices()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr
