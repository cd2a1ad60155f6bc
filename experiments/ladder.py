"""The Talker at any width, for a scaling ladder: four layers, heads of 128, ffn 4 x width, masked
diffusion with paced anchors (the compact Talker's), under muP with a warm-up, stable, decay schedule.

Command:  mdmspeech train --config experiments/ladder.py:width=512,tokens=2e9 --workdir RUNS/w512
          A whole ladder, its fit and its picture: docs/scaling.md.
          In small, random data and weights: --config experiments/ladder.py:runlocal
Settings: width=512     below 256 a head is half of the width, see `head`
          tokens=2e9    positions that the run reads
          layers=4      the family of depths beside that of widths; muP says nothing of depth
          head=128      size of a head, which divides the width
          batch=256     rows of 256 positions, 10 s of speech each
          part=open+answers   parts of the corpus; `random` for random tokens
          unique=0      tokens of the records that are read again and again; 0 = all records
          epochs=0      the same by the passes that are made over them: unique = tokens / epochs
          mup=1         0: the standard parametrisation, to compare
Cost:     planned, not run, from width 512 on.
"""

import math
from typing import Any

from experiments import local
from mdmspeech.errors import UserError
from mdmspeech.training.config import base

LENGTH = 256  # positions of a row
BASE = 256  # where the learning rate was found: the compact Talker's
_DEFAULTS: dict[str, Any] = dict(
    width=512,
    tokens=2e9,
    layers=4,
    head=0,
    batch=256,
    part="open+answers",
    unique=0.0,
    epochs=0.0,
    mup=1,
)


def get_config(argument: str = ""):
    given = _read("" if argument == "runlocal" else argument)
    width, head = given["width"], given["head"] or head_of(given["width"])
    if width < 64 or head < 2 or width % head or head % 2:
        raise UserError(
            f"width={width} with heads of {head}: give a width of 64 or more that an even head divides"
        )
    if given["unique"] and given["epochs"]:
        raise UserError("unique and epochs say the same thing: give one of them")
    unique = given["unique"] or (given["tokens"] / given["epochs"] if given["epochs"] else 0)
    config = base()
    config.stage = "talker"
    config.mode = "mdm"
    config.init_from = ""
    config.init_fresh = config.init_ignored = ()
    config.talker = dict(
        dim=width,
        num_layers=given["layers"],
        num_heads=width // head,
        ffn_dim=4 * width,
        block=16,
        anchors="paced",
        symbols=180,
        symbol_lookahead=(8, 4),
        base_dim=BASE if given["mup"] else 0,
        base_head_dim=128 if given["mup"] else 0,
    )
    config.masking = dict(name="bernoulli", low=0.3, high=1.0)
    config.distillation = {}
    config.capacity = 1.0  # logits of every position, so that each update costs the same
    config.data = dict(
        parts=tuple(given["part"].split("+")),
        layout="joined",
        batch=given["batch"],
        length=LENGTH,
        symbols=224,
        token_seconds=0.04,
        unique=round(unique),
    )
    config.train.steps = math.ceil(given["tokens"] / (given["batch"] * LENGTH))
    config.train.log_every = 20
    config.train.eval_every = 0
    config.train.save_every = 500
    config.train.keep = 1
    config.optim.schedule = "wsd"
    config.optim.lr = 2e-3
    config.optim.warmup = 50
    config.optim.weight_decay = 0.02
    return local.switch(config, "runlocal" if argument == "runlocal" else "")


def head_of(width: int) -> int:
    """128 as in the paper's Talkers; half of a width that would have one head."""
    return 128 if width >= 256 else width // 2


def _read(argument: str) -> dict[str, Any]:
    """The settings above, as "width=512,tokens=2e9" gives them."""
    given = dict(_DEFAULTS)
    for word in filter(None, argument.split(",")):
        name, _, text = word.partition("=")
        if name not in given:
            raise UserError(f"{word!r}: experiments/ladder.py takes {', '.join(given)}, runlocal")
        kind = type(given[name])
        try:
            value = kind(text) if kind is str else float(text)
        except ValueError as error:
            raise UserError(f"{word!r}: {name} is a number") from error
        if kind is str and not all(text.split("+")):
            raise UserError(f"{word!r}: name parts of the corpus, with + between them")
        least = 0.0 if name in ("unique", "epochs", "head", "mup") else 1.0
        if kind is not str and not least <= value <= 1e15:
            raise UserError(f"{word!r}: give a number from {least:g} to 1e15")
        if kind is int and value != round(value):
            raise UserError(f"{word!r}: {name} is a whole number")
        given[name] = kind(value)
    return given
