"""The adaptor that learns to hear from nothing: Whisper-base states -> letters by CTC. No part of
the compact model; the figures are from before `TAIL`.

Command:  mdmspeech train --config experiments/hearing_ctc.py --workdir ~/.cache/mdmspeech/runs/hearing_ctc
          In small, random data and weights: --config experiments/hearing_ctc.py:runlocal
Plan:     4.2 M parameters at 25 positions a second, 87 s of speech a step: 0.055 TFLOP, 0.5 s
          alone; 1,200 steps are 5 passes over 6 h.
Cost:     37 min on 2 CPU cores (AMD EPYC, AVX-512), shared with other jobs the whole time,
          2026-11-21; the encoder states of 6 h took 17 min.
Seen:     0.16 nats a letter in training. It overfits its voices: WER 40 % on voices never heard
          (`mdmspeech eval`).
"""

from experiments import local
from mdmspeech.training.config import base


def get_config(argument: str = ""):
    config = base()
    config.stage = "hearing"
    config.mode = "ctc"
    config.adaptor = dict(encoder_dim=512, dim=320, num_layers=3, stack=2)
    config.data = dict(batch=32)
    config.train.steps = 1200
    config.train.log_every = 20
    config.train.eval_every = 250
    config.train.save_every = 250
    config.optim.lr = 1.5e-3
    config.optim.warmup = 80
    config.optim.weight_decay = 0.02
    return local.switch(config, argument)
