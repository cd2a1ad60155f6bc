"""The other side: small and real models in `transformers`, filled so that nothing can hide, and ours beside them."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mdmspeech.interop.huggingface import thinker_rules
from mdmspeech.interop.rules import export_params
from mdmspeech.interop.sources import LoadedThinker
from mdmspeech.nn.stack import unstack_layers


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random parameters: no bias is zero, no norm is one, so that a missing one or a wrong axis shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:  # a fixed table
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.2 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5 if "embed" not in name else noise)


def torch_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Arrays as tensors of their own."""
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}


def llama_of(thinker: LoadedThinker) -> LlamaForCausalLM:
    """The same weights, float32, in transformers' Llama."""
    config, params = thinker.config, thinker.params
    assert not (config.qk_norm or config.qkv_bias or config.rope_scaling), "no plain Llama"
    if config.scan_layers:
        params = {**params, "layers": unstack_layers(params["layers"])}
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.ffn_dim,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=config.tie_embeddings,
            max_position_embeddings=8192,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
    )
    found = theirs.load_state_dict(torch_tensors(export_params(params, thinker_rules(config))), strict=False)
    assert not found.unexpected_keys and set(found.missing_keys) <= ({"lm_head.weight"} if config.tie_embeddings else set())
    return theirs.eval()
