"""Compact Talker, stage 3: hierarchical block-wise masking with iterative self-distillation (method: VocalNet-MDM, stage 3).

Command:  mdmspeech train --config experiments/compact_talker_isd.py --workdir ~/.cache/mdmspeech/runs/compact_talker_isd
"""

from experiments import compact_talker


def get_config():
    config = compact_talker.get_config()
    config.mode = "isd"
    config.init_from = "compact_talker"
    config.masking = dict(name="hierarchical", blocks=(0.5, 1.0), tokens=(0.3, 1.0))
    config.distillation = dict(iterations=4, a=0.7, temperature=2.0, direction="reverse")
    config.train.steps = 90
    config.optim.lr = 5e-4
    config.optim.warmup = 10
    return config
