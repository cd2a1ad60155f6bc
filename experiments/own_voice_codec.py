"""The compact codec in your own voice: decoder and synthesis learn it, starting from the shipped ones; encoder, and so the tokens, stay as they are.

Command:  make train-own NAME=mine          after: mdmspeech data --manifest my/manifest.jsonl --name mine
"""

from experiments import compact_codec_wave, local


def get_config(argument: str = ""):
    config = compact_codec_wave.get_config()
    config.init_from = "compact"
    config.data.parts = ("own",)  # `make train-own NAME=...` sets it
    config.data.batch = 8
    config.train.steps = 240
    config.train.log_every = 10
    config.train.eval_every = 0
    config.train.save_every = 60
    config.optim.lr = 5e-4
    config.optim.warmup = 20
    return local.switch(config, argument)
