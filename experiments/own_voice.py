"""The compact Talker in your own voice, starting from the shipped one: its tokens, its pauses, its
pace.

Command:  make train-own NAME=mine          after: mdmspeech data --manifest my/manifest.jsonl --name mine
Expected: docs/train_voice.md, "What to expect", by `mdmspeech eval --own mine`.
"""

from experiments import compact_talker, local


def get_config(argument: str = ""):
    config = compact_talker.get_config()
    config.init_from = "compact"
    config.data.parts = ("own",)  # `make train-own NAME=...` sets it
    config.data.batch = 8
    config.train.steps = 60
    config.train.log_every = 10
    config.train.eval_every = 20
    config.train.save_every = 20
    config.optim.lr = 2e-4
    config.optim.warmup = 10
    return local.switch(config, argument)
