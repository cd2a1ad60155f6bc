"""An experiment that takes its time and no power: the tiny task of the training tests, a batch every
`paced.pause` seconds. For `mdmspeech train` under a real Slurm.
"""

import sys
import time
from pathlib import Path

from mdmspeech.training.config import base
from mdmspeech.training.stages import build
from mdmspeech.training.stages.stage import Stage

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # for tiny.py

from tiny import TinyTask


class Paced(TinyTask):
    """See above."""

    def __init__(self, pause: float):
        super().__init__()
        self.pause = pause

    def batches(self, split, seed):
        batches = super().batches(split, seed)
        draw, pause = type(batches).__next__, self.pause

        class Slow(type(batches)):
            def __next__(self):
                time.sleep(pause)
                return draw(self)

        batches.__class__ = Slow
        return batches


def get_config():
    """The config."""
    build.register(
        Stage(
            "paced", ("paced", "data"), lambda config, *_: Paced(config.paced.pause), lambda _: None
        )
    )
    config = base()
    config.stage = "paced"
    config.paced = dict(pause=0.0)
    config.data = dict(parts=("random",))
    config.train.update(dict(steps=50, log_every=1, eval_every=0, save_every=1000, keep=3))
    config.optim.update(dict(lr=1e-2, warmup=2, ema=0.9))
    return config
