"""GGUF files (llama.cpp's format, version 2 and 3) read with numpy: metadata, and tensors dequantised to float32.

Written here rather than taken from the `gguf` package because that one needs 4 s for a 135 M model, this one under 1 s. Format:
ggml's docs/gguf.md; block layouts: ggml-quants. Only the simple quantisations are known.
"""

import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.models.thinker import ThinkerConfig

_SCALARS = dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"))) | {10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9


class GGUF:
    """An opened file: `metadata` (plain Python values), `tensor_names`, and `tensor(name)` in float32."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as file:
                self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._at = 0
            self._read_header()
        except FileNotFoundError as error:
            raise UserError(f"{self.path} does not exist; check the path") from error
        except (struct.error, ValueError, KeyError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{self.path} is truncated or no GGUF file ({error}); fetch it again") from error

    def _read_header(self) -> None:
        magic, version = bytes(self.data[:4]), struct.unpack_from("<I", self.data, 4)[0]
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r} version {version}")
        self._at = 8
        num_tensors, num_fields = self._take("<u8"), self._take("<u8")
        self.metadata: dict[str, Any] = {self._string(): self._value(self._take("<u4")) for _ in range(num_fields)}
        self._tensors: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(num_tensors):
            name = self._string()
            shape = tuple(self._take("<u8") for _ in range(self._take("<u4")))[::-1]  # stored fastest axis first
            self._tensors[name] = (shape, self._take("<u4"), self._take("<u8"))
        alignment = self.metadata.get("general.alignment", 32)
        self._base = -(-self._at // alignment) * alignment

    @property
    def tensor_names(self) -> list[str]:
        return list(self._tensors)

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, dequantised to float32, rows first ([out, in] for a linear layer).

        Raises:
          UserError: unknown quantisation, or the file ends inside the tensor.
        """
        shape, kind, offset = self._tensors[name]
        if kind not in _DEQUANTISERS:
            raise UserError(f"{self.path}: {name} has quantisation {kind}; use a GGUF of F32, F16, BF16, Q4_0, Q4_1 or Q8_0")
        per_block, block_bytes, dequantise = _DEQUANTISERS[kind]
        count = int(np.prod(shape))
        start, size = self._base + offset, count // per_block * block_bytes
        if start + size > len(self.data):
            raise UserError(f"{self.path} is truncated inside {name}; fetch it again")
        blocks = np.frombuffer(self.data, np.uint8, size, start).reshape(-1, block_bytes)
        return dequantise(blocks).reshape(shape)

    def _take(self, dtype: str) -> Any:
        value = np.frombuffer(self.data, dtype, 1, self._at)[0].item()
        self._at += np.dtype(dtype).itemsize
        return value

    def _string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self._at)
        start = self._at + 8
        if start + length > len(self.data):
            raise ValueError("a string runs past the end")
        self._at = start + length
        return str(self.data[start : self._at], "utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._take(_SCALARS[kind])
        kind, count = self._take("<u4"), self._take("<u8")
        if kind in (_STRING, _ARRAY):
            return [self._value(kind) for _ in range(count)]
        values = np.frombuffer(self.data, _SCALARS[kind], count, self._at)
        self._at += values.nbytes
        return values.tolist()


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 stored at byte `at` of every block, as float32 [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(blocks: np.ndarray, at: int) -> np.ndarray:
    """32 four-bit values a block: the low halves of 16 bytes, then the high halves."""
    packed = blocks[:, at : at + 16]
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    values = _nibbles(blocks, 4)
    values *= _half(blocks, 0)
    values += _half(blocks, 2)
    return values


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    values *= _half(blocks, 0)
    return values


def _bf16(blocks: np.ndarray) -> np.ndarray:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


# type id -> (values a block, bytes a block, function of uint8 [blocks, bytes])
_DEQUANTISERS: dict[int, tuple[int, int, Callable[[np.ndarray], np.ndarray]]] = {
    0: (1, 4, lambda blocks: blocks.view("<f4").astype(np.float32)),
    1: (1, 2, lambda blocks: blocks.view("<f2").astype(np.float32)),
    2: (32, 18, lambda blocks: (_nibbles(blocks, 2) - 8) * _half(blocks, 0)),
    3: (32, 20, _q4_1),
    8: (32, 34, _q8_0),
    30: (1, 2, _bf16),
}

_NAMES = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def gguf_thinker_config(file: GGUF) -> ThinkerConfig:
    """Metadata -> config. Raises UserError for architectures other than llama, qwen2, qwen3."""
    meta, kind = file.metadata, file.metadata.get("general.architecture")
    if kind not in ("llama", "qwen2", "qwen3"):
        raise UserError(f"{file.path} is a {kind!r} model, which cannot be the Thinker; use llama, qwen2 or qwen3")
    heads, dim = meta[f"{kind}.attention.head_count"], meta[f"{kind}.embedding_length"]
    return ThinkerConfig(
        vocab_size=file._tensors["token_embd.weight"][0][0],
        dim=dim,
        num_layers=meta[f"{kind}.block_count"],
        num_heads=heads,
        num_kv_heads=meta.get(f"{kind}.attention.head_count_kv", heads),
        head_dim=meta.get(f"{kind}.attention.key_length", dim // heads),
        ffn_dim=meta[f"{kind}.feed_forward_length"],
        rope_theta=float(meta.get(f"{kind}.rope.freq_base", 10_000.0)),
        norm_eps=float(f"{meta[f'{kind}.attention.layer_norm_rms_epsilon']:.3g}"),  # stored in float32: 9.99999975e-06
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        tie_embeddings="output.weight" not in file.tensor_names,
    )


def gguf_thinker_tensors(file: GGUF, config: ThinkerConfig) -> dict[str, np.ndarray]:
    """All tensors under their Hugging Face names; Llama's Q and K rows are put back into the half-split rotary layout."""
    tensors = {}
    for name in file.tensor_names:
        value = file.tensor(name)
        if file.metadata["general.architecture"] == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            value = unpermute(value, config.head_dim)
        tensors[_foreign_name(name)] = value
    return tensors


def unpermute(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of a Q or K projection [H * head_dim, in]: interleaved rotary pairs -> first halves, then second halves."""
    rows = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(weight.shape)


def _foreign_name(name: str) -> str:
    if name.startswith("blk."):
        _, index, rest = name.split(".", 2)
        return f"model.layers.{index}.{_NAMES.get(rest, rest)}"
    return _OUTER.get(name, name)
