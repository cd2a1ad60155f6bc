"""The phone classifier that aligns people's recordings with their text (`mdmspeech data
--manifest`): Whisper-base states -> symbols of the pronouncer.

Command:  mdmspeech data --phones 700
          mdmspeech train --config experiments/aligner.py --workdir ~/.cache/mdmspeech/runs/aligner
          mdmspeech release -o mdmspeech/assets/aligner \
              --aligner ~/.cache/mdmspeech/runs/aligner --card experiments/aligner_card.md
Plan:     0.22 M parameters, 800 states and 0.74 GFLOP a step, 0.04 s alone on 2 cores; 2,500 steps
          see 11 h, 20 passes over half an hour.
Cost:     14 min on 2 CPU cores (AMD EPYC, AVX-512) that other jobs held most of the time, 2 min of
          processor time; the states took 32 min so, 3 min of it.
Seen:     held out (voices and sentences): the right symbol in 79 % of the states, 0.71 nats;
          boundaries: `tests/data/test_align.py`.
"""

from experiments import local
from mdmspeech.training.config import base


def get_config(argument: str = ""):
    config = base()
    config.stage = "phones"
    config.aligner = dict(encoder_dim=512, near=1, dim=128, symbols=180)
    config.data = dict(parts=("phones",), batch=16)
    config.train.steps = 2500
    config.train.log_every = 100
    config.train.eval_every = 500
    config.train.save_every = 500
    config.optim.lr = 1e-3
    config.optim.warmup = 50
    config.optim.weight_decay = 0.01
    return local.switch(config, argument)
