"""Weights in 8 bits, and tables in 6, to store and to send; in memory they are float32 again.

Symmetric. In 8 bits one scale an output channel: w ~ q * scale, q in -127..127, and the error is at
most half a scale: 0.4 % of a channel's largest weight. In 6 bits, q in -31..31, one scale for each
64 neighbours of a row: 1.6 % of the largest of them.
"""

from collections.abc import Mapping

import numpy as np

from mdmspeech.errors import UserError

SCALE = ":scale"  # ends the name of the tensor of scales
_SMALLEST = 4096  # elements; smaller tensors stay as they are
_GROUP = 64  # values of a row that share a scale in 6 bits
_CHANNELS_LAST = ("kernel", "lora_a")


def to_int8(tensors: Mapping[str, np.ndarray], tables_in_6: bool = False) -> dict[str, np.ndarray]:
    """float32 tensors -> the same with every large matrix as int8 [...] under its name and float32
    scales under name + ":scale".

    Kernels (names ending in "kernel", output channels last) have a scale for each place of the last
    axis, tables for each row; the two halves of a LoRA one for each of its ranks.

    Args:
      tables_in_6: tables [N, D] whose D is a multiple of 64 (embeddings) become uint8
        [N, D * 3 / 4], four values in three bytes, and float16 scales [N, D / 64].
    """
    out = {}
    for name, value in tensors.items():
        last = name.endswith(_CHANNELS_LAST)
        if value.ndim < 2 or value.size < _SMALLEST:
            out[name] = value
        elif tables_in_6 and value.ndim == 2 and not last and value.shape[1] % _GROUP == 0:
            out[name], out[name + SCALE] = _to_int6(value)
        else:
            axes = tuple(range(value.ndim - 1)) if last else tuple(range(1, value.ndim))
            scale = np.abs(value).max(axis=axes, keepdims=True) / np.float32(127)
            out[name] = np.rint(value / np.where(scale == 0, 1, scale)).astype(np.int8)
            out[name + SCALE] = scale.astype(np.float32)
    return out


def from_int8(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The inverse, up to rounding.

    Raises:
      UserError: `source` has a matrix in 8 or 6 bits without its scales, or scales of another shape.
    """
    out = {}
    for name, value in tensors.items():
        scale = tensors.get(name + SCALE)
        if value.dtype == np.int8:
            if (
                scale is None
                or scale.ndim != value.ndim
                or any(s not in (1, n) for s, n in zip(scale.shape, value.shape, strict=True))
            ):
                raise _no_scales(source, name, 8)
            out[name] = value.astype(np.float32) * scale
        elif value.dtype == np.uint8:
            if scale is None or (*scale.shape[:-1], scale.shape[-1] * _GROUP * 3) != (
                *value.shape[:-1],
                value.shape[-1] * 4,
            ):
                raise _no_scales(source, name, 6)
            out[name] = _from_int6(value, scale)
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors):
            out[name] = value
    return out


def _no_scales(source: str, name: str, bits: int) -> UserError:
    return UserError(
        f"{source}: the scales of {name}, which is stored in {bits} bits, are missing or do not fit; "
        "fetch it again"
    )


def _to_int6(table_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    groups_NKG = table_ND.reshape(len(table_ND), -1, _GROUP)
    scale_NK = (np.abs(groups_NKG).max(axis=2) / np.float32(31)).astype(np.float16)
    step_NK1 = scale_NK.astype(np.float32)[:, :, None]
    q_NKG = np.rint(groups_NKG / np.where(step_NK1 == 0, 1, step_NK1)).clip(-31, 31)
    a, b, c, d = (q_NKG.astype(np.int64) + 32).reshape(len(table_ND), -1, 4).transpose(2, 0, 1)
    three = np.stack([a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2], axis=-1) & 255
    return three.astype(np.uint8).reshape(len(table_ND), -1), scale_NK


def _from_int6(packed_NP: np.ndarray, scale_NK: np.ndarray) -> np.ndarray:
    x, y, z = packed_NP.reshape(len(packed_NP), -1, 3).astype(np.int32).transpose(2, 0, 1)
    four = np.stack([x, x >> 6 | y << 2, y >> 4 | z << 4, z >> 2], axis=-1) & 63
    q_NKG = (four - 32).astype(np.float32).reshape(*scale_NK.shape, _GROUP)
    return (q_NKG * scale_NK.astype(np.float32)[:, :, None]).reshape(len(packed_NP), -1)
