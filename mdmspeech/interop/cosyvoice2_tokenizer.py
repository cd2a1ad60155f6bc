"""The published S3 tokenizer v2: `speech_tokenizer_v2.onnx` of CosyVoice2-0.5B, and safetensors
files made from it.

Names are those of the PyTorch port (xingchensong/S3Tokenizer), which Chatterbox's s3gen.safetensors
also has, under "tokenizer.".
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.cosyvoice2.s3_tokenizer import S3Config, S3Network
from mdmspeech.errors import UserError
from mdmspeech.interop.onnx_weights import OnnxWeights
from mdmspeech.interop.rules import CONV1D, LINEAR, TensorRule, import_params
from mdmspeech.interop.tensors import read_tensors

_PREFIX = "tokenizer."  # where the tokenizer is a part of a larger file
_BUFFERS = ("_mel_filters", "window")  # stored by some ports, computed here
_HEAD_DIM = 64  # of every published S3 tokenizer; no tensor's shape tells it
_LATENT = "quantizer._codebook.project_down"
_OFFICIAL = "give CosyVoice2's speech_tokenizer_v2.onnx, or a safetensors file made from it"
_PICKLES = {".pt", ".pth", ".bin", ".ckpt"}


def s3_rules(config: S3Config) -> list[TensorRule]:
    """Where each parameter of the S3 tokenizer comes from."""
    rules = _affine("latent", _LATENT)
    for name in ("conv1", "conv2"):
        rules += [
            TensorRule(f"front/{name}/kernel", f"encoder.{name}.weight", CONV1D),
            TensorRule(f"front/{name}/bias", f"encoder.{name}.bias"),
        ]
    for index in range(config.num_layers):
        ours, theirs = f"layer_{index}", f"encoder.blocks.{index}"
        for short, long in {"q": "query", "v": "value", "o": "out"}.items():
            rules += _affine(f"{ours}/attn/{short}", f"{theirs}.attn.{long}")
        rules.append(TensorRule(f"{ours}/attn/k/kernel", f"{theirs}.attn.key.weight", LINEAR))
        rules.append(
            TensorRule(f"{ours}/attn/fsmn/kernel", f"{theirs}.attn.fsmn_block.weight", CONV1D)
        )
        rules += _affine(f"{ours}/mlp/fc1", f"{theirs}.mlp.0") + _affine(
            f"{ours}/mlp/fc2", f"{theirs}.mlp.2"
        )
        for mine, name in {"attn_norm": "attn_ln", "mlp_norm": "mlp_ln"}.items():
            rules += [
                TensorRule(f"{ours}/{mine}/scale", f"{theirs}.{name}.weight"),
                TensorRule(f"{ours}/{mine}/bias", f"{theirs}.{name}.bias"),
            ]
    return rules


def _affine(ours: str, theirs: str) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}/kernel", f"{theirs}.weight", LINEAR),
        TensorRule(f"{ours}/bias", f"{theirs}.bias"),
    ]


def s3_shapes(config: S3Config) -> Any:
    """Abstract parameter tree of an S3 tokenizer; nothing is allocated."""
    example = jnp.zeros((1, 8, config.num_mels)), jnp.array([8])
    return jax.eval_shape(S3Network(config).init, jax.random.key(0), *example)["params"]


def s3_config(
    tensors: Mapping[str, np.ndarray], source: str, head_dim: int = _HEAD_DIM
) -> S3Config:
    """Sizes read off the shapes of tensors under their PyTorch names. Raises UserError if they are
    no S3 tokenizer v2.
    """
    first, names = (
        "encoder.blocks.0.",
        (
            "encoder.conv1.weight",
            "encoder.blocks.0.mlp.0.weight",
            "encoder.blocks.0.attn.fsmn_block.weight",
        ),
    )
    if missing := [name for name in names if name not in tensors]:
        raise UserError(f"{source} holds no S3 tokenizer v2: it has no {missing[0]}; {_OFFICIAL}")
    conv, mlp, memory = (tensors[name].shape for name in names)
    if (
        (len(conv), len(mlp), len(memory)) != (3, 2, 3)
        or not conv[0]
        or conv[0] % head_dim
        or memory[2] % 2 == 0
    ):
        raise UserError(
            f"{source} holds no S3 tokenizer v2: its tensors {first}* have other "
            f"shapes; {_OFFICIAL}"
        )
    layers = {
        int(m[1]) for m in (re.match(r"encoder\.blocks\.(\d+)\.", name) for name in tensors) if m
    }
    return S3Config(conv[1], conv[0], len(layers), conv[0] // head_dim, mlp[0], memory[2])


def s3_params(config: S3Config, tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Tensors under their PyTorch names -> parameters of the S3 tokenizer. Raises UserError naming
    all that does not fit.
    """
    return import_params(tensors, s3_rules(config), s3_shapes(config), source)


