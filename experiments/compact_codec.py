"""Compact codec, phase 1: tokens (encoder, FSQ, acoustic decoder) from spectra.

Command:  mdmspeech train --config experiments/compact_codec.py --workdir ~/.cache/mdmspeech/runs/compact_codec
          In small, random data and weights: --config experiments/compact_codec.py:runlocal
Plan:     12.1 M parameters x 1,536 tokens x 6 = 0.11 TFLOP a step, 0.95 s alone on 2 cores; 1,100
          steps see 19 h of speech.
Cost:     31 min on 2 CPU cores (AMD EPYC, AVX-512), shared with other jobs the whole time,
          2026-11-21.
Seen:     loss 0.499, normalised mel L1 + L2/2 0.173, 74 % of the half-token phones right; still
          falling.
"""

from experiments import local
from mdmspeech.training.config import base


def get_config(argument: str = ""):
    config = base()
    config.stage = "codec"
    config.phase = "tokens"
    config.init_from = ""
    config.init_fresh = config.init_ignored = ()  # parameters that may differ from it
    # weight of the semantic auxiliary loss; above 0 it needs: mdmspeech data --states --parts open
    config.codec = dict(semantic=0.0, semantic_dim=512)
    config.data = dict(parts=("open",), batch=24, tokens=64)
    config.train.log_every = 10
    config.train.steps = 1100
    config.train.eval_every = 400
    config.train.save_every = 200
    config.optim.lr = 1.5e-3
    config.optim.warmup = 100
    config.optim.b2 = 0.98
    config.optim.weight_decay = 0.01
    return local.switch(config, argument)
