"""A Thinker's checkpoint with a trained low-rank update (`models.lora`) merged in, a tensor at a
time, while it is read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface_rules import thinker_rules
from mdmspeech.interop.tensors import Stored
from mdmspeech.models import lora
from mdmspeech.models.thinker import ThinkerConfig

_ENDS = ("/lora_a", "/lora_b")


def merged_tensors(
    config: ThinkerConfig, tensors: Mapping[str, Stored], update: Any, dtype: Any = None
) -> dict[str, Stored]:
    """`tensors` (Hugging Face names) with the update in their kernels; nothing is read yet.

    Args:
      config: of the run that trained the update: its lora_alpha, and the layout (scan_layers) that
        `update`, a nested dict, has.
      dtype: of the merged tensors; None: as they are stored. What a 16-bit type cannot hold of a
        small update is lost.

    Raises:
      UserError: the update belongs to another model.
    """
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(update, sep="/").items()}
    out, used = dict(tensors), set()
    for rule in thinker_rules(dataclasses.replace(config, lora_rank=0)):
        names = [rule.path.removesuffix("/kernel") + end for end in _ENDS]
        if not rule.path.endswith("/kernel") or not any(name in flat for name in names):
            continue
        used.update(names)
        if any(
            name not in flat or flat[name].ndim != (2 if rule.layer is None else 3)
            for name in names
        ):
            raise UserError(
                f"the LoRA update of {rule.path} is incomplete; give the run that trained it"
            )
        down, up = (flat[name] if rule.layer is None else flat[name][rule.layer] for name in names)
        tensor = tensors[rule.name]
        if tuple(tensor.shape) != (up.shape[1], down.shape[0]) or down.shape[1] != up.shape[0]:
            raise UserError(
                f"the LoRA update of {rule.path} does not fit {rule.name} "
                f"{list(tensor.shape)}: give its own base model"
            )
        out[rule.name] = _Merged(tensor, down, up, config.lora_alpha, dtype)
    if unused := sorted(set(flat) - used):
        raise UserError(
            f"{len(unused)} parts of the LoRA update have no place in the base "
            f"model ({', '.join(unused[:4])}): give its own base model"
        )
    return out


class _Merged:
    """A linear layer [out, in] plus its update."""

    def __init__(
        self, tensor: Stored, down: np.ndarray, up: np.ndarray, alpha: float, dtype: Any
    ) -> None:
        self.shape, self.dtype = tensor.shape, np.dtype(tensor.dtype if dtype is None else dtype)
        self._tensor, self._down, self._up, self._alpha = tensor, down, up, alpha

    def __getitem__(self, rows: slice) -> np.ndarray:
        kernel = np.asarray(self._tensor[rows], self.dtype).T
        return np.asarray(
            lora.fuse(
                {"kernel": kernel}, {"lora_a": self._down, "lora_b": self._up[:, rows]}, self._alpha
            )["kernel"]
        ).T

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self[slice(None)]
        return value if dtype is None else value.astype(dtype, copy=False)
