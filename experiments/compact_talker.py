"""Compact Talker, stage 2: global Bernoulli masking (method: VocalNet-MDM, stage 2).

Command:  mdmspeech train --config experiments/compact_talker.py --workdir ~/.cache/mdmspeech/runs/compact_talker
"""

from mdmspeech.training.config import base


def get_config():
    config = base()
    config.stage = "talker"
    config.mode = "mdm"
    config.init_from = ""
    config.talker = dict(width=256, layers=6, heads=4, ffn=704, block=16, anchors="paced", symbols=180, symbol_lookahead=(8, 4))
    config.masking = dict(name="bernoulli", low=0.3, high=1.0)
    config.distillation = {}
    config.capacity = 0.75
    config.data = dict(parts=("open", "answers"), batch=16, length=256, symbols=224, token_seconds=0.04)
    config.train.steps = 750
    config.train.log_every = 20
    config.train.eval_every = 0
    config.train.save_every = 200
    config.optim.lr = 2e-3
    config.optim.warmup = 60
    config.optim.weight_decay = 0.02
    return config
