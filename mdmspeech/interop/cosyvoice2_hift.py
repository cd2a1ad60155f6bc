"""Names of CosyVoice2's `hift.pt` -> parameters of our HiFT.

The names are the file format's own; they come from the modules of FunAudioLLM/CosyVoice
(cosyvoice/hifigan). Most convolutions are stored with weight normalisation (Salimans & Kingma
2016): weight = g * v / |v|, with a norm for each index of axis 0, which is the output channel of a
convolution but the input channel of a transposed one. We store the product. g and v have two
spellings, by the age of the code that wrote them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mdmspeech.codec.cosyvoice2 import hift
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.rules import CONV1D, LINEAR, TensorRule, import_params

TRANSPOSED_CONV1D = (2, 0, 1)  # [in, out, kernel] -> [kernel, in, out]
_PREFIX = "generator."  # of files that hold the discriminator's names beside
_SPELLINGS = (  # (g, v)
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)


def hift_params(
    config: HiFTConfig, tensors: Mapping[str, np.ndarray], source: str, dtype: Any = np.float32
) -> dict[str, Any]:
    """Tensors under their names in hift.pt -> HiFT parameters. Raises UserError as
    `fold_weight_norm` and `import_params`.
    """
    return import_params(
        fold_weight_norm(plain_names(tensors), source),
        hift_rules(config),
        hift_shapes(config),
        source,
        dtype,
    )


def hift_shapes(config: HiFTConfig) -> Any:
    """Abstract parameter tree of a HiFT; nothing is allocated."""
    return jax.eval_shape(lambda key: hift.init(config, key), jax.random.key(0))


def plain_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same without the prefix that some files have."""
    return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}


def fold_weight_norm(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Every pair g, v replaced by X.weight, float32; anything else as it is.

    Raises:
      UserError: a pair whose shapes do not fit, a v of length zero, or a pair beside the weight
        that it stands for.
    """
    folded = dict(tensors)
    for ending_g, ending_v in _SPELLINGS:
        for stem in [name.removesuffix(ending_g) for name in tensors if name.endswith(ending_g)]:
            if stem + ending_v not in folded:
                continue  # reported as missing and unknown
            name = f"{stem}.weight"
            g, v = (
                np.asarray(folded.pop(stem + ending), np.float64) for ending in (ending_g, ending_v)
            )
            if name in folded:
                raise UserError(
                    f"{source} has {name} twice, plain and weight-normalised; give "
                    "a file with one of them"
                )
            if g.shape != (*v.shape[:1], *(1,) * (v.ndim - 1)):
                raise UserError(
                    f"{source}: {stem + ending_g} {list(g.shape)} does not fit v "
                    f"{list(v.shape)}; fetch or copy the file again"
                )
            norm = _norm(v)
            if not norm.all():
                raise UserError(
                    f"{source}: {stem + ending_v} has a part of length zero, which "
                    "has no direction; fetch the file again"
                )
            folded[name] = (g * v / norm).astype(np.float32)
    return folded


def hift_rules(config: HiFTConfig) -> list[TensorRule]:
    """Where each parameter comes from, once weight normalisation is folded."""
    rules = [
        *_linear("f0_predictor/out", "f0_predictor.classifier"),
        *_linear("source/mix", "m_source.l_linear"),
    ]
    for i in range(config.f0_num_layers):
        # an activation between each two
        rules += _conv(f"f0_predictor/conv_{i}", f"f0_predictor.condnet.{2 * i}")
    rules += _conv("decoder/pre", "conv_pre") + _conv("decoder/post", "conv_post")
    blocks = len(config.resblock_kernels)
    for i in range(len(config.upsample_rates)):
        rules += _conv(f"decoder/up_{i}", f"ups.{i}", TRANSPOSED_CONV1D) + _conv(
            f"decoder/source_{i}", f"source_downs.{i}"
        )
        rules += _block(config, f"decoder/source_block_{i}", f"source_resblocks.{i}")
        for j in range(blocks):
            rules += _block(config, f"decoder/block_{i}_{j}", f"resblocks.{blocks * i + j}")
    return rules


def _block(config: HiFTConfig, ours: str, theirs: str) -> list[TensorRule]:
    rules = []
    for i in range(len(config.dilations)):
        for n in (1, 2):
            rules += _conv(f"{ours}/conv{n}_{i}", f"{theirs}.convs{n}.{i}")
            rules.append(
                TensorRule(f"{ours}/snake{n}_{i}/alpha", f"{theirs}.activations{n}.{i}.alpha")
            )
    return rules


def _conv(ours: str, theirs: str, axes: tuple[int, ...] = CONV1D) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}/kernel", f"{theirs}.weight", axes),
        TensorRule(f"{ours}/bias", f"{theirs}.bias"),
    ]


def _linear(ours: str, theirs: str) -> list[TensorRule]:
    return _conv(ours, theirs, LINEAR)


def _norm(weight: np.ndarray) -> np.ndarray:
    return np.sqrt(
        np.sum(
            np.square(weight, dtype=np.float64), axis=tuple(range(1, weight.ndim)), keepdims=True
        )
    )
