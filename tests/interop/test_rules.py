"""Renaming: every disagreement is listed, every rule is invertible, every layout arrives."""

import dataclasses
import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from encoder_folder import read_encoder_folder

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import (
    encoder_config,
    encoder_params,
    read_thinker_folder,
    thinker_config,
    thinker_params,
)
from mdmspeech.interop.huggingface_rules import encoder_rules
from mdmspeech.interop.rules import export_params
from mdmspeech.interop.tensors import read_tensors, write_tensors

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
_hf = {
    name: json.loads((GOLDEN / f"{name}.json").read_text())["config"]["hf_config"]
    for name in ("hf_qwen3", "hf_llama3", "hf_whisper80")
}
LLAMA = {"model_type": "llama", **_hf["hf_llama3"]}


def _tensors(name="hf_qwen3"):
    return read_tensors(GOLDEN / f"{name}.safetensors")


def test_everything_wrong_is_listed_at_once():
    tensors = _tensors()
    tensors["model.layers.9.extra"] = tensors.pop("model.norm.weight")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T
    with pytest.raises(UserError) as caught:
        thinker_params(
            thinker_config({"model_type": "qwen3", **_hf["hf_qwen3"]}), tensors, "my model"
        )
    text = str(caught.value)
    assert "\n" not in text and text.startswith("my model does not fit its config")
    for part in (
        "1 missing (model.norm.weight)",
        "1 unknown (model.layers.9.extra)",
        "lm_head.weight [56, 151] instead of [151, 56]",
    ):
        assert part in text


def test_long_lists_are_cut():
    tensors = {name: value for name, value in _tensors().items() if "layers.1." not in name}
    with pytest.raises(UserError, match=r"11 missing \(model\.layers\.1\..* and 5 more\)"):
        thinker_params(thinker_config({"model_type": "qwen3", **_hf["hf_qwen3"]}), tensors, "half")


def test_tied_copies_and_rotary_buffers_are_left_out():
    tensors = _tensors("hf_llama3")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8)
    assert "output" not in thinker_params(thinker_config(LLAMA), tensors, "llama")


def test_export_is_the_inverse():
    config = encoder_config(_hf["hf_whisper80"])
    tensors = _tensors("hf_whisper80")
    back = export_params(encoder_params(config, tensors, "whisper"), encoder_rules(config, ""))
    assert back.keys() == tensors.keys()
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name])


def test_folders_sharded_and_bfloat16(tmp_path):
    tensors = {
        name: value.astype(ml_dtypes.bfloat16) for name, value in _tensors("hf_llama3").items()
    }
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        write_tensors(tmp_path / file, {name: tensors[name] for name in part})
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    config, params = read_thinker_folder(tmp_path)
    assert config == thinker_config(LLAMA)
    expected = thinker_params(config, tensors, "")
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    scanned, stacked = read_thinker_folder(tmp_path, scan_layers=True)
    assert scanned == dataclasses.replace(config, scan_layers=True)
    np.testing.assert_array_equal(
        stacked["layers"]["all"]["mlp"]["up"]["kernel"][1],
        params["layers"]["1"]["mlp"]["up"]["kernel"],
    )


def test_encoder_out_of_a_whole_whisper(tmp_path):
    tensors = {f"model.encoder.{name}": value for name, value in _tensors("hf_whisper80").items()}
    tensors["model.decoder.layer_norm.weight"] = np.ones(3, np.float32)
    write_tensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "whisper", **_hf["hf_whisper80"]})
    )
    _, params = read_encoder_folder(tmp_path)
    np.testing.assert_array_equal(
        params["norm"]["scale"], tensors["model.encoder.layer_norm.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "cannot be a Thinker"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"use_sliding_window": True}, "use_sliding_window"),
    ],
)
def test_other_architectures_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        thinker_config({**LLAMA, **change})


def test_both_spellings_of_rope():
    """transformers 5 moved theta and scaling into `rope_parameters`."""
    new = {k: v for k, v in LLAMA.items() if k not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {**LLAMA["rope_scaling"], "rope_theta": LLAMA["rope_theta"]}
    assert thinker_config(new) == thinker_config(LLAMA)


def test_a_thinker_is_no_speech_encoder():
    with pytest.raises(UserError, match="cannot be the speech encoder"):
        encoder_config(LLAMA)


@pytest.mark.parametrize("cut", [0, 20, 5000])
def test_truncated_files_are_named(tmp_path, cut):
    path = tmp_path / "model.safetensors"
    path.write_bytes((GOLDEN / "hf_llama3.safetensors").read_bytes()[:cut])
    with pytest.raises(UserError, match=r"model\.safetensors is corrupt"):
        read_tensors(path)


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no \.safetensors file"):
        read_tensors(tmp_path)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        read_thinker_folder(tmp_path)
