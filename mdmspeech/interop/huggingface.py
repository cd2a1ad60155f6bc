"""Hugging Face checkpoints: configs and tensor names of the Whisper encoder and of Llama, Qwen2 and Qwen3.

The names below are the file formats' own; `docs` of each architecture: transformers' modeling_whisper, modeling_llama,
modeling_qwen2, modeling_qwen3.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.rules import CONV1D, LINEAR, Rule, import_params
from mdmspeech.interop.tensors import read_json, read_tensors
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.nn.stack import stack_layers

_ENCODER_PREFIX = "model.encoder."  # of a published checkpoint; an encoder saved alone has none
_THINKER_TYPES = ("llama", "qwen2", "qwen3")


def thinker_config(hf: Mapping[str, Any], **overrides: Any) -> ThinkerConfig:
    """`config.json` of a Llama, Qwen2 or Qwen3 model -> ours.

    Raises:
      UserError: another architecture, or a switch of it that this Thinker does not have.
    """
    kind = hf.get("model_type")
    if kind not in _THINKER_TYPES:
        raise UserError(f"model_type {kind!r} cannot be a Thinker; use one of: {', '.join(_THINKER_TYPES)}")
    unsupported = [name for name in ("use_sliding_window", "mlp_bias") if hf.get(name)]
    if hf.get("attention_bias"):
        unsupported.append("attention_bias")
    if unsupported or hf.get("hidden_act", "silu") != "silu":
        raise UserError(f"this {kind} model uses {', '.join(unsupported) or hf['hidden_act']}, which the Thinker does not have")
    rope = hf.get("rope_parameters") or hf.get("rope_scaling")  # the former since transformers 5, with theta inside
    theta = hf.get("rope_theta") or (rope or {}).get("rope_theta", 10_000.0)
    scaling = tuple(sorted((k, v) for k, v in rope.items() if k != "rope_theta")) if rope else None
    config = ThinkerConfig(
        vocab_size=hf["vocab_size"],
        dim=hf["hidden_size"],
        num_layers=hf["num_hidden_layers"],
        num_heads=hf["num_attention_heads"],
        num_kv_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
        head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
        ffn_dim=hf["intermediate_size"],
        rope_theta=float(theta),
        rope_scaling=scaling,
        norm_eps=hf["rms_norm_eps"],
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
    )
    return dataclasses.replace(config, **overrides)


def encoder_config(hf: Mapping[str, Any], **overrides: Any) -> SpeechEncoderConfig:
    """`config.json` of a Whisper model -> ours. Raises UserError for another architecture."""
    if hf.get("model_type", "whisper") != "whisper" or "encoder_layers" not in hf:
        raise UserError(f"model_type {hf.get('model_type')!r} cannot be the speech encoder; use a Whisper model")
    if hf.get("activation_function", "gelu") != "gelu" or hf.get("scale_embedding"):
        raise UserError("this Whisper model has another activation or scaled embeddings; use an official one")
    config = SpeechEncoderConfig(
        num_mels=hf["num_mel_bins"],
        dim=hf["d_model"],
        num_layers=hf["encoder_layers"],
        num_heads=hf["encoder_attention_heads"],
        ffn_dim=hf["encoder_ffn_dim"],
        max_positions=hf["max_source_positions"],
    )
    return dataclasses.replace(config, **overrides)


def thinker_rules(config: ThinkerConfig) -> list[Rule]:
    """Where each (unrolled) Thinker parameter comes from."""
    rules = [Rule("embedding/embedding", "model.embed_tokens.weight"), Rule("norm/scale", "model.norm.weight")]
    if not config.tie_embeddings:
        rules.append(Rule("output/kernel", "lm_head.weight", LINEAR))
    for index in range(config.num_layers):
        rules += llama_layer(f"layers/{index}/", f"model.layers.{index}.", config.qkv_bias, config.qk_norm)
    return rules


def llama_layer(ours: str, theirs: str, qkv_bias: bool = False, qk_norm: bool = False) -> list[Rule]:
    """Where each parameter of one `LlamaBlock` comes from, under these prefixes."""
    rules = [Rule(f"{ours}attn/{n}/kernel", f"{theirs}self_attn.{n}_proj.weight", LINEAR) for n in "qkvo"]
    if qkv_bias:
        rules += [Rule(f"{ours}attn/{n}/bias", f"{theirs}self_attn.{n}_proj.bias") for n in "qkv"]
    if qk_norm:
        rules += [Rule(f"{ours}attn/{n}_norm/scale", f"{theirs}self_attn.{n}_norm.weight") for n in "qk"]
    rules += [Rule(f"{ours}mlp/{n}/kernel", f"{theirs}mlp.{n}_proj.weight", LINEAR) for n in ("gate", "up", "down")]
    rules.append(Rule(f"{ours}attn_norm/scale", f"{theirs}input_layernorm.weight"))
    return [*rules, Rule(f"{ours}mlp_norm/scale", f"{theirs}post_attention_layernorm.weight")]


def encoder_rules(config: SpeechEncoderConfig, prefix: str = _ENCODER_PREFIX) -> list[Rule]:
    """Where each (unrolled) speech encoder parameter comes from."""
    rules = [Rule("positions", f"{prefix}embed_positions.weight"), *_norm("norm", f"{prefix}layer_norm")]
    for name in ("conv1", "conv2"):
        rules += [Rule(f"{name}/kernel", f"{prefix}{name}.weight", CONV1D), Rule(f"{name}/bias", f"{prefix}{name}.bias")]
    for index in range(config.num_layers):
        rules += _whisper_layer(f"layers/{index}/", f"{prefix}layers.{index}.", {"attn": "self_attn"})
    return rules


def writing_rules(layers: Sequence[int], prefix: str = "") -> list[Rule]:
    """Where each parameter of an attention adaptor with these of Whisper's decoder layers comes from."""
    rules = [Rule("embedding", f"{prefix}embed_tokens.weight"), Rule("positions", f"{prefix}embed_positions.weight")]
    rules += _norm("norm", f"{prefix}layer_norm")
    for index, layer in enumerate(layers):
        rules += _whisper_layer(f"layer_{index}/", f"{prefix}layers.{layer}.", {"attn": "self_attn", "cross": "encoder_attn"})
    return rules


