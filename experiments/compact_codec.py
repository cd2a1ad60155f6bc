"""Compact codec, phase 1: tokens (encoder, FSQ, acoustic decoder) from spectra.

Command:  mdmspeech train --config experiments/compact_codec.py --workdir ~/.cache/mdmspeech/runs/compact_codec
          In small, random data and weights: --config experiments/compact_codec.py:runlocal
Plan:     0.13 TFLOP a step of 1,536 tokens, 1.6 s alone on 2 cores (85 GFLOP/s; the encoder and
          the decoder by themselves reach 95); 4,400 steps see 75 h of speech.
Cost:     the shipped one was trained three times on 2 CPU cores: 1,100 steps over the open
          sentences, 31 min (AMD EPYC), 2026-11-21; 1,500 from there over eight hours of open
          sentences and answers, 51 min, 2026-11-30, both shared with other jobs; and 1,800 more over
          all 28 hours of both, 30 min alone (Intel Xeon), 2026-11-30. The last two:
          --set init_from=compact --set train.steps=1800 --set optim.lr=1e-3
Seen:     after the first, loss 0.499, mel (L1 + L2/2, normalised) 0.173, 74 % of the half-token
          phones right; after the second, 0.345, 0.136 and 83 %, held out 0.142 and 82 %; after the
          third, 0.317, 0.123 and 88 %, held out 0.130 and 86 %. 80 validation sentences, their
          decoded mels made sound by Griffin-Lim as in codec_trials.py (by hand): 7.0 % word errors
          after the first and 6.1 after the second; 80 of the larger corpus: 6.5 after the second, 5.4
          after the third, where the recordings have 2.1.
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
    config.data = dict(parts=("open", "answers"), batch=24, tokens=64)
    config.train.log_every = 10
    config.train.steps = 4400
    config.train.eval_every = 400
    config.train.save_every = 200
    config.optim.lr = 1.5e-3
    config.optim.warmup = 100
    config.optim.b2 = 0.98
    config.optim.weight_decay = 0.01
    return local.switch(config, argument)
