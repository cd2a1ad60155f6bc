"""Nothing is lost: a run killed with -9 at random moments ends bit-identical to one that was left
alone.
"""

import time

import pytest
from killing import kill_and_resume
from processes import Process, assert_identical, wait_until

# A log line every 3 updates and a save every 25: most kills fall between a line and a checkpoint.
# Two megabytes a checkpoint.
OPTIONS = (
    "--save-every",
    25,
    "--log-every",
    3,
    "--eval-every",
    0,
    "--width",
    2**14,
    "--pause",
    0.02,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "steps"), [(3, 300), pytest.param(30, 2000, marks=pytest.mark.full)]
)
def test_killed_equals_undisturbed(tmp_path, kills, steps):
    began = time.monotonic()
    options = ("--steps", steps, *OPTIONS)
    whole = Process(tmp_path / "whole", *options)
    wait_until(lambda: "\nstep " in whole.log, [whole])
    startup_s = time.monotonic() - began
    assert whole.ended(3600) == 0, whole.log
    print(
        f"undisturbed: {time.monotonic() - began:.0f} s for {steps} updates, of "
        f"which {startup_s:.1f} s until the first"
    )
    hits = kill_and_resume(tmp_path / "killed", kills, options, startup_s)
    assert_identical(tmp_path / "whole", tmp_path / "killed")
    print(
        f"{kills} kills, {kills} resumptions, hits {dict(hits)}, "
        f"{time.monotonic() - began:.0f} s: bit-identical"
    )
    assert sum(hits.values()) == kills