def _whisper_layer(ours: str, theirs: str, attentions: Mapping[str, str]) -> list[Rule]:
    rules = []
    for mine, name in attentions.items():
        for short, long in {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}.items():
            rules.append(Rule(f"{ours}{mine}/{short}/kernel", f"{theirs}{name}.{long}.weight", LINEAR))
            if short != "k":
                rules.append(Rule(f"{ours}{mine}/{short}/bias", f"{theirs}{name}.{long}.bias"))
        rules += _norm(f"{ours}{mine}_norm", f"{theirs}{name}_layer_norm")
    for name in ("fc1", "fc2"):
        rules.append(Rule(f"{ours}mlp/{name}/kernel", f"{theirs}{name}.weight", LINEAR))
        rules.append(Rule(f"{ours}mlp/{name}/bias", f"{theirs}{name}.bias"))
    return rules + _norm(f"{ours}mlp_norm", f"{theirs}final_layer_norm")


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/scale", f"{theirs}.weight"), Rule(f"{ours}/bias", f"{theirs}.bias")]


def thinker_params(config: ThinkerConfig, tensors: Mapping[str, np.ndarray], source: str, dtype: Any = np.float32) -> dict[str, Any]:
    """Tensors under their Hugging Face names -> Thinker parameters in the layout of `config.scan_layers`."""
    tensors = {n: t for n, t in tensors.items() if not n.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)  # some published files repeat the tied embedding
    unrolled = dataclasses.replace(config, scan_layers=False)
    params = import_params(tensors, thinker_rules(config), thinker_shapes(unrolled), source, dtype)
    return _in_layout(params, config.scan_layers)


def encoder_params(config: SpeechEncoderConfig, tensors: Mapping[str, np.ndarray], source: str, dtype: Any = np.float32) -> dict[str, Any]:
    """Tensors under their Hugging Face names (of a whole Whisper or of its encoder alone) -> encoder parameters."""
    inside = {n: t for n, t in tensors.items() if n.startswith(_ENCODER_PREFIX)}
    prefix = _ENCODER_PREFIX if inside else ""
    unrolled = dataclasses.replace(config, scan_layers=False)
    params = import_params(inside or tensors, encoder_rules(config, prefix), encoder_shapes(unrolled), source, dtype)
    return _in_layout(params, config.scan_layers)


def thinker_shapes(config: ThinkerConfig) -> Any:
    """Abstract parameter tree of a Thinker; nothing is allocated."""
    return _shapes(Thinker, config, jnp.zeros((1, 2), jnp.int32))


def encoder_shapes(config: SpeechEncoderConfig) -> Any:
    """Abstract parameter tree of a speech encoder; nothing is allocated."""
    return _shapes(SpeechEncoder, config, jnp.zeros((1, 8, config.num_mels)))


def _shapes(module: Any, config: Any, example: jax.Array) -> Any:
    """Traced with scanned layers, one layer instead of dozens, and taken apart again if the config wants them unrolled."""
    scanned = module(dataclasses.replace(config, scan_layers=True))
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), example)["params"]
    if config.scan_layers:
        return shapes
    layer = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes["layers"]["all"])
    return {**shapes, "layers": {str(index): layer for index in range(config.num_layers)}}


def read_thinker_folder(folder: str | os.PathLike, **overrides: Any) -> tuple[ThinkerConfig, dict[str, Any]]:
    """A downloaded model folder -> (config, parameters). `overrides` go into the config (scan_layers=True, ...)."""
    config = thinker_config(read_json(Path(folder) / "config.json"), **overrides)
    return config, thinker_params(config, read_tensors(folder), str(folder))


def read_encoder_folder(folder: str | os.PathLike, **overrides: Any) -> tuple[SpeechEncoderConfig, dict[str, Any]]:
    """A downloaded Whisper folder -> (config, parameters of its encoder)."""
    config = encoder_config(read_json(Path(folder) / "config.json"), **overrides)
    return config, encoder_params(config, read_tensors(folder), str(folder))


def _in_layout(params: dict[str, Any], scan: bool) -> dict[str, Any]:
    return {**params, "layers": stack_layers(params["layers"])} if scan else params
