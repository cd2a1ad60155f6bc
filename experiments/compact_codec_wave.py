"""Compact codec, phase 2: the wave (decoder and spectral head; the encoder, and so the tokens, stay
as they are).

Command:  mdmspeech train --config experiments/compact_codec_wave.py \
              --workdir ~/.cache/mdmspeech/runs/compact_codec_wave
          In small, random data and weights: --config experiments/compact_codec_wave.py:runlocal
Plan:     as phase 1 without the encoder's gradient, and three STFT resolutions of 0.96 s a crop: 1
          s a step alone; 1,000 steps see 11 h.
Cost:     the shipped one: 1,000 steps, 59 min on 2 CPU cores (AMD EPYC), beside other jobs,
          2026-11-21; after phase 1 had gone on, 600 more, 12 min, 2026-11-30:
          --set train.steps=600
Seen:     log-STFT distance 0.57, mel 0.160; after the second 0.52 and 0.144 (held out); resynthesis
          7.8 % word errors, 11.3 after the first.
"""

from experiments import compact_codec, local


def get_config(argument: str = ""):
    config = compact_codec.get_config()
    config.phase = "wave"
    config.init_from = "compact_codec"
    config.data.parts = ("open", "answers")
    config.data.batch = 16
    config.train.steps = 1600
    config.optim.lr = 8e-4
    config.optim.warmup = 50
    return local.switch(config, argument)
