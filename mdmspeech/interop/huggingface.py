"""Hugging Face checkpoints: the Whisper encoder, and Llama, Qwen2 and Qwen3, by their config.json
and their tensors, whose names are in `huggingface_rules`.

The names below are the file formats' own; `docs` of each architecture: transformers'
modeling_whisper, modeling_llama, modeling_qwen2, modeling_qwen3.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface_rules import (
    EMBEDDING,
    ENCODER_PREFIX,
    OUTPUT,
    THINKER_TYPES,
    THINKERS,
    encoder_rules,
    thinker_rules,
)
from mdmspeech.interop.quantised import plain_weights
from mdmspeech.interop.rules import import_params
from mdmspeech.interop.tensors import Stored, open_tensors, read_json
from mdmspeech.interop.traced_once import traced_once
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.nn.rope import KINDS, rope_attention_factor, rope_frequencies

# what `interop.export` adds to config.json:
# the key, and the version of the layout of what it writes
STAMP, LAYOUT = "mdmspeech", 1
# Sizes that are believed, several times those of the largest published models; larger ones would
# only fill the memory.
_LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "encoder_layers"), 1000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "encoder_attention_heads"), 256),
    **dict.fromkeys(("head_dim", "num_mel_bins"), 4096),
    "vocab_size": 2**24,
}
_LARGEST_WIDTH = 2**20


def thinker_config(hf: Mapping[str, Any], **overrides: Any) -> ThinkerConfig:
    """`config.json` of a Llama, Qwen2 or Qwen3 model -> ours.

    Raises:
      UserError: another architecture, a switch of it that this Thinker does not have, or sizes that
        no model has.
    """
    kind = hf.get("model_type")
    if not isinstance(kind, str) or kind not in THINKER_TYPES:
        raise UserError(f"model_type {kind!r:.80} cannot be a Thinker; use one of: {THINKERS}")
    _check_switches(hf, kind)
    # the former since transformers 5, with theta inside
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise UserError(
            f"the rope scaling of this {kind} model is no JSON object; take the "
            "model's own config.json"
        )
    theta = next(
        (value for value in (hf.get("rope_theta"), rope.get("rope_theta")) if value is not None),
        10_000.0,
    )
    scaling = _rope_scaling(rope, hf)
    dim, heads = whole_number(hf, "hidden_size"), whole_number(hf, "num_attention_heads")
    config = ThinkerConfig(
        vocab_size=whole_number(hf, "vocab_size"),
        dim=dim,
        num_layers=whole_number(hf, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=heads
        if hf.get("num_key_value_heads") is None
        else whole_number(hf, "num_key_value_heads"),
        head_dim=max(dim // heads, 1)
        if hf.get("head_dim") is None
        else whole_number(hf, "head_dim"),
        ffn_dim=whole_number(hf, "intermediate_size"),
        rope_theta=_number(theta, "rope_theta", least=1.0),
        rope_scaling=scaling,
        norm_eps=_number(hf.get("rms_norm_eps", 1e-6), "rms_norm_eps", most=1.0),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        tie_embeddings=_flag(hf, "tie_word_embeddings"),
    )
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f"{heads} attention heads cannot share {config.num_kv_heads} key/value "
            "heads; take the model's own config.json"
        )
    try:
        frequencies = rope_frequencies(config.head_dim, config.rope_theta, dict(scaling or ()))
        if not np.isfinite([*frequencies, rope_attention_factor(dict(scaling or ()))]).all():
            raise ArithmeticError("its frequencies are no numbers")
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"the rope scaling of this {kind} model is incomplete ({error}); take "
            "the model's own config.json"
        ) from error
    return dataclasses.replace(config, **overrides)


def encoder_config(hf: Mapping[str, Any], **overrides: Any) -> SpeechEncoderConfig:
    """`config.json` of a Whisper model -> ours. Raises UserError for another architecture, or sizes
    that no model has.
    """
    if hf.get("model_type", "whisper") != "whisper" or "encoder_layers" not in hf:
        raise UserError(
            f"model_type {hf.get('model_type')!r} cannot be the speech encoder; use a Whisper model"
        )
    if hf.get("activation_function", "gelu") != "gelu" or _flag(hf, "scale_embedding"):
        raise UserError(
            "this Whisper model has another activation or scaled embeddings; use an official one"
        )
    config = SpeechEncoderConfig(
        num_mels=whole_number(hf, "num_mel_bins"),
        dim=whole_number(hf, "d_model"),
        num_layers=whole_number(hf, "encoder_layers"),
        num_heads=whole_number(hf, "encoder_attention_heads"),
        ffn_dim=whole_number(hf, "encoder_ffn_dim"),
        max_positions=whole_number(hf, "max_source_positions"),
    )
    if config.dim % config.num_heads:
        raise UserError(
            f"a width of {config.dim} cannot be split into {config.num_heads} "
            "heads; take the model's own config.json"
        )
    return dataclasses.replace(config, **overrides)


def thinker_json(config: ThinkerConfig) -> dict[str, Any]:
    """The inverse of `thinker_config`."""
    if config.qkv_bias and config.qk_norm:
        raise UserError(
            "no Hugging Face architecture has both biases and norms on its queries "
            "and keys; this Thinker cannot be exported"
        )
    kind = "qwen2" if config.qkv_bias else "qwen3" if config.qk_norm else "llama"
    hf: dict[str, Any] = {
        "architectures": [THINKER_TYPES[kind]], "model_type": kind,
        "vocab_size": config.vocab_size, "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim, "intermediate_size": config.ffn_dim, "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": dict(config.rope_scaling) if config.rope_scaling else None,
        "tie_word_embeddings": config.tie_embeddings, "max_position_embeddings": 32768,
        "use_cache": True,
    }  # fmt: skip
    return hf | ({"attention_bias": False, "mlp_bias": False} if kind == "llama" else {})


def encoder_json(config: SpeechEncoderConfig) -> dict[str, Any]:
    """The inverse of `encoder_config`. transformers makes a decoder as well, which stays random: it
    is given one small layer.
    """
    return {
        "architectures": ["WhisperModel"], "model_type": "whisper", "num_mel_bins": config.num_mels,
        "d_model": config.dim,
        "encoder_layers": config.num_layers, "encoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.ffn_dim,
        "max_source_positions": config.max_positions, "activation_function": "gelu",
        "scale_embedding": False,
        "decoder_layers": 1, "decoder_attention_heads": config.num_heads,
        "decoder_ffn_dim": config.ffn_dim,
    }  # fmt: skip


def frontend_json(config: SpeechEncoderConfig) -> dict[str, Any]:
    """preprocessor_config.json of a Whisper with this encoder: transformers' name for its log-mel
    (`audio.features`).
    """
    return {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": config.num_mels,
        "sampling_rate": 16000, "hop_length": 160,
        "n_fft": 400, "chunk_length": config.max_positions // 50, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": False,
        "n_samples": config.max_positions * 320, "nb_max_frames": config.max_positions * 2,
    }  # fmt: skip


def _check_switches(hf: Mapping[str, Any], kind: str) -> None:
    """UserError for a switch that changes what the model computes and that this Thinker does not have."""
    if _flag(hf, "use_sliding_window"):
        window = hf.get("sliding_window")
        same = (
            f" (the same model up to {window} tokens, more than any conversation here has)"
            if type(window) is int and window >= 4096
            else ""
        )
        cure = f"set it to false in config.json{same}" if same else "take a model without it"
        raise UserError(
            f"this {kind} model uses use_sliding_window, which the Thinker does not have; {cure}"
        )
    used = [name for name in ("mlp_bias", "attention_bias") if _flag(hf, name)]
    used += (
        [f"hidden_act {hf['hidden_act']!r:.40}"] if hf.get("hidden_act", "silu") != "silu" else []
    )
    layers = hf.get("layer_types")
    if layers is not None and (
        not isinstance(layers, list) or any(one != "full_attention" for one in layers)
    ):
        used.append(f"layer_types {layers!r:.60}")
    rope = hf.get("rope_parameters")
    for partial in (
        hf.get("partial_rotary_factor"),
        rope.get("partial_rotary_factor") if isinstance(rope, Mapping) else None,
    ):
        used += [] if partial in (None, 1, 1.0) else [f"partial_rotary_factor {partial!r:.40}"]
    if used:
        raise UserError(
            f"this {kind} model uses {', '.join(used)}, which the Thinker does "
            "not have; take a Llama, Qwen2 or Qwen3 model without it"
        )


def _rope_scaling(
    rope: Mapping[str, Any], hf: Mapping[str, Any]
) -> tuple[tuple[str, Any], ...] | None:
    """The entries that `nn.rope` reads, as a config holds them; None for no scaling."""
    kind = rope.get("rope_type", rope.get("type"))
    if kind is None and rope.get("factor") is not None:
        raise UserError(
            "the rope scaling has a factor but names no type (rope_type); take the "
            "model's own config.json"
        )
    if kind is None or kind == "default":
        return None
    longest = hf.get("max_position_embeddings")
    if kind == "dynamic" and type(longest) is int and longest >= 2048:
        raise UserError(
            "rope scaling type 'dynamic' changes nothing up to max_position_embeddings "
            f"({longest}) tokens and is not computed here; no conversation is that long: set "
            "rope_scaling to null in config.json, the model stays the same"
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"rope scaling type {kind!r:.40} is not known; take a model with one "
            f"of: {', '.join(KINDS)}"
        )
    entries = {
        key: value
        for key, value in rope.items()
        if key != "rope_theta" and type(value) in (int, float)
    }
    for key, value in entries.items():
        _number(value, key)
    if kind == "yarn":
        if rope.get("truncate") is not None:
            entries["truncate"] = _flag(rope, "truncate")
        if longest is not None:
            entries.setdefault(
                "original_max_position_embeddings",
                whole_number(hf, "max_position_embeddings", 2**40),
            )
            entries.setdefault("factor", longest / entries["original_max_position_embeddings"])
    return (("rope_type", kind), *sorted(entries.items()))


def _flag(hf: Mapping[str, Any], name: str) -> bool:
    """A switch of a config; what is missing or null is off. UserError: neither true nor false."""
    value = hf.get(name)
    if value is not None and type(value) is not bool:
        raise UserError(
            f"the config says {value!r:.40} for {name}; true or false is needed: "
            "take the model's own files"
        )
    return bool(value)


def whole_number(hf: Mapping[str, Any], name: str, most: int | None = None) -> int:
    """The item `name` of a config, from 1 to `most` (default: by what it is the size of). Raises
    UserError for anything else.
    """
    value, most = hf.get(name), most or _LARGEST.get(name, _LARGEST_WIDTH)
    if type(value) is not int or not 0 < value <= most:
        said = "has no" if value is None else f"says {value!r:.40} for"
        raise UserError(
            f"the config {said} {name}; a whole number from 1 to {most:,} is "
            "needed: take the model's own files"
        )
    return value


def _number(value: Any, name: str, least: float = 0.0, most: float = 1e30) -> float:
    if type(value) not in (int, float) or not least < value < most:
        raise UserError(
            f"the config says {value!r:.40} for {name}; a number between "
            f"{least:g} and {most:g} is needed: take the model's own files"
        )
    return float(value)


def thinker_params(
    config: ThinkerConfig, tensors: Mapping[str, Stored], source: str, **how: Any
) -> dict[str, Any]:
    """Tensors under their Hugging Face names -> Thinker parameters in the layout of
    `config.scan_layers`. `how`: see `rules.import_params`.
    """
    return import_params(
        thinker_tensors(config, tensors, source),
        thinker_rules(config),
        thinker_shapes(config),
        source,
        **how,
    )


def encoder_params(
    config: SpeechEncoderConfig, tensors: Mapping[str, Stored], source: str, **how: Any
) -> dict[str, Any]:
    """Tensors under their Hugging Face names (of a whole Whisper or of its encoder alone) ->
    encoder parameters. `how`: see `rules.import_params`.
    """
    return import_params(
        whisper_encoder_tensors(tensors),
        encoder_rules(config),
        encoder_shapes(config),
        source,
        **how,
    )


def thinker_tensors(
    config: ThinkerConfig, tensors: Mapping[str, Stored], source: str
) -> dict[str, Stored]:
    """Those of a checkpoint's tensors that are weights: some files repeat a tied embedding, or hold
    tables that follow from the config.

    Raises:
      UserError: an output layer that the config calls tied and that is another one, or that is
        missing without being tied.
    """
    embedding, output = tensors.get(EMBEDDING), tensors.get(OUTPUT)
    if (
        config.tie_embeddings
        and output is not None
        and embedding is not None
        and not _alike(embedding, output)
    ):
        raise UserError(
            f"{source}: config.json ties the output layer to the embedding, but {OUTPUT} is "
            f"another matrix than {EMBEDDING}: set tie_word_embeddings to false in config.json if "
            "the weights are right, or remove the tensor"
        )
    if not config.tie_embeddings and output is None and embedding is not None:
        raise UserError(
            f"{source}: {OUTPUT} is missing, and config.json does not tie the output layer to the "
            "embedding: set tie_word_embeddings to true in config.json if the model is such a one "
            "(those of less than 4 B parameters mostly are), or fetch the weights again"
        )
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith("rotary_emb.inv_freq")
        and not (config.tie_embeddings and name == OUTPUT)
    }


def _alike(one: Stored, other: Stored) -> bool:
    """Whether two tensors are the same, by their shapes and a few rows."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    rows = [slice(at, at + 4) for at in sorted({0, one.shape[0] // 2, max(one.shape[0] - 4, 0)})]
    return all(
        np.array_equal(np.asarray(one[some], np.float32), np.asarray(other[some], np.float32))
        for some in rows
    )


