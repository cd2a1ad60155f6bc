"""What numbers the settings of an experiment may have: one table, by the key's name. Looked at
before anything is loaded or written. What words they may have is told by `config.CHOICES` and by
the stage (`Stage.choices`).

A key that no line names falls under a default: a whole number is 0 or more, any other number
  finite. What only a model knows (that its width divides by its
heads) is told by the model.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.training.config import CHOICES

_MOST = 2**31 - 1
_TINY = 1e-30  # "above 0"
_BELOW_ONE = 1 - 1e-9

# Sizes of a model: without them it would have no parameters. (Others may be 0, which says "none" or
# "as wide as".)
_SIZES = (
    "dim|num_layers|num_heads|num_kv_heads|head_dim|ffn_dim|vocab_size|num_mels|encoder_dim|"
    "encoder_num_layers|decoder_dim|decoder_num_layers|frame_dim|block|symbols|stack|max_positions|"
    "pieces|positions|anchors_per_block|semantic_dim"
)

# pattern of the whole key, least, most; the first that matches counts
RANGES: tuple[tuple[str, float, float], ...] = (
    (r"train\.(accum|log_every|save_every|keep|prefetch)", 1, _MOST),
    (r"train\.(steps|eval_every|seed|profile)", 0, _MOST),
    (r"train\.epochs", 0, 1e6),
    (r"train\.minutes", 0, 1e9),
    (r"train\.max_hours", 0, 1e6),
    (r"train\.peak_flops", 0, 1e20),
    (r"optim\.lr", 0, 10),
    (r"optim\.warmup", 0, _MOST),
    (r"optim\.(final|warmup_share|decay_share)", 0, 1),
    (r"optim\.(b1|b2|ema)", 0, _BELOW_ONE),
    (r"optim\.eps", _TINY, 1),
    (r"optim\.weight_decay", 0, 10),
    (r"optim\.clip", 0, 1e9),
    (r"mesh\.data", -1, _MOST),
    (r"mesh\.slices", 0, _MOST),
    (r"mesh\.\w+", 1, _MOST),
    (r"data\.(batch|length|tokens|symbols|frames|text)", 1, _MOST),
    (r"data\.token_seconds", 1e-3, 10),
    (r"data\.weights", 0, 1e9),
    (r"data\.temperature", _TINY, 1e6),
    (r"data\.augmented", 0, 1),
    (r"masking\.(low|high|blocks|tokens)", 0, 1),
    (r"distillation\.a", 0, 1),
    (r"distillation\.temperature", 1e-3, 1e3),
    (r"distillation\.iterations", 1, 1024),
    (r"capacity", 1e-3, 1),
    (r"streams", 1, 2),
    (r"start_share|training\.teacher_share|label_smoothing", 0, 1),
    (r"codec\.semantic", 0, 1e3),
    (r"z_loss", 0, 1e3),
    (r"hours", 0, 1e9),
    (r"(.*\.)?dropout", 0, _BELOW_ONE),
    (r".*\.lora_alpha", _TINY, 1e6),
    (r".*\.rope_theta", 1, 1e12),
    (r".*\.norm_eps", _TINY, 0.1),
    (r"hidden_dim|chunk", 1, 2**24),
    (r"talker\.num_kv_heads", 0, 2**24),
    (rf"(\w+)\.({_SIZES})", 1, 2**24),
)


def choices_of(stage: Any) -> Mapping[str, tuple[str, ...]]:
    """Words that settings of an experiment of that stage may have, by key: those of every run, and its
    own.
    """
    from mdmspeech.training.stages.build import known_stage

    known = known_stage(stage)
    return CHOICES | dict(known.choices) if known else CHOICES


def check_ranges(config: Mapping[str, Any]) -> None:
    """A UserError for the first setting that is no number where it should be one, not finite, out of
    its range, or none of its choices; for a batch that does not divide into its micro-batches; and
    for a run without an end, or with two.
    """
    choices = choices_of(config.get("stage"))
    for key, value in settings(config):
        check_setting(key, value, choices)
    found = dict(settings(config))
    check_duration(found.get("train.steps", 1), found.get("train.epochs", 0.0))
    batch, accum = found.get("data.batch", 0), found.get("train.accum", 1)
    if isinstance(batch, int) and isinstance(accum, int) and batch % accum:
        raise UserError(
            f"data.batch is {batch} and train.accum {accum}: make data.batch a "
            "multiple of train.accum"
        )


def check_duration(steps: int, epochs: float) -> None:
    """A UserError unless a run ends by one of the two, the other being 0."""
    if steps and epochs:
        raise UserError(
            f"train.steps is {steps} and train.epochs {epochs:g}: a run ends by one of them, set "
            "the other to 0"
        )
    if not steps and not epochs:
        raise UserError(
            "train.steps is 0 and so is train.epochs: give one of them, a number of updates or of "
            "passes over the data"
        )


def check_setting(key: str, value: Any, choices: Mapping[str, tuple[str, ...]] = CHOICES) -> None:
    """The same for one setting by its dotted name; the items of a tuple are looked at one by one."""
    if key in choices and value not in choices[key]:
        near = difflib.get_close_matches(str(value), choices[key], 1)
        raise UserError(
            f"{key} is {value!r}: use one of {', '.join(choices[key])}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    for number in _numbers(value):
        least, most = range_of(key, number)
        if not math.isfinite(number):
            raise UserError(
                f"{key} is {number}: give a finite number from {_shown(least)} to {_shown(most)}"
            )
        if not least <= number <= most or (key == "mesh.data" and number == 0):
            raise UserError(
                f"{key} is {_shown(number)}: give a number from {_shown(least)} to {_shown(most)}"
            )


def range_of(key: str, number: float) -> tuple[float, float]:
    """(least, most) that a key may be; `number` decides between the defaults."""
    for pattern, least, most in RANGES:
        if re.fullmatch(pattern, key):
            return least, most
    return (0, _MOST) if isinstance(number, int) else (-1e30, 1e30)


def settings(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from settings(value, f"{before}{name}.")
        else:
            yield before + str(name), value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _shown(number: float | int) -> str:
    if number == _TINY:
        return "above 0"
    if number == _BELOW_ONE:
        return "below 1"
    if not isinstance(number, int):
        return f"{number:g}"
    return str(number) if abs(number) < 10**12 else f"a number of {abs(number).bit_length()} bits"
