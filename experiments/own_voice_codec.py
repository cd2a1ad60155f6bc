"""The compact codec in your own voice: decoder and synthesis learn it, starting from the shipped
ones; encoder, and so the tokens, stay as they are.

Command:  make train-own NAME=mine          after: mdmspeech data --manifest my/manifest.jsonl --name mine
Hardware: 2 cores of an Intel Xeon, 2026-11-21: 0.33 s a step, 5 minutes (10 beside other jobs).
Expected: ten minutes of one male voice (Piper's joe, 262 recordings) by `mdmspeech eval --own
          mine`: words of 13 held-out recordings, decoded from their tokens, 17.9 % wrong (shipped
          voice: 17.9 %; after 240 steps 28.6 %), median F0 89 Hz as in the recordings (shipped
          voice: 191 Hz).
"""

from experiments import compact_codec_wave, local


def get_config(argument: str = ""):
    config = compact_codec_wave.get_config()
    config.init_from = "compact"
    config.data.parts = ("own",)  # `make train-own NAME=...` sets it
    config.data.batch = 8
    config.train.steps = 900
    config.train.log_every = 10
    config.train.eval_every = 0
    config.train.save_every = 100
    config.optim.lr = 5e-4
    config.optim.warmup = 20
    return local.switch(config, argument)
