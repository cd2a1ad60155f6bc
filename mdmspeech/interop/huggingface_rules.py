"""Where each of our parameters comes from in a Hugging Face checkpoint: tensor names of the Whisper
encoder and decoder and of Llama, Qwen2 and Qwen3, and their layout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mdmspeech.interop.rules import CONV1D, LINEAR, TensorRule
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig

ENCODER_PREFIX = "model.encoder."  # of a published checkpoint; an encoder saved alone has none
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
# model_type in config.json -> what transformers calls it
THINKER_TYPES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
THINKERS = "llama (also SmolLM2), qwen2 (also Qwen2.5), qwen3"


def thinker_rules(config: ThinkerConfig) -> list[TensorRule]:
    """Where each Thinker parameter comes from, in the layout of `config.scan_layers`."""
    rules = [
        TensorRule("embedding/embedding", EMBEDDING),
        TensorRule("norm/scale", "model.norm.weight"),
    ]
    if not config.tie_embeddings:
        rules.append(TensorRule("output/kernel", OUTPUT, LINEAR))
    return rules + _of_layers(
        llama_layer("", "", config.qkv_bias, config.qk_norm), "model.layers.", config
    )


def _of_layers(layer: Sequence[TensorRule], prefix: str, config: Any) -> list[TensorRule]:
    """The rules of one layer for all layers of a stack."""
    rules = []
    for index in range(config.num_layers):
        ours, where = ("layers/all/", index) if config.scan_layers else (f"layers/{index}/", None)
        rules += [
            TensorRule(ours + rule.path, f"{prefix}{index}.{rule.name}", rule.axes, where)
            for rule in layer
        ]
    return rules


def llama_layer(
    ours: str, theirs: str, qkv_bias: bool = False, qk_norm: bool = False
) -> list[TensorRule]:
    """Where each parameter of one `LlamaBlock` comes from, under these prefixes."""
    rules = [
        TensorRule(f"{ours}attn/{n}/kernel", f"{theirs}self_attn.{n}_proj.weight", LINEAR)
        for n in "qkvo"
    ]
    if qkv_bias:
        rules += [
            TensorRule(f"{ours}attn/{n}/bias", f"{theirs}self_attn.{n}_proj.bias") for n in "qkv"
        ]
    if qk_norm:
        rules += [
            TensorRule(f"{ours}attn/{n}_norm/scale", f"{theirs}self_attn.{n}_norm.weight")
            for n in "qk"
        ]
    rules += [
        TensorRule(f"{ours}mlp/{n}/kernel", f"{theirs}mlp.{n}_proj.weight", LINEAR)
        for n in ("gate", "up", "down")
    ]
    rules.append(TensorRule(f"{ours}attn_norm/scale", f"{theirs}input_layernorm.weight"))
    return [*rules, TensorRule(f"{ours}mlp_norm/scale", f"{theirs}post_attention_layernorm.weight")]


def encoder_rules(config: SpeechEncoderConfig, prefix: str = ENCODER_PREFIX) -> list[TensorRule]:
    """Where each speech encoder parameter comes from, in the layout of `config.scan_layers`."""
    rules = [
        TensorRule("positions", f"{prefix}embed_positions.weight"),
        *_norm("norm", f"{prefix}layer_norm"),
    ]
    for name in ("conv1", "conv2"):
        rules += [
            TensorRule(f"{name}/kernel", f"{prefix}{name}.weight", CONV1D),
            TensorRule(f"{name}/bias", f"{prefix}{name}.bias"),
        ]
    return rules + _of_layers(
        _whisper_layer("", "", {"attn": "self_attn"}), f"{prefix}layers.", config
    )


def whisper_decoder_rules(layers: Sequence[int], prefix: str = "") -> list[TensorRule]:
    """Where each parameter of a seq2seq adaptor with these of Whisper's decoder layers comes from."""
    rules = [
        TensorRule("embedding", f"{prefix}embed_tokens.weight"),
        TensorRule("positions", f"{prefix}embed_positions.weight"),
    ]
    rules += _norm("norm", f"{prefix}layer_norm")
    for index, layer in enumerate(layers):
        rules += _whisper_layer(
            f"layer_{index}/",
            f"{prefix}layers.{layer}.",
            {"attn": "self_attn", "cross": "encoder_attn"},
        )
    return rules


def _whisper_layer(ours: str, theirs: str, attentions: Mapping[str, str]) -> list[TensorRule]:
    rules = []
    for mine, name in attentions.items():
        for short, long in {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}.items():
            rules.append(
                TensorRule(f"{ours}{mine}/{short}/kernel", f"{theirs}{name}.{long}.weight", LINEAR)
            )
            if short != "k":
                rules.append(
                    TensorRule(f"{ours}{mine}/{short}/bias", f"{theirs}{name}.{long}.bias")
                )
        rules += _norm(f"{ours}{mine}_norm", f"{theirs}{name}_layer_norm")
    for name in ("fc1", "fc2"):
        rules.append(TensorRule(f"{ours}mlp/{name}/kernel", f"{theirs}{name}.weight", LINEAR))
        rules.append(TensorRule(f"{ours}mlp/{name}/bias", f"{theirs}{name}.bias"))
    return rules + _norm(f"{ours}mlp_norm", f"{theirs}final_layer_norm")


def _norm(ours: str, theirs: str) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}/scale", f"{theirs}.weight"),
        TensorRule(f"{ours}/bias", f"{theirs}.bias"),
    ]
