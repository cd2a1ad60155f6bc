"""The other side: small and real models in `transformers`, filled so that nothing can hide, and
ours beside them.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from mdmspeech.interop.export import export_thinker
from mdmspeech.interop.sources import LoadedThinker


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random parameters: no bias is zero, no norm is one, so that a missing one or a wrong axis shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:  # a fixed table
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(
                    0.2 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
                )
            else:
                parameter.copy_(
                    noise / parameter[0].numel() ** 0.5 if "embed" not in name else noise
                )


def torch_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Arrays as tensors of their own."""
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}


def llama_of(thinker: LoadedThinker, folder: Path) -> LlamaForCausalLM:
    """The same weights, float32, in transformers' Llama: exported by us and loaded by it."""
    export_thinker(folder, thinker.config, thinker.params)
    model, told = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(told.values()), told
    return model.eval()
