"""Where a seq2seq adaptor starts from: some layers of Whisper's decoder, and of its vocabulary the
commonest English pieces.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.files import write_text
from mdmspeech.interop import sources
from mdmspeech.interop.ctranslate2 import decoder_tensors
from mdmspeech.interop.huggingface_rules import whisper_decoder_rules
from mdmspeech.interop.rules import import_params
from mdmspeech.interop.tensors import open_tensors, read_json
from mdmspeech.models.seq2seq_adaptor import Seq2SeqAdaptor, Seq2SeqConfig
from mdmspeech.text import pieces

_PREFIX = "model.decoder."
# of the multilingual Whispers up to large-v2;
# large-v3 has one language more, before the task tokens
_BASE_VOCABULARY = 51865
_END, _START, _ENGLISH, _TRANSCRIBE, _NO_TIMESTAMPS = 50257, 50258, 50259, 50359, 50363


def load_whisper_decoder(
    config: Seq2SeqConfig, layers: Sequence[int], source: str | os.PathLike = sources.WHISPER_BASE
) -> dict[str, Any]:
    """Parameters of a seq2seq adaptor out of a Whisper decoder.

    Args:
      config: the adaptor's sizes. layers: which of the decoder's layers become the adaptor's,
        `config.num_layers` of them.
      source: a Hugging Face Whisper folder, or "whisper-base": the registry packages.

    Raises:
      UserError: not found (with the command that fetches it), or sizes that do not fit.
    """
    if len(layers) != config.num_layers:
        raise UserError(
            f"{config.num_layers} layers are to start from decoder layers {list(layers)}: name as many"
        )
    tensors, vocabulary, name = _read(source)
    ids = _kept(vocabulary, tensors["embed_tokens.weight"].shape[0], config)
    tensors["embed_tokens.weight"] = tensors["embed_tokens.weight"][ids]
    tensors["embed_positions.weight"] = tensors["embed_positions.weight"][: config.positions]
    if missing := [layer for layer in layers if f"layers.{layer}.fc1.weight" not in tensors]:
        raise UserError(f"{name} has no decoder layer {missing[0]}; choose layers it has")
    unused = [n for n in tensors if n.startswith("layers.") and int(n.split(".")[1]) not in layers]
    for tensor in unused:
        del tensors[tensor]
    return import_params(tensors, whisper_decoder_rules(layers), seq2seq_shapes(config), name)


def seq2seq_shapes(config: Seq2SeqConfig) -> Any:
    """Abstract parameter tree of a seq2seq adaptor."""
    states = jnp.zeros((1, 4, config.encoder_dim))
    ids = jnp.zeros((1, 2), jnp.int32)
    return jax.eval_shape(
        Seq2SeqAdaptor(config).init, jax.random.key(0), states, jnp.ones((1, 4), bool), ids
    )["params"]


def save_pieces(
    path: str | os.PathLike,
    words: Mapping[str, float],
    source: str | os.PathLike = sources.WHISPER_BASE,
) -> int:
    """Writes the kept pieces of a Whisper vocabulary as the JSON list `text.pieces` reads; returns
    how many. words: of `text.pieces.english`.
    """
    vocabulary = _read(source)[1]
    names = sorted(vocabulary, key=vocabulary.__getitem__)[:_END]
    kept = [names[i] for i in pieces.english(names, words)]
    write_text(path, json.dumps(kept, ensure_ascii=False, separators=(",", ":")) + "\n")
    return len(kept)


def _kept(vocabulary: dict[str, int], rows: int, config: Seq2SeqConfig) -> np.ndarray:
    names = pieces.shipped_names(config.pieces)
    if unknown := [name for name in names if name not in vocabulary]:
        raise UserError(
            f"this Whisper's vocabulary lacks {len(unknown)} of the pieces, first "
            f"{unknown[0]!r}; take a multilingual one"
        )
    return np.array([vocabulary[name] for name in names] + _special(rows))


def _special(rows: int) -> list[int]:
    """Whisper's ids of the end and of the prompt, given the size of its embedding."""
    later = rows - _BASE_VOCABULARY
    return [_END, _START, _ENGLISH, _TRANSCRIBE + later, _NO_TIMESTAMPS + later]


def _read(source: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, int], str]:
    """(decoder tensors without prefix, piece -> id, a name for errors)."""
    folder = Path(source)
    if str(source) == sources.WHISPER_BASE:
        variables, tokenizer = sources.whisper_package()
        return (
            decoder_tensors(variables),
            _vocabulary(json.loads(tokenizer), sources.WHISPER_BASE),
            sources.WHISPER_BASE,
        )
    if not folder.is_dir():
        raise UserError(
            f"no Whisper at {source}: give a Whisper folder or the name {sources.WHISPER_BASE!r}"
        )
    tensors = {
        n.removeprefix(_PREFIX): np.asarray(t)
        for n, t in open_tensors(folder).items()
        if n.startswith(_PREFIX)
    }
    return tensors, _vocabulary(read_json(folder / "tokenizer.json"), str(folder)), str(folder)


def _vocabulary(tokenizer: Any, name: str) -> dict[str, int]:
    try:
        return dict(tokenizer["model"]["vocab"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the tokenizer.json of {name} has no vocabulary ({error}); take the "
            "model's original files"
        ) from error
