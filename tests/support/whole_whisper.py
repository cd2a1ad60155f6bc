"""All of Whisper's decoder, for parity with other implementations: programs take some layers and
pieces of it.
"""

import dataclasses
from typing import Any

from mdmspeech.interop import sources, whisper_decoder
from mdmspeech.interop.rules import import_params
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig


def whole_decoder() -> tuple[Seq2SeqConfig, dict[str, Any]]:
    """The undiminished decoder as a seq2seq adaptor, its pieces being Whisper's ids: for parity
    with other implementations.
    """
    tensors, _, name = whisper_decoder._read(sources.WHISPER_BASE)
    rows, width = tensors["embed_tokens.weight"].shape
    tensors["embed_tokens.weight"] = tensors["embed_tokens.weight"][
        [*range(whisper_decoder._END), *whisper_decoder._special(rows)]
    ]
    layers = range(len({n.split(".")[1] for n in tensors if n.startswith("layers.")}))
    sizes = Seq2SeqConfig(
        encoder_dim=width,
        dim=width,
        num_layers=len(layers),
        num_heads=width // 64,
        ffn_dim=tensors["layers.0.fc1.bias"].shape[0],
    )
    config = dataclasses.replace(
        sizes, pieces=whisper_decoder._END, positions=tensors["embed_positions.weight"].shape[0]
    )
    return config, import_params(
        tensors,
        whisper_decoder.whisper_decoder_rules(layers),
        whisper_decoder.seq2seq_shapes(config),
        name,
    )
