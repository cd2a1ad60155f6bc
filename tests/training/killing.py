"""Kill -9 at random moments, and let the run resume by itself: `kill_and_resume` drives it, a test
compares what is left.
"""

import random
import time
from collections import Counter

from processes import Process, last_row, steps_saved, wait_until

AIMS = ("start-up", "training", "saving")


def kill_and_resume(workdir, kills, options, startup_s, say=print, seed=0):
    """Kills a run `kills` times, a third of them aimed at each of `AIMS`, then lets it come to its
    end.

    Args:
      options: of `train_tiny.py`; the run must be long enough not to end before the last kill.
      startup_s: seconds until the first update, in which the kills of the start-up fall.

    Returns:
      Counter of where the kills hit, as the workdir shows it afterwards.
    """
    draw, hits, began = random.Random(seed), Counter(), time.monotonic()
    for number in range(kills):
        aim, saved = AIMS[number % len(AIMS)], steps_saved(workdir)
        process = Process(workdir, *options)
        if aim == "start-up":
            end = time.monotonic() + draw.uniform(0.0, startup_s)
            # No longer than the start-up:
            # a busy machine may have become a quick one since `startup_s`.
            wait_until(
                lambda end=end, process=process: time.monotonic() > end or trains(process),
                [process],
            )
        else:
            # Each of these lives gets something done, so that the kills go through the whole run.
            wait_until(lambda saved=saved: steps_saved(workdir)[-1:] > saved[-1:], [process])
            if aim == "saving":
                wait_until(lambda: unfinished(workdir), [process])
            time.sleep(draw.uniform(0.0, 0.03 if aim == "saving" else 1.0))
        process.kill()
        code = process.ended()
        assert code == -9, (
            f"the run ended by itself ({code}) before kill {number + 1}: make it "
            f"longer\n{process.log}"
        )
        where = (
            "start-up" if not trains(process) else "saving" if unfinished(workdir) else "training"
        )
        hits[where] += 1
        say(
            f"kill {number + 1}/{kills}: aimed at {aim}, hit {where}; metrics until step "
            f"{last_row(workdir)}, checkpoints {steps_saved(workdir)}, "
            f"{time.monotonic() - began:.0f} s"
        )
    process = Process(workdir, *options)
    assert process.ended(3600) == 0, process.log
    return hits


def trains(process):
    """Whether the start-up is over: the process has shown an update."""
    return "\nstep " in process.log


def unfinished(workdir):
    """Whether a checkpoint is being written, or was when the kill came."""
    folder = workdir / "checkpoints"
    return folder.exists() and any(not p.name.isdigit() for p in folder.iterdir())
