"""A part of a release, and its tensors as a file holds them: in 16 bits, or in 8 or 6 where asked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict

from mdmspeech.errors import UserError
from mdmspeech.interop.int8 import SCALE, from_int8, to_int8
from mdmspeech.interop.parts import KINDS, Config
from mdmspeech.interop.rules import TensorRule, import_params
from mdmspeech.text import prompts

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
EXACT = "float32"


@dataclasses.dataclass(frozen=True)
class Part:
    """One trained part: what it is (a key of `KINDS`), its sizes, its parameters (nested dicts of
    float32 arrays).

    prompt: after which it was trained, if it `reads_prompt`; None: random, or it is of no matter.
    tokenizer: of the text whose ids it reads, if it does, as its tokenizer.json has it; None: it is
      not known, or of no matter.
    """

    kind: str
    config: Config
    params: dict[str, Any]
    prompt: prompts.Prompt | None = None
    tokenizer: str | None = None


def stored_tensors(name: str, part: Part, dtype: str, bits: int = 16) -> dict[str, np.ndarray]:
    """What is written of the part `name`, by the tensors' names.

    Args:
      dtype: of `DTYPES`, or `EXACT`. bits: 8: large matrices in 8 bits instead; 6: and tables in 6,
        see `interop.int8`.

    Raises:
      UserError: tensors that are not those of its sizes; values that the type cannot hold.
    """
    tensors = {
        key: np.asarray(leaf, np.float32)
        for key, leaf in flatten_dict(part.params, sep="/").items()
    }
    fit(tensors, part.kind, part.config, name)
    return {
        key: value
        if dtype == EXACT or value.dtype in (np.int8, np.uint8) or key.endswith(SCALE)
        else _narrow(value, dtype, f"{name}: {key}")
        for key, value in (to_int8(tensors, bits == 6) if bits < 16 else tensors).items()
    }


def as_stored(name: str, part: Part, dtype: str, bits: int = 16) -> Part:
    """The part as it is once it has been written and read: rounded. Arguments and errors as of
    `stored_tensors`.
    """
    stored = from_int8(stored_tensors(name, part, dtype, bits), name)
    tensors = {key: np.asarray(value, np.float32) for key, value in stored.items()}
    return dataclasses.replace(part, params=fit(tensors, part.kind, part.config, name))


def fit(
    tensors: Mapping[str, np.ndarray], kind: str, config: Config, source: str
) -> dict[str, Any]:
    """The parameter tree, or one UserError with every disagreement between tensors and sizes."""
    try:
        shapes = KINDS[kind].shapes(config)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"{source}: no {kind} can be built from its sizes "
            f"({' '.join(str(error).split())[:160]})"
        ) from error
    rules = [TensorRule(path, path) for path in flatten_dict(shapes, sep="/")]
    return import_params(tensors, rules, shapes, source)


def _narrow(value: np.ndarray, dtype: str, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = value.astype(DTYPES[dtype])
    if not np.isfinite(stored.astype(np.float32)).all():
        raise UserError(
            f"{name} has values that are not finite in {dtype}; repair the training "
            "run, or store bfloat16"
        )
    return stored
