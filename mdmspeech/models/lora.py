"""LoRA (Hu et al. 2021, arXiv 2106.09685): parting a model's low-rank updates from its frozen
weights, and merging them in.

A model whose `Linear` layers have a rank > 0 has leaves `lora_a` and `lora_b` beside each kernel.
Training holds the two sets apart, since only one is trained: `split` -> (base, lora); `combine`
makes the tree the model is applied with; `fuse` makes one for the same model without LoRA.
"""

from typing import Any

import jax.numpy as jnp

from mdmspeech.errors import UserError

_NAMES = ("lora_a", "lora_b")


def split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(everything but the updates, the updates alone), both nested dicts without empty branches."""
    base: dict[str, Any] = {}
    lora: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, dict):
            for side, branch in zip((base, lora), split(value), strict=True):
                if branch:
                    side[name] = branch
        else:
            (lora if name in _NAMES else base)[name] = value
    return base, lora


def combine(base: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `split`. ValueError if a leaf is in both."""
    out = dict(base)
    for name, value in lora.items():
        if name not in out:
            out[name] = value
        elif isinstance(value, dict) and isinstance(out[name], dict):
            out[name] = combine(out[name], value)
        else:
            raise ValueError(f"parameter {name!r} is in both trees")
    return out


def fuse(base: dict[str, Any], lora: dict[str, Any], alpha: float) -> dict[str, Any]:
    """`base` with every kernel W replaced by W + (alpha / rank) A B: the same function, no LoRA.
    Computed in float32, stored in the kernel's type.

    Kernels may have a leading layer axis. UserError if an update has no kernel beside it.
    """
    out = dict(base)
    if "lora_a" in lora:
        if "kernel" not in base:
            raise UserError(
                "a LoRA update has no kernel beside it: it belongs to another "
                "model; give the base model it was trained on"
            )
        down, up = (jnp.asarray(lora[name], jnp.float32) for name in _NAMES)
        update = jnp.matmul(down, up * (alpha / down.shape[-1]))
        kernel = jnp.asarray(base["kernel"])
        if kernel.shape != update.shape:
            raise UserError(
                f"a LoRA update of shape {update.shape} does not fit a kernel of "
                f"shape {kernel.shape}: give its own base model"
            )
        out["kernel"] = (kernel.astype(jnp.float32) + update).astype(kernel.dtype)
    for name, value in lora.items():
        if isinstance(value, dict):
            if name not in base:
                raise UserError(
                    f"a LoRA update for {name!r}, which the base model lacks: give "
                    "the base model it was trained on"
                )
            out[name] = fuse(base[name], value, alpha)
    return out
