"""Llama, Qwen2 and Qwen3 in GGUF files: config from the metadata, tensors under their Hugging Face
names, tokenizer files.

llama.cpp stores the Q and K rows of Llama (not of Qwen) for rotary pairs that lie side by side, and
Llama 3's rope scaling as a tensor of divisors.
"""

import json
from typing import Any

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.gguf import GGUF
from mdmspeech.interop.huggingface import thinker_config
from mdmspeech.interop.huggingface_rules import THINKER_TYPES, THINKERS
from mdmspeech.interop.tensors import Stored
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.nn.rope import rope_frequencies
from mdmspeech.text.tokenizer import ChatTokenizer

_DIVISORS = "rope_freqs.weight"
_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
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
    """Metadata -> config. Raises UserError for architectures other than llama, qwen2, qwen3, and as
    `huggingface.thinker_config`.
    """
    meta, kind = file.metadata, file.metadata.get("general.architecture")
    if meta.get("general.type") == "adapter":
        raise UserError(
            f"{file.path} is a LoRA, not a whole model; merge it into its model with llama.cpp: "
            "llama-export-lora -m MODEL.gguf --lora LORA.gguf -o MERGED.gguf"
        )
    if kind not in THINKER_TYPES:
        raise UserError(
            f"{file.path} is a {kind!r:.80} model, which cannot be the Thinker; use one of: {THINKERS}"
        )
    if (count := meta.get("split.count", 1)) != 1:
        raise UserError(
            f"{file.path} is one of {count} files of a split model; make one of them with llama.cpp: "
            "llama-gguf-split --merge FIRST.gguf WHOLE.gguf"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or not embedding.shape:
        raise UserError(
            f"{file.path} has no token embedding (token_embd.weight); give the whole model"
        )
    eps = meta.get(f"{kind}.attention.layer_norm_rms_epsilon")
    hf = {
        "model_type": kind,
        "vocab_size": embedding.shape[0],
        "hidden_size": meta.get(f"{kind}.embedding_length"),
        "num_hidden_layers": meta.get(f"{kind}.block_count"),
        "num_attention_heads": meta.get(f"{kind}.attention.head_count"),
        "num_key_value_heads": meta.get(f"{kind}.attention.head_count_kv"),
        "head_dim": meta.get(f"{kind}.attention.key_length"),
        "intermediate_size": meta.get(f"{kind}.feed_forward_length"),
        "rope_theta": _short(meta.get(f"{kind}.rope.freq_base", 10_000.0)),
        "rms_norm_eps": _short(eps),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    scaling = {"rope_type": meta.get(f"{kind}.rope.scaling.type", "none")}
    for name, theirs in (
        ("factor", "factor"),
        ("original_max_position_embeddings", "original_context_length"),
    ):
        scaling[name] = _short(meta.get(f"{kind}.rope.scaling.{theirs}"))
    if scaling["rope_type"] == "yarn":
        hf["max_position_embeddings"] = meta.get(f"{kind}.context_length")
    config = thinker_config(
        {**hf, "rope_scaling": None if scaling["rope_type"] == "none" else scaling}
    )
    if _DIVISORS in file.tensors:
        config = thinker_config({**hf, "rope_scaling": _llama3(file, config)})
    return config


def gguf_thinker_tensors(file: GGUF, config: ThinkerConfig) -> dict[str, Stored]:
    """All tensors under their Hugging Face names, not read yet; Llama's Q and K rows in the
    half-split rotary layout.
    """
    tensors: dict[str, Stored] = {}
    for name, tensor in file.tensors.items():
        if name == _DIVISORS:
            continue
        turned = file.metadata["general.architecture"] == "llama" and name.endswith(
            ("attn_q.weight", "attn_k.weight")
        )
        fits = len(tensor.shape) == 2 and tensor.shape[0] % config.head_dim == 0
        tensors[_foreign_name(name)] = (
            _Unpermuted(tensor, config.head_dim) if turned and fits else tensor
        )
    return tensors


def unpermute(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of a Q or K projection [H * head_dim, in]: interleaved rotary pairs -> first halves,
    then second halves.
    """
    rows = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(weight.shape)


def tokenizer_files(file: GGUF) -> dict[str, str]:
    """The tokenizer and chat template in the metadata as the files of a Hugging Face folder: name
    -> text.
    """
    chat = ChatTokenizer.from_gguf(file.metadata)
    tokens, meta = file.metadata["tokenizer.ggml.tokens"], file.metadata
    special = {
        f"{n}_token": tokens[meta[f"tokenizer.ggml.{n}_token_id"]]
        for n in ("bos", "eos")
        if f"tokenizer.ggml.{n}_token_id" in meta
    }
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": meta["tokenizer.chat_template"],
        **special,
    }
    return {
        "tokenizer.json": chat.tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(about, ensure_ascii=False, indent=2) + "\n",
        "generation_config.json": json.dumps({"eos_token_id": list(chat.stop_ids)}, indent=2)
        + "\n",
    }


class _Unpermuted:
    """`unpermute` of a tensor, by whole heads."""

    dtype = np.dtype(np.float32)

    def __init__(self, tensor: Stored, head_dim: int) -> None:
        self.shape, self._tensor, self._head_dim = tensor.shape, tensor, head_dim

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        begin, end = (
            first // self._head_dim * self._head_dim,
            -(-last // self._head_dim) * self._head_dim,
        )
        return unpermute(self._tensor[begin:end], self._head_dim)[first - begin : last - begin]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self[slice(None)]
        return value if dtype is None else value.astype(dtype, copy=False)


def _llama3(file: GGUF, config: ThinkerConfig) -> dict[str, Any]:
    """The rope scaling whose divisors the file has: Llama 3.1's rule, with the factor of the
    slowest frequency.
    """
    divisors = np.asarray(file.tensors[_DIVISORS])
    plain = rope_frequencies(config.head_dim, config.rope_theta)
    said = file.metadata.get("llama.rope.scaling.original_context_length")
    if (
        divisors.shape == plain.shape
        and (divisors > 0).all()
        and (said is None or type(said) is int)
    ):
        scaling = {**_LLAMA3, "factor": float(_short(divisors.max()))} | (
            {"original_max_position_embeddings": said} if said else {}
        )
        if np.allclose(
            rope_frequencies(config.head_dim, config.rope_theta, scaling),
            plain / divisors,
            rtol=1e-4,
        ):
            return scaling
    raise UserError(
        f"{file.path} scales its rotary frequencies by another rule than Llama "
        "3.1's; use the model's Hugging Face folder"
    )


def _short(number: Any) -> Any:
    """A float32 as it was written before: 9.99999975e-06 is 1e-05."""
    return float(f"{number:.6g}") if isinstance(number, (float, np.floating)) else number


def _foreign_name(name: str) -> str:
    if name.startswith("blk."):
        _, index, rest = name.split(".", 2)
        return f"model.layers.{index}.{_NAMES.get(rest, rest)}"
    return _OUTER.get(name, name)
