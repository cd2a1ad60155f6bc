"""Compact next-token Talker: the autoregressive baseline on the same trunk.

Command:  mdmspeech train --config experiments/compact_talker_ntp.py --workdir ~/.cache/mdmspeech/runs/compact_talker_ntp
"""

from experiments import compact_talker


def get_config():
    config = compact_talker.get_config()
    config.mode = "ntp"
    config.train.steps = 250
    return config
