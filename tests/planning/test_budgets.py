"""The shipped configurations on named slices: what they hold between steps, by arithmetic, and the
whole of a step, compiled (with little effort, which is an upper bound; `planning.plan.make_plan`).

Budgets are what was planned when they were written, with a little air: a change that makes a
configuration heavier is to be seen here first.
"""

from pathlib import Path

import pytest

from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.planning.configs import Planned
from mdmspeech.planning.memory import part_bytes
from mdmspeech.planning.plan import HEADROOM, slice_mesh
from mdmspeech.planning.program import train_state
from mdmspeech.planning.topology import parse

pytestmark = pytest.mark.usefixtures("libtpu")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
GIB = 2**30

# Experiment, slice, mesh (data, fsdp, tensor), GiB that a chip holds between steps.
HELD = [
    ("compact_codec", "v5e-16", (16, 1, 1), 0.15),
    ("compact_talker", "v5e-16", (16, 1, 1), 0.13),
    ("compact_talker_isd", "v5e-16", (16, 1, 1), 0.17),
    ("thinker_06b", "v5e-16", (1, 16, 1), 0.25),
    ("talker_06b", "v5e-16", (1, 16, 1), 0.15),
    ("talker_isd_06b", "v5e-16", (1, 16, 1), 0.16),
    ("thinker_1b", "v5e-16", (1, 16, 1), 0.4),
    ("talker_1b", "v5e-16", (1, 16, 1), 0.42),
    ("talker_isd_1b", "v5e-16", (1, 16, 1), 0.46),
    ("thinker_8b", "v5e-64", (4, 16, 1), 1.8),
    ("talker_8b", "v5e-64", (4, 16, 1), 2.0),
    ("talker_isd_8b", "v5e-64", (4, 16, 1), 2.3),
]
# Experiment, slice, mesh, rows; GiB of a chip, and GiB it sends and receives in a step: compiled in
# `make test-full`. (Stage 3: its teacher, 2.1 GiB, travels
# once, not in each of four refinements; of the Thinker's embedding table, 1.2 GiB, rows do.)
COMPILED = [
    ("thinker_8b", "v5e-64", (16, 4, 1), 128, 8.0, 34.0),
    ("talker_8b", "v5e-64", (8, 8, 1), 512, 9.8, 21.5),
    ("talker_isd_8b", "v5e-64", (8, 8, 1), 256, 9.8, 24.0),
    ("thinker_1b", "v5e-64", (64, 1, 1), 128, 5.4, 0.05),
    ("talker_1b", "v5e-64", (64, 1, 1), 512, 10.1, 0.7),
    ("talker_isd_1b", "v5e-64", (64, 1, 1), 256, 9.6, 0.7),
    ("thinker_06b", "v5e-64", (64, 1, 1), 128, 4.0, 0.05),
    ("talker_06b", "v5e-64", (64, 1, 1), 512, 4.2, 0.2),
    ("talker_isd_06b", "v5e-64", (64, 1, 1), 256, 4.0, 0.21),
    ("compact_codec", "v5e-16", (16, 1, 1), 128, 0.42, 0.06),
    ("compact_hearing", "v5e-16", (16, 1, 1), 128, 1.2, 0.2),
    ("compact_talker", "v5e-16", (16, 1, 1), 256, 1.0, 0.09),
    ("compact_talker_isd", "v5e-16", (16, 1, 1), 256, 1.25, 0.09),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "slice_name", "sizes", "budget"), HELD, ids=[row[0] for row in HELD]
)
def test_what_a_chip_holds(name, slice_name, sizes, budget, tmp_path):
    config = load_config(str(EXPERIMENTS / f"{name}.py"))
    topology = parse(slice_name)
    mesh = slice_mesh(topology, dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    held = part_bytes(train_state(config, make_task(config, tmp_path), mesh)) / GIB
    assert 0.6 * budget < held < budget
    assert held * GIB < (1 - HEADROOM) * topology.tpu.chip.memory / 2, "leaves room for the step"


@pytest.mark.parametrize(
    ("name", "slice_name", "sizes", "rows", "memory", "sent"),
    [pytest.param(*row, id=row[0], marks=pytest.mark.full) for row in COMPILED],
)
def test_a_compiled_step_keeps_its_budget(name, slice_name, sizes, rows, memory, sent, tmp_path):
    config = load_config(str(EXPERIMENTS / f"{name}.py"))
    config.train.accum = 1
    planned = Planned(name, config, "train", lambda c: make_task(c, tmp_path))
    plan = planned.plan(
        parse(slice_name),
        dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)),
        rows,
        quick=True,
    )
    assert plan.fits and plan.needed < memory * GIB
    assert sum(c.bytes * c.count for c in plan.collectives) < sent * GIB
