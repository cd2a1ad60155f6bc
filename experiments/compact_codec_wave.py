"""Compact codec, phase 2: the wave (decoder and spectral head; the encoder, and so the tokens, stay as they are).

Command:  mdmspeech train --config experiments/compact_codec_wave.py --workdir ~/.cache/mdmspeech/runs/compact_codec_wave
"""

from experiments import compact_codec


def get_config():
    config = compact_codec.get_config()
    config.phase = "wave"
    config.init_from = "compact_codec"
    config.data.parts = ("open", "answers")
    config.data.batch = 16
    config.train.steps = 1000
    config.optim.lr = 8e-4
    config.optim.warmup = 50
    return config
