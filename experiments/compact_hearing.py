"""Compact adaptor: Whisper-base states -> letters by CTC.

Command:  mdmspeech train --config experiments/compact_hearing.py --workdir ~/.cache/mdmspeech/runs/compact_hearing
"""

from mdmspeech.training.config import base


def get_config():
    config = base()
    config.stage = "hearing"
    config.adaptor = dict(states=512, width=320, layers=3, stack=2)
    config.data = dict(batch=32)
    config.train.steps = 1200
    config.train.log_every = 20
    config.train.eval_every = 0
    config.train.save_every = 250
    config.optim.lr = 1.5e-3
    config.optim.warmup = 80
    config.optim.weight_decay = 0.02
    return config
