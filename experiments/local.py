"""`runlocal`: any experiment in small, on random data and random weights, a minute on a laptop. It shows that the whole path works, and teaches nothing."""

from ml_collections import ConfigDict

from mdmspeech.errors import UserError


def switch(config: ConfigDict, argument: str) -> ConfigDict:
    """What `get_config(argument)` returns: for "" the config as it is, for "runlocal" the same stage in small."""
    if argument not in ("", "runlocal"):
        raise UserError(f"{argument!r}: the only argument an experiment takes is 'runlocal'")
    if not argument:
        return config
    {"codec": _codec, "hearing": _hearing, "talker": _talker, "thinker": _thinker, "phones": _phones}[config.stage](config)
    if config.get("init_from"):
        config.init_from = "random"
    config.data.batch = 8
    config.data.parts = ("random",)
    config.train.update(steps=20, log_every=5, eval_every=10, save_every=10)
    config.optim.warmup = 5
    return config


def _codec(config):
    config.codec = dict(
        encoder_width=64, encoder_layers=1, decoder_width=64, decoder_layers=2, decoder_lookahead=(1,), frame_width=32, head_dim=32
    )
    config.data.tokens = 32


def _hearing(config):
    if config.mode == "ctc":
        config.adaptor = dict(states=64, width=64, layers=1, stack=2, head_dim=32)
        return
    config.adaptor.update(states=64, width=64, layers=1, heads=2, ffn=128)
    config.start_layers = ()


def _talker(config):
    if config.talker.anchors == "paced":
        config.talker.update(width=64, layers=1, heads=2, ffn=128, symbol_lookahead=(2,))
        config.data.update(length=128, symbols=128)
        return
    if config.talker.anchors == "prefix":
        config.talker.update(width=64, layers=2, heads=4, kv_heads=2, ffn=128, text_rows=512)
        config.data.update(length=256, text=512, threads=1)
        config.weights.tokenizer = "random"
        return
    _small_thinker(config)
    config.talker.update(width=64, layers=2, heads=4, ffn=128, text_width=2 * config.thinker.dim)
    config.data.update(length=256, text=512, threads=1)


def _thinker(config):
    _small_thinker(config)
    config.encoder.update(dim=64, num_layers=2, num_heads=4, ffn_dim=128)
    config.hidden = 64
    config.data.update(length=512, frames=1000, threads=1)


def _phones(config):
    config.aligner.update(states=64, width=32)


def _small_thinker(config):
    config.thinker.update(vocab_size=512, dim=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, ffn_dim=128)
    for part in config.weights:
        config.weights[part] = "random"
    config.prompt.system = ""
