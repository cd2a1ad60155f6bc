"""Compact codec, phase 2: the wave (decoder and spectral head; the encoder, and so the tokens, stay
as they are).

Command:  mdmspeech train --config experiments/compact_codec_wave.py \
              --workdir ~/.cache/mdmspeech/runs/compact_codec_wave
          In small, random data and weights: --config experiments/compact_codec_wave.py:runlocal
Plan:     as phase 1 without the encoder's gradient, and three STFT resolutions of 0.96 s a crop: 1
          s a step alone; 1,000 steps see 11 h.
Cost:     the shipped one: 1,000 steps, 59 min on 2 CPU cores (AMD EPYC), beside other jobs,
          2026-11-21; after phase 1 had gone on, 600 more, 12 min, 2026-11-30; and after it had gone
          on again, 450 with lr 2e-4 and 800 with 4e-4, 15 min alone (Intel Xeon), 2026-11-30, each
          from the one before: --set init_from=RUN --set train.steps=800 --set optim.lr=4e-4
Seen:     log-STFT distance 0.57, mel 0.160; held out after the second 0.52 and 0.144, after the third
          0.52 and 0.131. 80 validation sentences: 6.2 % word errors after the second, 5.4 after the
          third. With lr 6e-4 the third lost in 80 steps what phase 1 had won (0.84, 0.163).
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
