"""Compact Talker, stage 3: hierarchical block-wise masking with iterative self-distillation
(VocalNet-MDM, stage 3).

Command:  mdmspeech train --config experiments/compact_talker_isd.py \
              --workdir ~/.cache/mdmspeech/runs/compact_talker_isd
          In small, random data and weights: --config experiments/compact_talker_isd.py:runlocal
Plan:     four teacher forwards and one training pass: 0.45 TFLOP a step, 3.3 s alone.
Cost:     11 min for 90 steps on 2 CPU cores (AMD EPYC), 2026-11-21, 9 again over the tokens of the
          second codec and 6 (Intel Xeon) over those of the third, both 2026-11-30: a taste, not the
          paper's 4 epochs.
Seen:     KL at temperature 2 about 0.03 nats, cross-entropy 1.70.
"""

from experiments import compact_talker, local


def get_config(argument: str = ""):
    config = compact_talker.get_config()
    config.mode = "isd"
    config.init_from = "compact_talker"
    config.masking = dict(name="hierarchical", blocks=(0.5, 1.0), tokens=(0.3, 1.0))
    config.distillation = dict(iterations=4, a=0.7, temperature=2.0, direction="reverse")
    config.train.steps = 90
    config.optim.lr = 5e-4
    config.optim.warmup = 10
    return local.switch(config, argument)