def load_s3_tokenizer(
    path: str | os.PathLike, head_dim: int = _HEAD_DIM
) -> tuple[S3Config, dict[str, Any]]:
    """An official ONNX file, or a safetensors file (or a folder with one) -> (config, parameters).
    Nothing in the file is executed.

    Raises:
      UserError: missing, corrupt, of another kind, or with tensors that do not fit.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        raise UserError(f"{path} is a pickle, which can run code and is never opened; {_OFFICIAL}")
    if not path.exists():
        raise UserError(f"{path} does not exist; {_OFFICIAL}")
    if path.suffix.lower() == ".onnx":
        tensors = onnx_tensors(OnnxWeights(path))
    else:
        tensors = read_tensors(path)
        inside = {
            name.removeprefix(_PREFIX): value
            for name, value in tensors.items()
            if name.startswith(_PREFIX)
        }
        tensors = {
            name: value for name, value in (inside or tensors).items() if name not in _BUFFERS
        }
    config = s3_config(tensors, str(path), head_dim)
    return config, s3_params(config, tensors, str(path))


# A weight of a layer is known by the name of the node it feeds: "/blocks.0/attn/query/MatMul".
_IN_LAYER = re.compile(
    r"/(blocks\.\d+)/(?:(attn)/|mlp/)?(query|key|value|out|fsmn_block|mlp\.\d+"
    r"|attn_ln|mlp_ln)/(MatMul|Add|Conv|LayerNormalization)"
)


def onnx_tensors(file: OnnxWeights) -> dict[str, np.ndarray]:
    """The weights of the official ONNX file under their PyTorch names and axis orders.

    Its weights are anonymous, its nodes are not. The two front convolutions are the only ones that
    mix channels, and the projection to the 8 digits is the product that the one named bias,
    "quantizer.project_in.bias", is added to.

    Raises:
      UserError: nodes of the S3 tokenizer v2 that are missing or have other weights than they
        should.
    """
    tensors: dict[str, np.ndarray] = {}
    front: list[list[np.ndarray]] = []
    producers = {output: node for node in file.nodes for output in node.outputs}
    for node in file.nodes:
        weights = [name for name in node.inputs if name in file]
        if match := _IN_LAYER.fullmatch(node.name):
            block, part, module, kind = match.groups()
            wanted = (
                ("weight", "bias")
                if kind == "LayerNormalization"
                else ("bias",)
                if kind == "Add"
                else ("weight",)
            )
            if len(weights) != len(wanted):
                raise UserError(
                    f"{file.path}: node {node.name} has {len(weights)} weights, not "
                    f"{len(wanted)}; {_OFFICIAL}"
                )
            theirs = ".".join(filter(None, ("encoder", block, part, module)))
            for role, weight in zip(wanted, weights, strict=True):
                value = file.tensor(weight)
                tensors[f"{theirs}.{role}"] = value.T if kind == "MatMul" else value
        elif node.kind == "Conv" and len(weights) == 2:
            front.append([file.tensor(weight) for weight in weights])
        elif node.kind == "Add" and weights == ["quantizer.project_in.bias"]:
            product = next((producers[name] for name in node.inputs if name in producers), None)
            kernels = [name for name in product.inputs if name in file] if product else []
            if len(kernels) == 1:
                tensors[f"{_LATENT}.weight"], tensors[f"{_LATENT}.bias"] = (
                    file.tensor(kernels[0]).T,
                    file.tensor(weights[0]),
                )
    if len(front) != 2 or f"{_LATENT}.weight" not in tensors:
        raise UserError(
            f"{file.path} holds no S3 tokenizer v2: it has {len(front)} front "
            f"convolutions and other nodes; {_OFFICIAL}"
        )
    for index, (kernel, bias) in enumerate(front, 1):
        tensors[f"encoder.conv{index}.weight"], tensors[f"encoder.conv{index}.bias"] = kernel, bias
    return tensors
