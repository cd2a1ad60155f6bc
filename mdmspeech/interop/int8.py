"""Weights in 8 bits, to store and to send; in memory they are float32 again.

Symmetric, one scale an output channel: w ~ q * scale, q in -127..127. The error is at most half a
scale: 0.4 % of a channel's largest weight.
"""

from collections.abc import Mapping

import numpy as np

from mdmspeech.errors import UserError

SCALE = ":scale"  # ends the name of the tensor of scales
_SMALLEST = 4096  # elements; smaller tensors stay as they are


def to_int8(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """float32 tensors -> the same with every large matrix as int8 [...] under its name and float32
    scales under name + ":scale".

    Kernels (names ending in "kernel", output channels last) have a scale for each place of the last
    axis, tables for each row; the two halves of a LoRA one for each of its ranks.
    """
    out = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.size < _SMALLEST:
            out[name] = value
            continue
        last = name.endswith(("kernel", "lora_a"))
        axes = tuple(range(value.ndim - 1)) if last else tuple(range(1, value.ndim))
        scale = np.abs(value).max(axis=axes, keepdims=True) / np.float32(127)
        out[name] = np.rint(value / np.where(scale == 0, 1, scale)).astype(np.int8)
        out[name + SCALE] = scale.astype(np.float32)
    return out


def from_int8(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The inverse, up to rounding.

    Raises:
      UserError: `source` has a matrix in 8 bits without its scales, or scales of another shape.
    """
    out = {}
    for name, value in tensors.items():
        if value.dtype == np.int8:
            scale = tensors.get(name + SCALE)
            if (
                scale is None
                or scale.ndim != value.ndim
                or any(s not in (1, n) for s, n in zip(scale.shape, value.shape, strict=True))
            ):
                raise UserError(
                    f"{source}: the scales of {name}, which is stored in 8 bits, "
                    "are missing or do not fit; fetch it again"
                )
            out[name] = value.astype(np.float32) * scale
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            out[name] = value
    return out
