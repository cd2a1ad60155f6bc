"""Compact multi-token Talker: the autoregressive baseline that predicts six tokens at a place and
writes three a forward (VocalNet's MTP), on the same trunk, started from the masked-diffusion Talker.

Command:  mdmspeech train --config experiments/compact_talker_mtp.py \
              --workdir ~/.cache/mdmspeech/runs/compact_talker_mtp
          In small, random data and weights: --config experiments/compact_talker_mtp.py:runlocal
Plan:     14.1 M parameters, 4 M of them the five modules; six times the output layer makes 0.55
          TFLOP a step, where compact_talker_ntp has 0.23: some 3.6 s alone.
          The scores' baseline began from the shipped Talker: --set init_from=compact
Cost:     3.9 s a step on 2 CPU cores (Intel Xeon), 100 steps over 28 h of speech, 2026-11-30.
Seen:     held out after 100 steps, the six heads have 36, 27, 24, 22, 21 and 20 % of the tokens right.
"""

from experiments import compact_talker_ntp, local


def get_config(argument: str = ""):
    config = compact_talker_ntp.get_config()
    config.mode = "mtp"
    config.talker.mtp_modules = 5
    config.init_fresh = (r"mtp_(layers|norms)_\d+/.*",)
    return local.switch(config, argument)
