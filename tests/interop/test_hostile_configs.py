"""config.json with anything in any place: a config or one clear error; switches that change what a
model computes are never overlooked.
"""

import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_folder import read_encoder_folder

from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.huggingface import (
    encoder_config,
    read_thinker_folder,
    thinker_config,
    thinker_json,
)
from mdmspeech.interop.tensors import WHOLE, read_tensors, write_tensors
from mdmspeech.models.thinker import Thinker, ThinkerConfig

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
HF = {
    "model_type": "qwen3",
    **json.loads((GOLDEN / "hf_qwen3.json").read_text())["config"]["hf_config"],
}
LLAMA = {
    "model_type": "llama",
    **json.loads((GOLDEN / "hf_llama3.json").read_text())["config"]["hf_config"],
}
WHISPER = {
    "model_type": "whisper",
    **json.loads((GOLDEN / "hf_whisper80.json").read_text())["config"]["hf_config"],
}
OTHERS = (
    "rope_parameters", "rope_scaling", "rope_theta", "tie_word_embeddings", "head_dim",
    "num_key_value_heads", "use_sliding_window", "sliding_window",
    "layer_types", "attention_bias", "mlp_bias", "hidden_act", "rms_norm_eps",
    "max_position_embeddings", "partial_rotary_factor", "torch_dtype",
    "quantization_config", "eos_token_id", "mdmspeech", "activation_function", "scale_embedding",
    "architectures",
)  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**80, 0.0, -0.5, 0.5, 1e300, math.nan, math.inf, "",
    "4", "true", "auto", [], [1], [None], ["x"], {},
    {"a": 1}, {"rope_type": "yarn"}, {"factor": 2.0}, [[[]]],
]  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen3", "llama", "whisper"])
def test_anything_anywhere_is_read_or_refused(tmp_path, kind):
    """Every field with every wrong value, as the file would hold it: through the folder's reader,
    to the parameters' headers. Never another error.
    """
    hf, golden = {
        "qwen3": (HF, "hf_qwen3"),
        "llama": (LLAMA, "hf_llama3"),
        "whisper": (WHISPER, "hf_whisper80"),
    }[kind]
    write_tensors(tmp_path / WHOLE, read_tensors(GOLDEN / f"{golden}.safetensors"))
    read = sources.open_speech_encoder if kind == "whisper" else sources.open_thinker
    refused = []
    for name, value in itertools.product((*hf, *OTHERS), VALUES):
        (tmp_path / "config.json").write_text(json.dumps({**hf, name: value}))
        try:
            read(tmp_path)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not [
        told for told in refused if str(tmp_path) not in told or len(told) > 700 or "\n" in told
    ]


ROPE = {
    "rope_type": [
        "yarn",
        "linear",
        "llama3",
        "dynamic",
        "longrope",
        "su",
        "mrope",
        "default",
        3,
        None,
        ["yarn"],
    ],
    "factor": [4.0, 1, 0.5, 1e-9, 1e29, -1, 0, "4", None, math.nan, True],
    "original_max_position_embeddings": [32, 4.5, 0, None, "x", 1e29],
    "beta_fast": [32, 1e-9, 1e29, None],
}


def test_anything_in_a_rope_scaling_is_finite_or_refused():
    read = 0
    for kind, factor, original, fast in itertools.product(*ROPE.values()):
        rope = {
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": fast,
        }
        for extra in (
            {},
            {"low_freq_factor": 1.0, "high_freq_factor": 1.0},
            {"attention_factor": "x", "truncate": 1},
        ):
            try:
                config = thinker_config(
                    {**HF, "rope_scaling": {**rope, **extra}, "max_position_embeddings": 64}
                )
            except UserError:
                continue
            assert config.rope_scaling is None or dict(config.rope_scaling)["rope_type"] in (
                "linear",
                "yarn",
                "llama3",
            )
            read += 1
    assert read > 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_word_embeddings": "false"}, "says 'false' for tie_word_embeddings"),
        ({"tie_word_embeddings": 0}, "says 0 for tie_word_embeddings"),
        (
            {"use_sliding_window": True, "sliding_window": 32768},
            r"set it to false in config\.json .the same model up to 32768 tokens",
        ),
        ({"use_sliding_window": True, "sliding_window": 128}, "take a model without it"),
        ({"use_sliding_window": True}, "take a model without it"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types .*take a Llama, Qwen2 or Qwen3 model without it",
        ),
        ({"attention_bias": True}, "attention_bias, which the Thinker does not have"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
            "partial_rotary_factor 0.25",
        ),
        ({"rope_theta": 0}, "says 0 for rope_theta"),
        ({"rope_theta": False}, "says False for rope_theta"),
        ({"rope_theta": 1}, "says 1 for rope_theta"),
        ({"rms_norm_eps": 1e5}, "rms_norm_eps"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"rope_scaling": {"factor": 8.0}}, "names no type"),
        (
            {
                "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
                "max_position_embeddings": 4096,
            },
            "changes nothing up to .*4096. .*set rope_scaling to null",
        ),
        (
            {
                "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
                "max_position_embeddings": 64,
            },
            "'dynamic' is not known; take a model with one of: default",
        ),
        ({"rope_scaling": {"type": "su", "long_factor": [1.0]}}, "'su' is not known"),
        ({"rope_scaling": {"type": "yarn"}, "max_position_embeddings": None}, "is incomplete"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": 1}}, "says 1 for truncate"),
    ],
)
def test_switches_that_change_the_model_are_named(change, message):
    with pytest.raises(UserError, match=message):
        thinker_config({**HF, **change})


