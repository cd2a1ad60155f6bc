"""CTranslate2 Whisper models (binary version 6) read with numpy: encoder and decoder tensors under
their Hugging Face names.

Stored in float32, float16, bfloat16, or in 8 or 16 bits with scales ("weight_scale": w = stored /
scale, one a row or one for all).
"""

import mmap
import os
import struct

import ml_dtypes
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import encoder_config
from mdmspeech.models.speech_encoder import SpeechEncoderConfig

_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)
_VERSION = 6
_SCALE = "_scale"


def open_variables(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """`read_variables` of a model.bin on disk, whose bytes stay there until they are used."""
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a CTranslate2 model") from error
    return read_variables(data, str(path))


def read_variables(data: bytes | mmap.mmap, name: str) -> dict[str, np.ndarray]:
    """All variables of a model.bin held in memory.

    Raises:
      UserError: not this format, or cut short.
    """
    try:
        return _read(memoryview(data))
    except (struct.error, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{name} is corrupt or no CTranslate2 Whisper ({error}); fetch it again"
        ) from error


def _read(data: memoryview) -> dict[str, np.ndarray]:
    at = 0

    def take(form: str):
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def string() -> str:
        nonlocal at
        length = take("H")
        at += length
        return str(data[at - length : at], "ascii").rstrip("\0")

    version, spec = take("I"), string()
    if version != _VERSION or spec != "WhisperSpec":
        raise ValueError(f"it is {spec!r} version {version}")
    take("I")  # revision of the spec
    variables = {}
    for _ in range(take("I")):
        name = string()
        shape = [take("I") for _ in range(take("B"))]
        dtype, size = np.dtype(_DTYPES[take("B")]), take("I")
        variables[name] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    # variables that are others' under a second name: a tied embedding, an output layer
    for _ in range(take("I")):
        name, other = string(), string()
        variables[name] = variables[other]
    return variables


def _weight(variables: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A variable, dequantised to float32 if it has scales."""
    value, scale = variables[name], variables.get(name + _SCALE)
    if value.dtype not in (np.int8, np.int16):
        return value
    if scale is None:
        raise ValueError(f"{name} is stored in {8 * value.dtype.itemsize} bits without scales")
    return value.astype(np.float32) / scale.astype(np.float32).reshape(-1, *[1] * (value.ndim - 1))


def encoder_tensors(
    variables: dict[str, np.ndarray],
) -> tuple[SpeechEncoderConfig, dict[str, np.ndarray]]:
    """Variables -> (config, encoder tensors as in a Hugging Face Whisper). The fused QKV is split;
    K's bias is zero there.

    Raises:
      UserError: variables that are missing or do not fit together.
    """
    try:
        return _encoder(variables)
    except (LookupError, ValueError, TypeError) as error:
        raise UserError(
            f"this CTranslate2 Whisper is incomplete ({type(error).__name__}: "
            f"{error}); fetch it again"
        ) from error


def _encoder(variables: dict[str, np.ndarray]) -> tuple[SpeechEncoderConfig, dict[str, np.ndarray]]:
    dim, num_mels, _ = variables["encoder/conv1/weight"].shape
    num_layers = len(
        {
            name.split("/")[1]
            for name in variables
            if name.startswith("encoder/layer_") and name.count("/") > 2
        }
    )
    sizes = {"num_mel_bins": num_mels, "d_model": dim, "encoder_layers": num_layers}
    sizes["encoder_attention_heads"] = int(variables["encoder/num_heads"])
    sizes["encoder_ffn_dim"] = variables["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    sizes["max_source_positions"] = variables["encoder/position_encodings/encodings"].shape[0]
    out = {"embed_positions.weight": variables["encoder/position_encodings/encodings"]}
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            out[f"{conv}.{kind}"] = _weight(variables, f"encoder/{conv}/{kind}")
    out.update(_norm("layer_norm", variables, "encoder/layer_norm"))
    for index in range(num_layers):
        theirs, ours = f"encoder/layer_{index}", f"layers.{index}"
        for kind in ("weight", "bias"):
            fused = _weight(variables, f"{theirs}/self_attention/linear_0/{kind}")
            for part, name in zip(np.split(fused, 3), ("q_proj", "k_proj", "v_proj"), strict=True):
                out[f"{ours}.self_attn.{name}.{kind}"] = part
            out[f"{ours}.self_attn.out_proj.{kind}"] = _weight(
                variables, f"{theirs}/self_attention/linear_1/{kind}"
            )
            out[f"{ours}.fc1.{kind}"] = _weight(variables, f"{theirs}/ffn/linear_0/{kind}")
            out[f"{ours}.fc2.{kind}"] = _weight(variables, f"{theirs}/ffn/linear_1/{kind}")
        if np.any(out.pop(f"{ours}.self_attn.k_proj.bias")):
            raise UserError(
                "this Whisper model has a bias on its keys, which Whisper has not; "
                "use an official conversion"
            )
        out.update(
            _norm(f"{ours}.self_attn_layer_norm", variables, f"{theirs}/self_attention/layer_norm")
        )
        out.update(_norm(f"{ours}.final_layer_norm", variables, f"{theirs}/ffn/layer_norm"))
    return encoder_config(sizes), out


def decoder_tensors(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Variables -> decoder tensors as in a Hugging Face Whisper. Fused projections are split; K's
    bias is zero there and left out.
    """
    out = {
        "embed_tokens.weight": _weight(variables, "decoder/embeddings/weight"),
        "embed_positions.weight": variables["decoder/position_encodings/encodings"],
        **_norm("layer_norm", variables, "decoder/layer_norm"),
    }
    fused = {"self_attn": ("self_attention", (("q_proj", "k_proj", "v_proj"), ("out_proj",))),
             "encoder_attn": ("attention",
                 (("q_proj",), ("k_proj", "v_proj"), ("out_proj",)))}  # fmt: skip
    for index in range(
        len(
            {
                name.split("/")[1]
                for name in variables
                if name.startswith("decoder/layer_") and name.count("/") > 2
            }
        )
    ):
        theirs, ours = f"decoder/layer_{index}", f"layers.{index}"
        for mine, (name, groups) in fused.items():
            for i, group in enumerate(groups):
                for kind in ("weight", "bias"):
                    whole = _weight(variables, f"{theirs}/{name}/linear_{i}/{kind}")
                    for part, short in zip(np.split(whole, len(group)), group, strict=True):
                        out[f"{ours}.{mine}.{short}.{kind}"] = part
            out.pop(f"{ours}.{mine}.k_proj.bias")
            out.update(_norm(f"{ours}.{mine}_layer_norm", variables, f"{theirs}/{name}/layer_norm"))
        for i in (0, 1):
            for kind in ("weight", "bias"):
                out[f"{ours}.fc{i + 1}.{kind}"] = _weight(
                    variables, f"{theirs}/ffn/linear_{i}/{kind}"
                )
        out.update(_norm(f"{ours}.final_layer_norm", variables, f"{theirs}/ffn/layer_norm"))
    return out


def _norm(ours: str, variables: dict[str, np.ndarray], theirs: str) -> dict[str, np.ndarray]:
    return {
        f"{ours}.weight": variables[f"{theirs}/gamma"],
        f"{ours}.bias": variables[f"{theirs}/beta"],
    }
