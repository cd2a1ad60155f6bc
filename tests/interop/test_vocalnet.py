"""The names of VocalNet's published speech generator."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.interop.rules import export_params
from mdmspeech.interop.tensors import read_tensors, write_tensors
from mdmspeech.interop.vocalnet import (
    read_vocalnet_folder,
    vocalnet_config,
    vocalnet_params,
    vocalnet_rules,
)
from mdmspeech.models.vocalnet import VocalNetConfig

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "vocalnet_talker"
PUBLISHED = json.loads(GOLDEN.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def tensors():
    return read_tensors(GOLDEN.with_suffix(".safetensors"))


def test_every_tensor_is_used_and_comes_out_as_it_went_in(tensors):
    config = vocalnet_config(PUBLISHED["config"]["config"])
    params = vocalnet_params(config, tensors, "golden")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED["parameters"]
    exported = export_params(params, vocalnet_rules(config))
    assert exported.keys() == tensors.keys()
    for name, value in exported.items():
        np.testing.assert_array_equal(value, tensors[name])


def test_the_generator_inside_a_whole_model(tensors, tmp_path):
    published = PUBLISHED["config"]["config"] | {
        "speech_generator_type": "ar_mtp",
        "model_type": "omni_speech2s_llama",
    }
    write_tensors(
        tmp_path / "model-1.safetensors",
        {f"speech_generator.{name}": value for name, value in tensors.items()},
    )
    write_tensors(tmp_path / "model-2.safetensors", {"model.norm.weight": np.zeros(2, np.float32)})
    (tmp_path / "config.json").write_text(json.dumps(published))
    config, params = read_vocalnet_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, vocalnet_params(config, tensors, "golden"))


def test_what_does_not_fit_is_named(tensors):
    published = PUBLISHED["config"]["config"]
    config = vocalnet_config(published)
    with pytest.raises(UserError, match=r"12 unknown .*mtp_layers\.2"):
        vocalnet_params(dataclasses.replace(config, modules=2), tensors, "golden")
    with pytest.raises(UserError, match="has no mtp_num"):
        vocalnet_config({name: value for name, value in published.items() if name != "mtp_num"})
    for name, value in {
        "decoder_num_layers": 10**9,
        "decoder_num_heads": 7,
        "speech_eos_token_id": 101,
        "llm_hidden_size": "40",
    }.items():
        with pytest.raises(UserError, match="take the model's own files"):
            vocalnet_config(published | {name: value})
    with pytest.raises(UserError, match="'ctc' is not known"):
        vocalnet_config(published | {"speech_generator_type": "ctc"})


def test_the_defaults_are_the_published_model():
    """scripts/mtp/ar_config_5.yaml of VocalNet-1B."""
    sizes = dict(
        llm_hidden_size=2048,
        decoder_num_heads=32,
        decoder_ffn_dim=8192,
        decoder_num_layers=4,
        encoder_num_layers=2,
        mtp_num=5,
    )
    ids = dict(
        speech_bos_token_id=6561,
        speech_sos_token_id=6562,
        speech_eos_token_id=6563,
        speech_padding_token_id=6564,
    )
    groups = dict(unit_vocab_size=6561, special_tokens=4, txt_token_num=5, speech_token_num=15)
    assert vocalnet_config(sizes | ids | groups) == VocalNetConfig()
