"""Hugging Face folders both ways: made with random weights by `transformers`, read by ours, written
by ours, read by `transformers`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from encoder_folder import read_encoder_folder
from measured import close, same
from reference import fill
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from mdmspeech.interop.export import How, export_encoder, export_thinker
from mdmspeech.interop.huggingface import read_thinker_folder
from mdmspeech.models.generation import empty_state, jit_extend, jit_generate
from mdmspeech.models.speech_encoder import SpeechEncoder
from mdmspeech.models.thinker import Thinker

pytestmark = [pytest.mark.parity, pytest.mark.torch]

NEW = 16
COMMON = dict(
    vocab_size=131,
    num_hidden_layers=3,
    max_position_embeddings=256,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=10_000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0
)
PLAIN = dict(rope_type="default", rope_theta=1e5)
THINKERS = {
    "Llama 3, rope scaling, untied": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=20,
            intermediate_size=88,
            tie_word_embeddings=False,
        )
        | dict(
            rope_parameters=LLAMA3 | {"original_max_position_embeddings": 32}, rms_norm_eps=1e-5
        ),
    ),
    "Llama, tied": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            hidden_size=48,
            num_attention_heads=3,
            num_key_value_heads=1,
            intermediate_size=72,
            tie_word_embeddings=True,
        )
        | dict(rope_parameters=PLAIN, rms_norm_eps=1e-5),
    ),
    "Qwen2, tied": (
        Qwen2ForCausalLM,
        Qwen2Config,
        dict(
            hidden_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=96,
            tie_word_embeddings=True,
        )
        | dict(rope_parameters=PLAIN),
    ),
    "Qwen2, untied": (
        Qwen2ForCausalLM,
        Qwen2Config,
        dict(
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=1,
            intermediate_size=80,
            tie_word_embeddings=False,
        )
        | dict(rope_parameters=PLAIN),
    ),
    "Qwen3, tied": (
        Qwen3ForCausalLM,
        Qwen3Config,
        dict(
            hidden_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=24,
            intermediate_size=88,
            tie_word_embeddings=True,
        )
        | dict(rope_parameters=PLAIN),
    ),
    "Qwen3, untied": (
        Qwen3ForCausalLM,
        Qwen3Config,
        dict(
            hidden_size=56,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=16,
            intermediate_size=64,
            tie_word_embeddings=False,
        )
        | dict(rope_parameters=PLAIN),
    ),
}
SHARD = "60KB"  # so that every folder has several, and an index


def _state(model):
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module", params=THINKERS)
def thinker(request, tmp_path_factory):
    """(family, transformers' model, its folder)."""
    kind, config, sizes = THINKERS[request.param]
    torch.manual_seed(0)
    model = kind(config(**COMMON, **sizes)).eval()
    fill(model, len(request.param))
    folder = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder, max_shard_size=SHARD)
    assert (folder / "model.safetensors.index.json").exists()
    return request.param, model, folder


def _ragged():
    """Two rows of ids, the second shorter, right-padded; which are real."""
    ids = np.random.default_rng(0).integers(1, COMMON["vocab_size"], (2, 45))
    real = np.arange(45)[None] < np.array([[45], [28]])
    return np.where(real, ids, 0), real


def test_what_transformers_made(thinker):
    name, model, folder = thinker
    ids, real = _ragged()
    with torch.inference_mode():
        expected = model(
            torch.tensor(ids), attention_mask=torch.tensor(real.astype(np.int64))
        ).logits.numpy()
    for scan in (False, True):
        config, params = read_thinker_folder(folder, scan_layers=scan)
        logits = jax.jit(Thinker(config).apply)({"params": params}, ids)
        close(
            f"folder made by transformers: logits of {name}",
            np.asarray(logits)[real],
            expected[real],
            atol=1e-4,
        )


