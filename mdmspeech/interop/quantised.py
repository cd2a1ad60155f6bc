"""Checkpoints whose weights are stored in fewer bits: FP8 is read, as numbers times scales; of all
others it is said what they are and what to take instead.

FP8 (float8_e4m3fn): w = q * scale, with `weight_scale_inv` a block of 128 x 128 (DeepSeek-V3,
Qwen3-FP8: in spite of its name it multiplies) or `weight_scale` a row or a tensor
(compressed-tensors, fbgemm). Formats: transformers' "Quantization" docs; DeepSeek-V3's
README_WEIGHTS.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.tensors import Stored

_FP8 = (np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2))
_SCALES = ("weight_scale_inv", "weight_scale")
_UNUSED = (
    "input_scale",
    "activation_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "output_scale",
    "input_scale_ub",
)  # of activations and caches
_BLOCK = (128, 128)
# How the names of its tensors end -> what made it. The first that is found counts.
_MADE_BY = (
    ((".g_idx",), "GPTQ"),
    ((".qweight", ".qzeros"), "AWQ or GPTQ"),
    ((".SCB", ".weight_format"), "bitsandbytes (8 bits)"),
    (
        (".absmax", ".quant_map", ".nested_absmax", "bitsandbytes__nf4", "bitsandbytes__fp4"),
        "bitsandbytes (4 bits)",
    ),
    ((".weight_packed",), "compressed-tensors (packed)"),
    ((".weight_scale_2", ".weight_global_scale"), "NVFP4"),
    (("_blocks", "_scales"), "MXFP4"),
    ((".W_q", ".codebooks", ".codes", ".weight._data"), "HQQ, AQLM or quanto"),
    ((".weight_zero_point",), "compressed-tensors (with zero points)"),
)
_FP8_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "finegrained_fp8")
CURE = (
    "take the model's original repository (safetensors in bfloat16, float16 or float32: the name "
    "without GPTQ, AWQ, int4, bnb, ...), its FP8 one, or a .gguf file of it"
)


def plain_weights(
    tensors: Mapping[str, Stored], hf: Mapping[str, Any], source: str
) -> dict[str, Stored]:
    """The tensors of a checkpoint with FP8 weights as float32, not read yet; the others as they
    are.

    Args:
      hf: its config.json. source: what to call it in errors.

    Raises:
      UserError: weights in another format, named by `quantization_config` or by the tensors' names;
        scales that are missing or do not fit.
    """
    settings = hf.get("quantization_config") or hf.get("compression_config") or {}
    if not isinstance(settings, Mapping):
        raise UserError(
            f"{source}: quantization_config is no JSON object; take the model's own config.json"
        )
    whole = [name for name, tensor in tensors.items() if not _floating(tensor)]
    eights = [name for name, tensor in tensors.items() if np.dtype(tensor.dtype) in _FP8]
    made_by = _made_by(settings, tensors, bool(whole))
    if made_by:
        raise UserError(f"{source} is quantised by {made_by}, which is not read here; {CURE}")
    if bare := [name for name in whole if name.endswith((".weight", ".bias"))]:
        kind = np.dtype(tensors[bare[0]].dtype).name
        scales = (
            "with scales of a kind that is not read here"
            if any(n.endswith(_SCALES) for n in tensors)
            else "without scales that say what they mean"
        )
        raise UserError(
            f"{source} has {len(bare)} weights that are whole numbers ({kind}: "
            f"{', '.join(bare[:3])}) {scales}; {CURE}"
        )
    return (
        _dequantised(tensors, eights, _block(settings, source), source) if eights else dict(tensors)
    )


class Dequantised:
    """An FP8 matrix times its scales, float32 when it is read.

    Args:
      tensor: [out, in]. scale: one number, one a row ([out] or [out, 1]), or one a block ([out / a,
        in / b], rounded up). block: (a, b).

    Raises:
      UserError: scales of another shape.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, tensor: Stored, scale: Stored, block: tuple[int, int], name: str) -> None:
        self.shape, self._tensor, self._scale, self._name = tuple(tensor.shape), tensor, scale, name
        shape, count = tuple(scale.shape), int(np.prod(scale.shape))
        rows = self.shape[0] if self.shape else 1
        blocks = tuple(-(-n // size) for n, size in zip(self.shape, block, strict=False))
        if len(self.shape) == 2 and shape == blocks:
            self._block = block
        elif shape in ((rows,), (rows, 1)) or count == 1:
            self._block = (1 if count == rows else rows, self.shape[-1])
        else:
            raise UserError(
                f"{name} {list(self.shape)} has scales {list(shape)}, which are not one a block of "
                f"{list(block)}, a row or a tensor; fetch it again"
            )

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        scale = np.asarray(self._scale).astype(np.float32)
        if not np.isfinite(scale).all():
            raise UserError(f"{self._name} has scales that are no numbers; fetch it again")
        down, right = self._block
        value = np.asarray(self._tensor[first:last]).astype(np.float32)
        if scale.size == 1:
            return value * scale.reshape(())
        scale = scale.reshape(-(-self.shape[0] // down), -1)[np.arange(first, last) // down]
        return value * scale[:, np.arange(self.shape[1]) // right]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self[slice(None)]
        return value if dtype is None else value.astype(dtype, copy=False)


def _dequantised(
    tensors: Mapping[str, Stored], eights: Sequence[str], block: tuple[int, int], source: str
) -> dict[str, Stored]:
    made: dict[str, Stored] = {}
    used = {name for name in tensors if name.rsplit(".", 1)[-1] in _UNUSED}
    for name in eights:
        stem = name.rsplit(".", 1)[0]
        scale = next(
            (f"{stem}.{ending}" for ending in _SCALES if f"{stem}.{ending}" in tensors), None
        )
        if scale is None or not name.endswith(".weight"):
            raise UserError(
                f"{source}: {name} is stored in 8 bits (FP8) without the scales "
                f"that say what it means; {CURE}"
            )
        made[name] = Dequantised(tensors[name], tensors[scale], block, f"{source}: {name}")
        used.add(scale)
    return {name: made.get(name, tensor) for name, tensor in tensors.items() if name not in used}


def _floating(tensor: Stored) -> bool:
    return bool(jnp.issubdtype(np.dtype(tensor.dtype), jnp.floating))


def _made_by(settings: Mapping[str, Any], tensors: Mapping[str, Stored], whole: bool) -> str | None:
    """What quantised a checkpoint in a way that is not read here."""
    found = next(
        (made for endings, made in _MADE_BY if any(name.endswith(endings) for name in tensors)),
        None,
    )
    method = settings.get("quant_method") or (
        "bitsandbytes" if any(settings.get(f"load_in_{n}bit") for n in (4, 8)) else None
    )
    if found is None and not whole and (not method or method in _FP8_METHODS):
        return None
    names = {"gptq": "GPTQ", "awq": "AWQ"}
    told = names.get(str(method), str(method)) if method else None
    if found is not None:
        return found if told is None or told.lower() in found.lower() else f"{found} ({told})"
    if told is not None and (whole or any(name.endswith(_SCALES) for name in tensors)):
        return told
    return None


def _block(settings: Mapping[str, Any], source: str) -> tuple[int, int]:
    """The block size that the config says."""
    groups = settings.get("config_groups")
    weights = (
        next((g.get("weights") for g in groups.values() if isinstance(g, Mapping)), None)
        if isinstance(groups, Mapping)
        else None
    )
    said = settings.get("weight_block_size") or (
        weights.get("block_structure") if isinstance(weights, Mapping) else None
    )
    if said is None:
        return _BLOCK
    if (
        not isinstance(said, list)
        or len(said) != 2
        or not all(type(n) is int and n > 0 for n in said)
    ):
        raise UserError(
            f"{source}: the config says {said!r:.40} for the size of FP8 blocks; "
            "take the model's own config.json"
        )
    return said[0], said[1]
