"""Compact adaptor: Whisper-base states -> text pieces, by four layers of Whisper's own decoder.

Command:  mdmspeech train --config experiments/compact_hearing.py --workdir ~/.cache/mdmspeech/runs/compact_hearing
"""

from mdmspeech.training.config import base


def get_config():
    config = base()
    config.stage = "hearing"
    config.mode = "attention"
    config.adaptor = dict(states=512, width=512, layers=4, heads=8, ffn=2048, pieces=8290, positions=200)
    config.start_layers = (0, 3, 4, 5)
    config.training = dict(dropout=0.1, span=14, spans=2, smoothing=0.0)
    config.data = dict(batch=32)
    config.train.steps = 1500
    config.train.log_every = 20
    config.train.eval_every = 0
    config.train.save_every = 250
    config.optim.lr = 2e-4
    config.optim.warmup = 100
    config.optim.weight_decay = 0.01
    config.optim.ema = 0.99
    return config
