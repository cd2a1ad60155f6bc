"""Compact next-token Talker: the autoregressive baseline on the same trunk.

Command:  mdmspeech train --config experiments/compact_talker_ntp.py --workdir ~/.cache/mdmspeech/runs/compact_talker_ntp
"""

from experiments import compact_talker


def get_config():
    config = compact_talker.get_config()
    config.mode = "ntp"
    config.init_from = "compact_talker"  # its anchors and code tables; what is learnt anew is to attend causally
    config.train.steps = 100
    config.optim.lr = 1e-3
    return config
