"""CosyVoice2's back end from the folder in which it is published (FunAudioLLM/CosyVoice2-0.5B):
flow.pt, hift.pt, speech_tokenizer_v2.onnx.

Each of the three may be a safetensors file with the same names instead. Nothing in the files is
executed. Sizes are read off the tensors' shapes, so smaller models of the same make load as well;
cosyvoice2.yaml, which is a program, is not read. campplus.onnx, the speaker encoder, is only needed
to make a voice (`codec.cosyvoice2.campplus`). The folder's language model is none of the codec's
business.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig
from mdmspeech.codec.cosyvoice2.flow_encoder import FlowEncoderConfig
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimatorConfig
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_flow import flow_params, flow_shapes
from mdmspeech.interop.cosyvoice2_hift import (
    fold_weight_norm,
    hift_params,
    hift_shapes,
    plain_names,
)
from mdmspeech.interop.cosyvoice2_tokenizer import load_s3_tokenizer, s3_shapes
from mdmspeech.interop.pytorch import read_pytorch
from mdmspeech.interop.tensors import read_tensors

PUBLISHED = "FunAudioLLM/CosyVoice2-0.5B"
FILES = {
    "tokenizer": ("speech_tokenizer_v2.onnx", "speech_tokenizer_v2.safetensors"),
    "flow": ("flow.pt", "flow.safetensors"),
    "hift": ("hift.pt", "hift.safetensors"),
}
_LARGEST = 2**20  # of any size: beyond, the file is no such model
_HEAD_DIM = 64  # of the published tokenizer and estimator; no tensor's shape tells it


def load_cosyvoice2(
    folder: str | os.PathLike,
    *,
    tokenizer_head_dim: int = _HEAD_DIM,
    estimator_head_dim: int = _HEAD_DIM,
) -> tuple[CosyVoice2Config, dict[str, Any]]:
    """A published folder -> (sizes, parameters {"tokenizer", "flow", "hift"}, numpy float32).

    Raises:
      UserError: files that are not there or not readable, or whose tensors are missing, unknown or
        misshapen: of all three files in one error.
    """
    paths = {name: find_file(folder, name) for name in FILES}
    if missing := [FILES[name][0] for name, path in paths.items() if path is None]:
        raise UserError(
            f"{folder} has no {', '.join(missing)}; download {PUBLISHED} (or those "
            "files of it) and give its folder"
        )

    def flow(path: Path):
        tensors = _read(path)
        config = flow_config(tensors, estimator_head_dim)
        return config, flow_params(config, tensors, str(path))

    def hift(path: Path):
        tensors = _read(path)
        config = hift_config(tensors, str(path))
        return config, hift_params(config, tensors, str(path))

    readers: dict[str, Callable] = {
        "tokenizer": lambda path: load_s3_tokenizer(path, tokenizer_head_dim),
        "flow": flow,
        "hift": hift,
    }
    parts, problems = {}, []
    for name, read in readers.items():
        try:
            parts[name] = read(paths[name])
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    config = CosyVoice2Config(**{name: sizes for name, (sizes, _) in parts.items()})
    return config, {name: params for name, (_, params) in parts.items()}


def find_file(folder: str | os.PathLike, name: str) -> Path | None:
    """The file of a part ("tokenizer", "flow" or "hift") in a published folder; None if it is not
    there.
    """
    return next(
        (path for path in (Path(folder) / file for file in FILES[name]) if path.is_file()), None
    )


def cosyvoice2_shapes(config: CosyVoice2Config) -> dict[str, Any]:
    """Abstract parameter tree of the codec; nothing is allocated."""
    return {
        "tokenizer": s3_shapes(config.tokenizer),
        "flow": flow_shapes(config.flow),
        "hift": hift_shapes(config.hift),
    }


def flow_config(tensors: Mapping[str, np.ndarray], head_dim: int = _HEAD_DIM) -> FlowConfig:
    """Sizes of a flow by the shapes of its tensors under their published names; where one is
    missing, the published size.
    """
    default, shapes = FlowConfig(), {name: value.shape for name, value in tensors.items()}
    vocab_size, dim = _shape(
        shapes, "input_embedding.weight", (default.vocab_size, default.encoder.dim)
    )
    num_mels, speaker_dim = _shape(
        shapes, "spk_embed_affine_layer.weight", (default.estimator.num_mels, default.speaker_dim)
    )
    heads, _ = _shape(
        shapes, "encoder.encoders.0.self_attn.pos_bias_u", (default.encoder.num_heads, 0)
    )
    ffn_dim, _ = _shape(
        shapes, "encoder.encoders.0.feed_forward.w_1.weight", (default.encoder.ffn_dim, 0)
    )
    *_, reach = _shape(
        shapes, "encoder.pre_lookahead_layer.conv1.weight", (0, 0, default.encoder.lookahead + 1)
    )
    _, channels, _ = _shape(
        shapes, "decoder.estimator.final_proj.weight", (0, default.estimator.channels, 1)
    )
    widths = default.estimator.num_heads * default.estimator.head_dim, 0
    inner, _ = _shape(shapes, "decoder.estimator.down_blocks.0.1.0.attn1.to_q.weight", widths)
    sizes = vocab_size, dim, num_mels, speaker_dim, heads, ffn_dim, reach - 1, channels, inner
    if not 1 <= min(sizes) <= max(sizes) <= _LARGEST or dim % heads or dim % 2 or inner % head_dim:
        return default  # of another make: what does not fit will be told by its name
    blocks = _count(shapes, r"encoder\.encoders\.(\d+)\.") or default.encoder.num_layers
    up_blocks = _count(shapes, r"encoder\.up_encoders\.(\d+)\.") or default.encoder.up_num_layers
    stage_blocks = (
        _count(shapes, r"decoder\.estimator\.down_blocks\.0\.1\.(\d+)\.")
        or default.estimator.stage_num_layers
    )
    mid_stages = (
        _count(shapes, r"decoder\.estimator\.mid_blocks\.(\d+)\.") or default.estimator.mid_stages
    )
    encoder = FlowEncoderConfig(dim, heads, ffn_dim, blocks, up_blocks, reach - 1)
    estimator = FlowEstimatorConfig(
        num_mels, channels, inner // head_dim, head_dim, stage_blocks, mid_stages
    )
    return FlowConfig(vocab_size, speaker_dim, encoder, estimator)


def hift_config(tensors: Mapping[str, np.ndarray], source: str) -> HiFTConfig:
    """Widths of a HiFT by the shapes of its tensors under their published names, weight-normalised
    or not; its structure is the published one.
    """
    default, shapes = (
        HiFTConfig(),
        {
            name: value.shape
            for name, value in fold_weight_norm(plain_names(tensors), source).items()
        },
    )
    base_channels, n_mels, _ = _shape(
        shapes, "conv_pre.weight", (default.base_channels, default.num_mels, 7)
    )
    f0_channels, _, _ = _shape(shapes, "f0_predictor.condnet.0.weight", (default.f0_channels, 0, 0))
    _, harmonics = _shape(shapes, "m_source.l_linear.weight", (1, default.harmonics))
    layers = (
        len(
            {
                match[0]
                for name in shapes
                if (match := re.match(r"f0_predictor\.condnet\.\d+\.", name))
            }
        )
        or default.f0_num_layers
    )
    sizes = base_channels >> len(default.upsample_rates), n_mels, f0_channels, harmonics
    if not 1 <= min(sizes) <= max(sizes) <= _LARGEST:
        return default
    return HiFTConfig(
        num_mels=n_mels,
        base_channels=base_channels,
        f0_channels=f0_channels,
        f0_num_layers=layers,
        overtones=harmonics - 1,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    return read_pytorch(path) if path.suffix == ".pt" else read_tensors(path)


def _shape(
    shapes: Mapping[str, tuple[int, ...]], name: str, default: tuple[int, ...]
) -> tuple[int, ...]:
    """A tensor's shape, or the default if it is missing or has another number of axes."""
    found = shapes.get(name, default)
    return found if len(found) == len(default) else default


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})