def whisper_encoder_tensors(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The encoder's out of a whole Whisper's tensors, or all if they are an encoder's alone; named
    as in a whole Whisper.
    """
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith(ENCODER_PREFIX)}
    if inside:
        return inside
    outer = "encoder." if any(name.startswith("encoder.") for name in tensors) else ""
    return {
        ENCODER_PREFIX + name.removeprefix(outer): tensor
        for name, tensor in tensors.items()
        if name.startswith(outer)
    }


@traced_once
def thinker_shapes(config: ThinkerConfig) -> Any:
    """Abstract parameter tree of a Thinker; nothing is allocated."""
    return _shapes(Thinker, config, jnp.zeros((1, 2), jnp.int32))


@traced_once
def encoder_shapes(config: SpeechEncoderConfig) -> Any:
    """Abstract parameter tree of a speech encoder; nothing is allocated."""
    # their table is computed even in an abstract evaluation
    few = dataclasses.replace(config, max_positions=4)
    shapes = _shapes(SpeechEncoder, few, jnp.zeros((1, 8, config.num_mels)))
    return {
        **shapes,
        "positions": jax.ShapeDtypeStruct(
            (config.max_positions, config.dim), shapes["positions"].dtype
        ),
    }


def _shapes(module: Any, config: Any, example: jax.Array) -> Any:
    """Traced with scanned layers, one layer instead of dozens, and taken apart again if the config
    wants them unrolled.
    """
    scanned = module(dataclasses.replace(config, scan_layers=True))
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), example)["params"]
    if config.scan_layers:
        return shapes
    layer = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes["layers"]["all"]
    )
    return {**shapes, "layers": {str(index): layer for index in range(config.num_layers)}}


def read_thinker_folder(
    folder: str | os.PathLike,
    *,
    dtype: Any = np.float32,
    shardings: Any = None,
    progress: Any = None,
    **overrides: Any,
) -> tuple[ThinkerConfig, dict[str, Any]]:
    """A downloaded (or exported) model folder -> (config, parameters).

    Args:
      dtype, shardings, progress: of the parameters, see `rules.import_params`; `shardings` belong
        to the layout of `overrides`.
      overrides: into the config (scan_layers=True, ...).
    """
    hf, config = config_of(folder, thinker_config, **overrides)
    how = dict(dtype=dtype, shardings=shardings, progress=progress)
    return config, thinker_params(config, open_weights(folder, hf), str(folder), **how)


def config_of(
    folder: str | os.PathLike, make: Callable[..., Any], upgrade: bool = False, **overrides: Any
) -> tuple[dict[str, Any], Any]:
    """(config.json of a model folder, what `make` makes of it). `upgrade`: see `read_config`.
    Raises UserError as these, naming the file.
    """
    hf = read_config(folder, upgrade)
    try:
        return hf, make(hf, **overrides)
    except UserError as error:
        raise UserError(f"{Path(folder) / 'config.json'}: {error}") from error


def open_weights(folder: str | os.PathLike, hf: Mapping[str, Any]) -> dict[str, Stored]:
    """The tensors of a model folder with this config.json, not read yet; see
    `quantised.plain_weights`.
    """
    return plain_weights(open_tensors(folder), hf, str(folder))


def read_config(folder: str | os.PathLike, upgrade: bool = False) -> dict[str, Any]:
    """config.json of a model folder.

    Args:
      upgrade: read what `interop.export` wrote in an older layout as well.

    Raises:
      UserError: missing or broken, or of a layout that is not read here, with the command that
        upgrades it.
    """
    hf = read_json(Path(folder) / "config.json")
    if STAMP not in hf:
        return hf
    layout = hf[STAMP].get("layout") if isinstance(hf[STAMP], Mapping) else None
    if type(layout) is not int or layout < 0:
        raise UserError(
            f"{folder} says {hf[STAMP]!r:.40} about its layout, which mdmspeech "
            "never wrote; export it again"
        )
    if layout > LAYOUT:
        raise UserError(
            f"{folder} has layout {layout}, this program reads {LAYOUT}; update mdmspeech"
        )
    if layout < LAYOUT and not upgrade:
        raise UserError(
            f"{folder} has the old layout {layout}; bring it up to date with: "
            f"mdmspeech convert {folder} NEW_FOLDER"
        )
    return hf