def test_generation(thinker):
    """Left-padded there, right-padded here."""
    name, model, folder = thinker
    ids, real = _ragged()
    ids, real = ids[:, 20:36], real[:, 20:36]  # 16 and 8
    order = np.argsort(real, axis=1, kind="stable")  # padding first
    left, mask = (
        torch.tensor(np.take_along_axis(a, order, axis=1).astype(np.int64)) for a in (ids, real)
    )
    with torch.inference_mode():
        expected = model.generate(
            left, attention_mask=mask, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW
        )[:, ids.shape[1] :]
    config, params = read_thinker_folder(folder)
    ours = Thinker(config)
    x = ours.apply({"params": params}, ids, method="embed")
    state = jit_extend(ours, params, empty_state(ours, 2, 40), x, jnp.asarray(real.sum(axis=1)))[1]
    out = jit_generate(
        ours, params, state, jax.random.split(jax.random.key(0), 2), stop_ids=(-1,), max_new=NEW
    )
    same(f"folder made by transformers: greedy tokens of {name}", out.tokens_BN, expected)


def test_what_we_export(thinker, tmp_path):
    name, model, folder = thinker
    config, params = read_thinker_folder(folder)
    export_thinker(tmp_path / "ours", config, params, How(shard_bytes=60_000))
    again, told = type(model).from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not any(told.values()), told
    before, after = _state(model), _state(again)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same(f"folder exported by us: weights of {name} in transformers", after[key], value)
    ids = _ragged()[0]
    with torch.inference_mode():
        logits, expected = (m.eval()(torch.tensor(ids)).logits.numpy() for m in (again, model))
    close(f"folder exported by us: logits of {name} in transformers", logits, expected, atol=0.0)
    config_again, params_again = read_thinker_folder(tmp_path / "ours")
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, params_again, params)


def test_half_the_bytes(tmp_path):
    """bfloat16, as published checkpoints are: read exactly, kept or widened as asked, written exactly."""
    kind, config, sizes = THINKERS["Qwen3, tied"]
    model = kind(config(**COMMON, **sizes)).eval()
    fill(model, 3)
    model = model.to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    wide = read_thinker_folder(tmp_path / "theirs")
    config, params = read_thinker_folder(tmp_path / "theirs", dtype=jnp.bfloat16)
    export_thinker(tmp_path / "ours", config, params)
    again = kind.from_pretrained(tmp_path / "ours", dtype="auto").eval()
    assert again.dtype == torch.bfloat16
    for key, tensor in model.state_dict().items():
        same(
            "folder exported by us: weights in bfloat16 in transformers",
            again.state_dict()[key].float(),
            tensor.float(),
        )
    ids = _ragged()[0]
    with torch.inference_mode():
        expected = (
            kind.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
            .eval()(torch.tensor(ids))
            .logits
        )
    close(
        "folder made by transformers: logits of bfloat16 weights",
        jax.jit(Thinker(wide[0]).apply)({"params": wide[1]}, ids),
        expected,
        atol=1e-4,
    )


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper(mels, tmp_path):
    sizes = dict(
        d_model=48,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=72,
        max_source_positions=60,
    )
    sizes |= dict(
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=56,
        vocab_size=50,
        max_target_positions=20,
        pad_token_id=0,
    )
    sizes |= dict(bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    model = WhisperForConditionalGeneration(WhisperConfig(num_mel_bins=mels, **sizes)).eval()
    fill(model, mels)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=SHARD)
    mel = torch.randn(2, mels, 120, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.model.encoder(mel).last_hidden_state
    for scan in (False, True):
        config, params = read_encoder_folder(tmp_path / "theirs", scan_layers=scan)
        states = jax.jit(SpeechEncoder(config).apply)(
            {"params": params}, mel.numpy().swapaxes(1, 2)
        )
        close(
            f"folder made by transformers: states of Whisper, {mels} mels",
            states,
            expected,
            atol=1e-4,
        )
    export_encoder(
        tmp_path / "ours", config, params, How(companions=tmp_path / "theirs", shard_bytes=60_000)
    )
    again, told = WhisperModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert (
        all(name.startswith("decoder.") for name in told["missing_keys"])
        and not told["unexpected_keys"]
    )
    before, after = _state(model.model.encoder), _state(again.encoder)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same(
            f"folder exported by us: weights of Whisper, {mels} mels, in transformers",
            after[key],
            value,
        )
    with torch.inference_mode():
        states = again.eval().encoder(mel).last_hidden_state
    close(
        f"folder exported by us: states of Whisper, {mels} mels, in transformers",
        states,
        expected,
        atol=0.0,
    )
