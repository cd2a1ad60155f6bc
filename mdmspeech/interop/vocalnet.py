"""VocalNet's published checkpoints (SJTU-OmniAgent/VocalNet): config and tensor names of the speech
generator <-> ours.

The names are those of its SpeechGeneratorARMTP; in a whole model's safetensors they stand behind
"speech_generator.", in the same config.json as the LLM's.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import whole_number
from mdmspeech.interop.huggingface_rules import llama_layer
from mdmspeech.interop.rules import LINEAR, TensorRule, import_params
from mdmspeech.interop.tensors import Stored, open_tensors, read_json
from mdmspeech.models.vocalnet import VocalNet, VocalNetConfig

_PREFIX = "speech_generator."
_TYPE = "ar_mtp"
_MOST_LAYERS = 100


def vocalnet_config(published: Mapping[str, Any]) -> VocalNetConfig:
    """The generator's items of a `config.json` (or of VocalNet's ar_config yaml) -> ours. Lengths
    and dropout in it shape no parameter.

    Raises:
      UserError: another kind of generator; an item that is missing, or no size or id.
    """
    kind = str(published.get("speech_generator_type", _TYPE))
    if _TYPE not in kind:
        raise UserError(
            f"speech_generator_type {kind!r:.40} is not known; use a VocalNet "
            f"checkpoint with {_TYPE!r}"
        )
    size = lambda name, most=2**16: whole_number(published, name, most)
    config = VocalNetConfig(
        dim=size("llm_hidden_size"),
        num_heads=size("decoder_num_heads"),
        ffn_dim=size("decoder_ffn_dim"),
        projector_num_layers=size("encoder_num_layers", _MOST_LAYERS),
        num_layers=size("decoder_num_layers", _MOST_LAYERS),
        modules=size("mtp_num", _MOST_LAYERS),
        vocab_size=size("unit_vocab_size") + size("special_tokens"),
        text_group=size("txt_token_num"),
        speech_group=size("speech_token_num"),
        bos=size("speech_bos_token_id"),
        sos=size("speech_sos_token_id"),
        eos=size("speech_eos_token_id"),
        pad=size("speech_padding_token_id"),
    )
    if config.dim % (2 * config.num_heads):
        raise UserError(
            f"llm_hidden_size {config.dim} does not split into {config.num_heads} "
            "heads of an even size; take the model's own files"
        )
    if max(config.bos, config.sos, config.eos, config.pad) >= config.vocab_size:
        raise UserError(
            f"a speech token id of the config is not below its {config.vocab_size} "
            "ids; take the model's own files"
        )
    return config


def vocalnet_rules(config: VocalNetConfig, prefix: str = "") -> list[TensorRule]:
    """Where each parameter of the generator comes from."""
    rules = [TensorRule("embedding/embedding", f"{prefix}embedding.weight")]
    for index in range(config.projector_num_layers):
        rules += llama_layer(f"projector/{index}/", f"{prefix}encode_layers.{index}.")
    for index in range(config.num_layers):
        rules += llama_layer(f"stages_0/layers/{index}/", f"{prefix}decode_layers.{index}.")
    rules += _ends("stages_0/", f"{prefix}norm", f"{prefix}output_proj")
    for k in range(config.modules):
        theirs = f"{prefix}mtp_layers.{k}."
        rules += llama_layer(f"stages_{k + 1}/layers/0/", f"{theirs}decoder_layer.")
        rules += _ends(f"stages_{k + 1}/", f"{theirs}norm_final", f"{theirs}output_proj")
    return rules


def _ends(ours: str, norm: str, output: str) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}norm/scale", f"{norm}.weight"),
        TensorRule(f"{ours}output/kernel", f"{output}.weight", LINEAR),
        TensorRule(f"{ours}output/bias", f"{output}.bias"),
    ]


def vocalnet_params(
    config: VocalNetConfig, tensors: Mapping[str, Stored], source: str, **how: Any
) -> dict[str, Any]:
    """Tensors of the generator, or of the whole model it is part of -> parameters of `VocalNet`.
    `how`: see `rules.import_params`.
    """
    inside = {n: t for n, t in tensors.items() if n.startswith(_PREFIX)}
    rules = vocalnet_rules(config, _PREFIX if inside else "")
    return import_params(inside or tensors, rules, vocalnet_shapes(config), source, **how)


def read_vocalnet_folder(
    folder: str | os.PathLike, **how: Any
) -> tuple[VocalNetConfig, dict[str, Any]]:
    """A downloaded VocalNet folder -> (config, parameters of its speech generator); of the rest
    nothing is read. `how`: see `rules.import_params`.
    """
    config = vocalnet_config(read_json(Path(folder) / "config.json"))
    return config, vocalnet_params(config, open_tensors(folder), str(folder), **how)


def vocalnet_shapes(config: VocalNetConfig) -> Any:
    """Abstract parameter tree of a generator; nothing is allocated."""
    ints = lambda *shape: jnp.ones(shape, jnp.int32)
    example = (jnp.zeros((1, 1, config.dim)), ints(1), ints(1, 1), ints(1), jnp.zeros(1, bool))
    return jax.eval_shape(VocalNet(config).init, jax.random.key(0), *example)["params"]
