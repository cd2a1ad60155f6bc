"""What the TPU compiler is told by each kind of chip."""

import os
import subprocess
import sys

import pytest

from mdmspeech import xla_flags
from mdmspeech.hardware import TPUS
from mdmspeech.xla_flags import GROUPS, VARIABLE, apply, find_chip, flags_for, with_flags


def test_every_chip_has_flags_and_every_group_a_reason():
    assert {chip for group in GROUPS.values() for chip in group.chips} == set(TPUS)
    for group in GROUPS.values():
        assert len(group.why) > 60 and group.flags
    for chip in TPUS:
        assert flags_for(chip).items() < flags_for(chip, slices=2).items()
    assert flags_for("v9x") == {}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", True),
        ("--xla_enable_async_all_gather=false", False),
        ("--xla_enable_async_all_gather=auto --xla_dump_to=/tmp/x", False),
        ("--noxla_enable_async_all_gather", False),
        ("--xla_dump_to=/tmp/xla_enable_async_all_gather", True),
        ("-xla_enable_async_all_gather=true", False),
        ("--xla_enable_async_all_gather_x=true", True),
    ],
)
def test_the_users_own_flags_win(given, kept):
    line = with_flags("v5e", given)
    assert line.endswith(given)
    assert ("--xla_enable_async_all_gather=true" in line[: len(line) - len(given)]) == kept
    assert "--xla_tpu_overlap_compute_collective_tc=true" in line


@pytest.mark.parametrize(
    ("env", "chip"),
    [
        ({"TPU_ACCELERATOR_TYPE": "v5litepod-16"}, "v5e"),
        ({"TPU_ACCELERATOR_TYPE": "v5p-64"}, "v5p"),
        ({"TPU_ACCELERATOR_TYPE": "v6e-256"}, "v6e"),
        ({"TPU_ACCELERATOR_TYPE": "v4-8"}, "v4"),
        ({"TPU_ACCELERATOR_TYPE": "tpu7x-64"}, ""),
        ({"TPU_ACCELERATOR_TYPE": "v6e"}, ""),
        ({}, ""),
    ],
)
def test_which_chip_the_environment_names(env, chip, tmp_path):
    assert find_chip(env, tmp_path) == chip
    told = apply(dict(env), tmp_path)
    assert (f"flags for {chip} " in told) if chip else not told


@pytest.mark.parametrize(
    ("vendor", "device", "chip"),
    [
        ("0x1ae0", "0x0063", "v5e"),
        ("0x1ae0", "0x0062", "v5p"),
        ("0x1ae0", "0x006f", "v6e"),
        ("0x1ae0", "0x005e", "v4"),
        ("0x1ae0", "0x0076", ""),
        ("0x10de", "0x0063", ""),
    ],
)
def test_which_chip_the_machine_has(vendor, device, chip, tmp_path):
    place = tmp_path / "sys/bus/pci/devices/0000:00:04.0"
    place.mkdir(parents=True)
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "device").write_text(f"{device}\n")
    assert find_chip({}, tmp_path) == chip


def test_where_nothing_is_done(tmp_path):
    there = {"TPU_ACCELERATOR_TYPE": "v6e-8"}
    for env in (there | {xla_flags.SWITCH: "none"}, there | {"JAX_PLATFORMS": "cpu"}, {}):
        before = dict(env)
        assert apply(env, tmp_path) == "" and env == before
    env = dict(there)
    assert f"has {len(flags_for('v6e'))} flags for v6e" in apply(env, tmp_path)
    assert apply(env, tmp_path) == "", "a second time there is nothing to add"


@pytest.mark.parametrize("number", ["2", "1", "", "x"])
def test_the_network_between_slices_only_where_there_are_some(number, tmp_path):
    env = {"TPU_ACCELERATOR_TYPE": "v5p-64", "MEGASCALE_NUM_SLICES": number}
    apply(env, tmp_path)
    assert ("xla_tpu_enable_data_parallel_all_reduce_opt" in env[VARIABLE]) == (number == "2")


def test_it_needs_no_jax():
    code = "import sys; from mdmspeech import xla_flags; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("chip", TPUS)
def test_libtpu_takes_them(chip, libtpu):
    """It ends the process for a flag it does not know."""
    code = (
        "from mdmspeech.planning.topology import parse\n"
        f"parse({chip!r} + ':2x2' + 'x1' * ({chip!r} in ('v4', 'v5p'))).devices()\n"
        "print('taken')"
    )

    def run(flags):
        env = os.environ | {VARIABLE: flags, "JAX_PLATFORMS": "cpu"}
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)

    assert "taken" in (made := run(with_flags(chip, slices=2))).stdout, made.stderr[-2000:]
    if chip == "v5e":
        assert "taken" not in run("--xla_tpu_no_such_flag=true").stdout
