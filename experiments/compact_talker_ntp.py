"""Compact next-token Talker: the autoregressive baseline on the same trunk, started from the
masked-diffusion Talker.

Command:  mdmspeech train --config experiments/compact_talker_ntp.py \
              --workdir ~/.cache/mdmspeech/runs/compact_talker_ntp
          In small, random data and weights: --config experiments/compact_talker_ntp.py:runlocal
Plan:     as compact_talker, with the output layer on every position: 1.5 s a step alone.
          The scores' baseline began from the shipped Talker: --set init_from=compact
Cost:     1.9 s a step on 2 CPU cores (Intel Xeon), 100 steps over 28 h of speech, 2026-11-30.
Seen:     held out after 100 steps, 41 % of the tokens right.
"""

from experiments import compact_talker, local


def get_config(argument: str = ""):
    config = compact_talker.get_config()
    config.mode = "ntp"
    # its anchors and code tables; what is learnt anew is to attend causally
    config.init_from = "compact_talker"
    config.train.steps = 100
    config.optim.lr = 1e-3
    return local.switch(config, argument)
