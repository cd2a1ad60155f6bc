"""How many updates a run has where its experiment says how often it goes through its data
(`train.epochs`): counted from the records, or told from hours of speech for a plan.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.speech_format import FRAME_RATE

# of the positions of packed rows, what speech fills; a run packs to 0.96 .. 0.99 of them
FILLED = 0.97


def steps_of(train: ConfigDict, data: Any) -> tuple[int, str]:
    """(updates of the run, a line for the log: "" where the experiment gives them).

    Args:
      train: that section of the config, see `ranges.check_duration`.
      data: the batches; one with `batches_of(epochs)` -> number of global batches (None: not known)
        can be gone through by epochs. The same on all hosts.

    Raises:
      UserError: the data do not tell how long an epoch is.
    """
    if train.steps:
        return int(train.steps), ""
    steps = data.batches_of(train.epochs) if hasattr(data, "batches_of") else None
    if steps is None:
        raise UserError(
            f"train.epochs is {train.epochs:g}, but these data do not tell how many batches an "
            "epoch has: give the run a number of updates (--set train.steps=N)"
        )
    steps = max(int(steps), 1)
    return steps, f"train.epochs {train.epochs:g}: {steps} steps, {steps / train.epochs:.6g} a pass"


def planned_steps(config: ConfigDict, hours: float = 0.0) -> int:
    """Updates of a run on so many hours of speech, by the sizes of its rows: for plans, which read no
    corpus.

    Args:
      hours: 0 takes the experiment's own (`config.hours`).

    Raises:
      UserError: nobody says how many hours, or what a row holds.
    """
    if config.train.steps:
        return int(config.train.steps)
    hours = hours or float(config.get("hours", 0.0))
    seconds = row_seconds(config)
    if not hours or not seconds:
        raise UserError(
            f"train.epochs is {config.train.epochs:g}, but "
            + ("hours is not set" if not hours else "data.length or data.frames is not")
            + ": how many updates these are cannot be planned; give train.steps"
        )
    rows = hours * 3600 / (seconds * FILLED)
    return max(math.ceil(config.train.epochs * rows / config.data.batch), 1)


def row_seconds(config: ConfigDict) -> float:
    """Seconds of speech that fit into a row of a batch; 0 if the config does not tell."""
    data = config.get("data", {})
    if "frames" in data:
        return float(data["frames"]) / FRAME_RATE
    return float(data.get("length", 0)) * float(data.get("token_seconds", 0.0))
