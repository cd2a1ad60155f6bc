"""CTranslate2's Whisper files: written by its own library in every precision, read back into the
same encoder.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ctranslate2 import specs

from mdmspeech.errors import UserError
from mdmspeech.interop import ctranslate2
from mdmspeech.interop.huggingface import encoder_config, encoder_params
from mdmspeech.interop.sources import load_speech_encoder
from mdmspeech.interop.tensors import read_tensors

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def _source(name="hf_whisper128"):
    hf = json.loads((GOLDEN / f"{name}.json").read_text())["config"]["hf_config"]
    return encoder_config(hf), read_tensors(GOLDEN / f"{name}.safetensors")


def _converted(folder, precision):
    """What CTranslate2's converter makes of the fixture, without its decoder."""
    config, tensors = _source()
    spec = specs.WhisperSpec(config.num_layers, config.num_heads, 1, 1)
    del spec.decoder
    encoder, layers = spec.encoder, spec.encoder.layer

    def put(target, name):
        target.weight, target.bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def norm(target, name):
        target.gamma, target.beta = tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    encoder.position_encodings.encodings = tensors["embed_positions.weight"]
    put(encoder.conv1, "conv1")
    put(encoder.conv2, "conv2")
    norm(encoder.layer_norm, "layer_norm")
    for i, layer in enumerate(layers):
        attention, fused = layer.self_attention, [f"layers.{i}.self_attn.{n}_proj" for n in "qkv"]
        attention.linear[0].weight = np.concatenate([tensors[f"{n}.weight"] for n in fused])
        bias = [tensors.get(f"{n}.bias", np.zeros(config.dim, np.float32)) for n in fused]
        attention.linear[0].bias = np.concatenate(bias)
        put(attention.linear[1], f"layers.{i}.self_attn.out_proj")
        put(layer.ffn.linear_0, f"layers.{i}.fc1")
        put(layer.ffn.linear_1, f"layers.{i}.fc2")
        norm(attention.layer_norm, f"layers.{i}.self_attn_layer_norm")
        norm(layer.ffn.layer_norm, f"layers.{i}.final_layer_norm")
    encoder.validate()
    spec.optimize(quantization=precision)
    folder.mkdir(exist_ok=True)
    spec.save(str(folder))
    return folder


@pytest.mark.parametrize(
    ("precision", "error"),
    [("float32", 0), ("float16", 1e-3), ("int8", 1e-2), ("int8_float16", 1e-2), ("int16", 2e-3)],
)
def test_every_precision(tmp_path, precision, error):
    config, tensors = _source()
    loaded = load_speech_encoder(_converted(tmp_path / "whisper", precision))
    assert loaded.config == config and loaded.origin == "CTranslate2 model whisper"

    def close(got, wanted):
        np.testing.assert_allclose(got, wanted, atol=error * np.abs(wanted).max())

    jax.tree.map(close, loaded.params, encoder_params(config, tensors, ""))


def test_broken_files_are_named(tmp_path):
    path = _converted(tmp_path / "whisper", "float32") / "model.bin"
    whole = path.read_bytes()
    for cut in (0, 10, 1000, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"model\.bin (is corrupt|cannot be read)"):
            load_speech_encoder(path)
    path.write_bytes(whole.replace(b"WhisperSpec", b"WhoeverSpec"))
    with pytest.raises(UserError, match="WhoeverSpec"):
        load_speech_encoder(path)
    path.write_bytes(whole.replace(b"encoder/conv1/bias", b"encoder/conv9/bias"))
    with pytest.raises(UserError, match="conv1/bias"):
        load_speech_encoder(path)


def test_missing_variables_are_named():
    with pytest.raises(UserError, match="encoder/conv1/weight"):
        ctranslate2.encoder_tensors({})