@pytest.mark.parametrize(
    "change",
    [
        # Qwen2.5's own
        {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 1},
        {"layer_types": ["full_attention"] * 2},
        {"torch_dtype": "nonsense"},
        {"dtype": 16},
        {"attention_bias": None, "mlp_bias": False},
        {"partial_rotary_factor": 1.0},
        {"pretraining_tp": 1, "attention_dropout": 0.1, "_name_or_path": 3},
        {"rope_scaling": None},
        {"rope_scaling": {}},
        {"rope_scaling": {"rope_type": "default"}},
    ],
)
def test_what_changes_nothing_is_passed_over(change):
    assert thinker_config({**HF, **change}) == thinker_config(HF)


def test_the_cure_for_dynamic_scaling_is_right():
    """Hugging Face's rule: theta * (factor * L / max - (factor - 1)) ** (d / (d - 2)) for L =
    max(length, max): theta itself up to max.
    """
    for factor in (2.0, 7.5):
        assert 1e4 * (factor * 4096 / 4096 - (factor - 1)) ** (64 / 62) == pytest.approx(1e4)


@pytest.mark.parametrize(
    ("rope", "positions", "wanted"),
    [
        # Qwen2.5
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
            (32768, 4.0),
        ),
        # Qwen3
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            40960,
            (32768, 4.0),
        ),
        ({"rope_type": "yarn", "factor": 4.0}, 32768, (32768, 4.0)),
        ({"rope_type": "yarn", "original_max_position_embeddings": 4096}, 65536, (4096, 16.0)),
        (
            {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 4096},
            8192,
            (4096, 2.0),
        ),
    ],
)
def test_yarn_settings_as_they_are_published(rope, positions, wanted):
    config = thinker_config({**HF, "rope_scaling": rope, "max_position_embeddings": positions})
    found = dict(config.rope_scaling)
    assert (found["original_max_position_embeddings"], found["factor"]) == wanted
    assert thinker_config(thinker_json(config)) == config  # goes out and comes in


def test_a_yarn_thinker_scales_its_attention():
    """The factor on cosines and sines is that squared on the logits: the same Thinker with larger
    query weights, if nothing normalises them.
    """
    sizes = dict(
        vocab_size=40,
        dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        ffn_dim=16,
        rope_theta=100.0,
    )
    scaling = (
        ("rope_type", "yarn"),
        ("attention_factor", 1.5),
        ("factor", 1.0),
        ("original_max_position_embeddings", 64),
    )
    plain, yarn = ThinkerConfig(**sizes), ThinkerConfig(**sizes, rope_scaling=scaling)
    ids = jnp.arange(12)[None]
    params = jax.jit(Thinker(plain).init)(jax.random.key(0), ids)["params"]
    kernel = params["layers"]["0"]["attn"]["q"]["kernel"]
    attn = {**params["layers"]["0"]["attn"], "q": {"kernel": kernel * 1.5**2}}
    larger = {**params, "layers": {"0": {**params["layers"]["0"], "attn": attn}}}
    got, wanted, without = (
        jax.jit(Thinker(c).apply)({"params": p}, ids)
        for c, p in ((yarn, params), (plain, larger), (plain, params))
    )
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(got - without).max() > 1e-3


def _folder(path, tensors, hf):
    write_tensors(path / WHOLE, tensors)
    (path / "config.json").write_text(json.dumps(hf))
    return path


def test_an_output_layer_that_contradicts_the_config(tmp_path):
    tensors = {
        name: value
        for name, value in read_tensors(GOLDEN / "hf_qwen3.safetensors").items()
        if name != "lm_head.weight"
    }
    embedding, tied, untied = (
        tensors["model.embed_tokens.weight"],
        {**HF, "tie_word_embeddings": True},
        {**HF, "tie_word_embeddings": False},
    )
    other = embedding.copy()
    other[-1, -1] += 1
    assert read_thinker_folder(_folder(tmp_path, tensors, tied))[0].tie_embeddings
    assert (
        "output"
        not in read_thinker_folder(
            _folder(tmp_path, {**tensors, "lm_head.weight": embedding}, tied)
        )[1]
    )
    for lies, hf, message in (
        ({**tensors, "lm_head.weight": other}, tied, "set tie_word_embeddings to false"),
        ({**tensors, "lm_head.weight": embedding[:-1]}, tied, "set tie_word_embeddings to false"),
        (tensors, untied, "set tie_word_embeddings to true"),
        (
            tensors,
            {k: v for k, v in HF.items() if k != "tie_word_embeddings"},
            "set tie_word_embeddings to true",
        ),
    ):
        with pytest.raises(UserError, match=message):
            read_thinker_folder(_folder(tmp_path, lies, hf))
    # the cure
    config, params = read_thinker_folder(
        _folder(tmp_path, {**tensors, "lm_head.weight": other}, untied)
    )
    np.testing.assert_array_equal(params["output"]["kernel"], other.T)
    assert not config.tie_embeddings


@pytest.mark.parametrize(
    "text",
    [
        '{"hidden_size": NaN}',
        '{"model_type": "qwen3", "hidden_size": Infinity}',
        '{"model_type": null}',
        '{"model_type": NaN}',
    ],
)
def test_numbers_that_json_does_not_have(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for read in (read_thinker_folder, read_encoder_folder, sources.open_any):
        with pytest.raises(UserError):
            read(tmp_path)


def test_switches_of_the_encoder():
    for change in (
        {"scale_embedding": True},
        {"scale_embedding": "no"},
        {"activation_function": "relu"},
        {"activation_function": None},
    ):
        with pytest.raises(UserError):
            encoder_config({**WHISPER, **change})
