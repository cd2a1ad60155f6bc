"""Compact Talker, stage 2: global Bernoulli masking (VocalNet-MDM, stage 2), with paced anchors.

Command:  mdmspeech train --config experiments/compact_talker.py --workdir ~/.cache/mdmspeech/runs/compact_talker
          In small, random data and weights: --config experiments/compact_talker.py:runlocal
Plan:     10.1 M parameters, 4,096 positions a step: 0.23 TFLOP, 1.4 s alone with AVX-512, 2.7
          without; 1,400 steps see 5.4 M tokens, 2.2 passes over 27 h.
Cost:     the shipped one was trained three times, on 2 CPU cores: 750 steps over 27 h, 46 min (AMD
          EPYC), 2026-11-21, beside other jobs; and from there, each time that the codec had been
          trained on, over its new tokens: 650 over 16 h, 31 min, and 600 over 28 h, 18 min (Intel
          Xeon), both 2026-11-30:
          --set init_from=compact --set train.steps=600 --set optim.lr=1.5e-3
Seen:     token loss 3.6 after 80 steps, 2.8 after 200, 1.91 at the end of the first (45 % right),
          durations within 13 %; of the second, whose first step had 18 % right, 1.68 (49 %), held
          out 1.90 (45 %); of the third 1.69 (48 %), held out 1.82 (45 %), still falling.
"""

from experiments import local
from mdmspeech.training.config import base


def get_config(argument: str = ""):
    config = base()
    config.stage = "talker"
    config.mode = "mdm"
    config.init_from = ""
    config.init_fresh = config.init_ignored = ()  # parameters that may differ from it
    config.talker = dict(
        dim=256,
        num_layers=6,
        num_heads=4,
        ffn_dim=704,
        block=16,
        anchors="paced",
        symbols=180,
        symbol_lookahead=(8, 4),
    )
    config.masking = dict(name="bernoulli", low=0.3, high=1.0)
    config.distillation = {}
    config.capacity = 0.75
    config.data = dict(
        parts=("open", "answers"),
        layout="joined",
        batch=16,
        length=256,
        symbols=224,
        token_seconds=0.04,
    )
    config.train.steps = 1400
    config.train.log_every = 20
    config.train.eval_every = 250
    config.train.save_every = 200
    config.optim.lr = 2e-3
    config.optim.warmup = 60
    config.optim.weight_decay = 0.02
    return local.switch(config, argument)
