"""The S3 tokenizer against golden arrays of the reference, at full size by shape, and rows in
batches against themselves alone.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from measured import close, same, same_shapes

from mdmspeech.audio import features
from mdmspeech.audio.features import s3_log_mel
from mdmspeech.audio.mel import mel_filters
from mdmspeech.codec import fsq
from mdmspeech.codec.cosyvoice2.s3_speech import S3Tokenizer, join, windows
from mdmspeech.codec.cosyvoice2.s3_tokenizer import S3Config, S3Network, token_count, token_ids
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_tokenizer import (
    load_s3_tokenizer,
    s3_config,
    s3_params,
    s3_rules,
    s3_shapes,
)
from mdmspeech.speech_format import CODES

FIXTURES = Path(__file__).parents[2] / "fixtures"
COSYVOICE2, GOLDEN = FIXTURES / "cosyvoice2", FIXTURES / "golden"
_mel = jax.jit(s3_log_mel, static_argnums=2)
_alone = jax.jit(lambda wave: features.whisper_log_mel(wave, 128, end="reflect"))
_ids = jax.jit(token_ids, static_argnums=0)


@pytest.fixture(scope="module")
def waveform():
    return np.load(GOLDEN / "waveform.npz")["in.wav_16k"]


@pytest.fixture(scope="module")
def golden():
    return np.load(COSYVOICE2 / "s3_tokenizer_v2.npz")


@pytest.fixture(scope="module")
def published():
    """(config, parameters) of the golden model, whose heads are smaller than those of the published
    one.
    """
    sizes = json.loads((COSYVOICE2 / "s3_tokenizer_v2.json").read_text())["config"]
    return load_s3_tokenizer(
        COSYVOICE2 / "s3_tokenizer_v2.safetensors", sizes["n_audio_state"] // sizes["n_audio_head"]
    )


@pytest.fixture(scope="module")
def tokenizer(published):
    return S3Tokenizer(*published)


def _assert_same(name, rows, expected):
    """Equal lengths, and equal ids but for 0.2 %: where nobody kept the latents away from a
    boundary, noise may round one of them over it.
    """
    assert [len(ids) for ids in rows] == [len(ids) for ids in expected]
    same(name, np.concatenate(rows), np.concatenate(expected), share=0.002)


@pytest.mark.parity
def test_log_mel(waveform):
    golden = np.load(GOLDEN / "s3_logmel.npz")
    for num_mels in (80, 128):
        filters = mel_filters(16_000, 400, num_mels).T
        close(
            f"s3_logmel out.filters{num_mels}", filters, golden[f"out.filters{num_mels}"], atol=1e-7
        )
    padded = np.pad(waveform, (0, 4000))
    for wave, key, last in (
        (waveform, "mel128.out.mel", 300),
        (padded, "padded.out.mel_last40", 40),
    ):
        mel = _mel(wave[None], jnp.array([len(wave)]), 128)
        assert mel.shape == (1, len(wave) // 160, 128)
        close(f"s3_logmel {key}", mel[0, -last:].T, golden[key], atol=1e-4)


@pytest.mark.parity
def test_log_mel_of_ragged_rows_equals_rows_alone(waveform):
    """What stands behind a row's end is louder than the row, and is not seen."""
    lengths = np.array([16_000, 15_999, 201])
    batch = np.full((3, 17_000), 3.0, np.float32)
    rows = [waveform[4_000 * i : 4_000 * i + n] * 0.1**i for i, n in enumerate(lengths)]
    for b, row in enumerate(rows):
        batch[b, : len(row)] = row
    mel = _mel(batch, lengths, 128)
    assert mel.shape == (3, 106, 128)
    for b, row in enumerate(rows):
        alone = _alone(row[None])[0]
        close("ragged rows equal single rows: S3 log-mel", mel[b, : len(alone)], alone, atol=1e-5)
        np.testing.assert_array_equal(mel[b, len(alone) :], 0)


@pytest.mark.parity
def test_golden_activations(golden, published):
    config, params = published
    apply = jax.jit(
        lambda mel, frames: S3Network(config).apply(
            {"params": params}, mel, frames, capture_intermediates=True
        )
    )
    latents, state = apply(golden["in.mel"].swapaxes(1, 2), golden["in.mel_len"])
    inside = {
        name: outputs["__call__"][0]
        for name, outputs in state["intermediates"].items()
        if "__call__" in outputs
    }
    found = {
        "conv_features": inside["front"],
        "block0": inside["layer_0"],
        "hidden": inside["layer_2"],
        "pre_quant": latents,
    }
    for name, value in found.items():
        close(f"s3_tokenizer_v2 out.{name}", value, golden[f"out.{name}"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parity
def test_golden_ids(golden, published, tokenizer):
    config, params = published
    mel, frames = golden["in.mel"].swapaxes(1, 2), golden["in.mel_len"]
    same("s3_tokenizer_v2 out.ids_len", token_count(frames), golden["out.ids_len"])
    ids = _ids(config, params, mel, frames)
    assert ids.dtype == jnp.int32
    for row, (length, count) in enumerate(zip(frames, golden["out.ids_len"], strict=True)):
        # far from every boundary
        assert (
            np.abs(np.abs(0.999 * np.tanh(golden["out.pre_quant"][row, :count])) - 0.5).min() > 1e-4
        )
        same("s3_tokenizer_v2 out.ids", ids[row, :count], golden["out.ids"][row, :count])
        np.testing.assert_array_equal(ids[row, count:], 0)
        alone = _ids(config, params, mel[row : row + 1, :length], frames[row : row + 1])
        same(f"s3_tokenizer_v2 single{row}.out.ids", alone, golden[f"single{row}.out.ids"])
    for row, found in enumerate(
        tokenizer.encode_mels([mel[row, :length] for row, length in enumerate(frames)])
    ):
        same(f"s3_tokenizer_v2 single{row}.out.ids", found, golden[f"single{row}.out.ids"][0])


def test_golden_ids_from_golden_latents(golden):
    count = golden["out.ids_len"][1]
    for row, upto in ((0, None), (1, count)):
        ids = fsq.codes_to_ids(fsq.quantise(golden["out.pre_quant"][row, :upto]))
        np.testing.assert_array_equal(ids, golden["out.ids"][row, :upto])


@pytest.mark.parity
def test_golden_long_audio(tokenizer):
    golden = np.load(COSYVOICE2 / "s3_tokenizer_v2_long.npz")
    period_TM, lengths = golden["in.mel_period"].T, golden["in.mel_len"]
    frame = np.arange(lengths.max())
    mel_TM = (
        period_TM[frame % len(period_TM)]
        * (1 + 0.5 * np.sin(frame / 97)).astype(np.float32)[:, None]
    )
    expected = [
        ids[:count] for ids, count in zip(golden["out.ids"], golden["out.ids_len"], strict=True)
    ]
    found = tokenizer.encode_mels([mel_TM[:length] for length in lengths])
    same("s3_tokenizer_v2_long out.ids_len", [len(ids) for ids in found], golden["out.ids_len"])
    _assert_same("s3_tokenizer_v2_long out.ids", found, expected)


@pytest.mark.parity
def test_rows_in_any_batch_equal_rows_alone(tokenizer):
    """Five rows in three padded lengths, one of them in windows."""
    rng = np.random.default_rng(0)
    mels = [rng.normal(size=(length, 128)).astype(np.float32) for length in (1, 37, 3100, 199, 350)]
    together = tokenizer.encode_mels(mels)
    assert [len(ids) for ids in together] == [1, 10, 775, 50, 88]
    _assert_same(
        "ragged rows equal single rows: S3 tokens of mels",
        together,
        [tokenizer.encode_mels([mel_TM])[0] for mel_TM in mels],
    )


@pytest.mark.parity
def test_padding_influences_nothing(published):
    """A masked row has the latents it has alone, although what stands behind it is anything but zero."""
    rng = np.random.default_rng(1)
    apply = jax.jit(S3Network(published[0]).apply)
    noisy = 1 + rng.normal(size=(2, 120, 128)).astype(np.float32)
    latents = apply({"params": published[1]}, noisy, jnp.array([37, 120]))
    alone = apply({"params": published[1]}, noisy[:1, :37], jnp.array([37]))
    close("ragged rows equal single rows: S3 latents", latents[0, :10], alone[0], atol=1e-4)


@pytest.mark.parity
def test_waves(waveform, tokenizer):
    """The whole way, in a batch of different lengths and alone."""
    waves = [waveform, waveform[:9_999], waveform[:201], np.tile(waveform, 11)]
    together = tokenizer.encode(waves)
    assert [len(ids) for ids in together] == [75, 16, 1, 825]
    assert all(ids.dtype == np.int32 and ids.min() >= 0 and ids.max() < CODES for ids in together)
    _assert_same(
        "ragged rows equal single rows: S3 tokens of waves",
        together,
        [tokenizer.encode([wave])[0] for wave in waves],
    )


def test_windows_cover_everything_once():
    """Every length gives ceil(frames / 4) tokens, each from the window in which it lies farthest
    from an edge.
    """
    for frames in (1, 400, 3000, 3001, 3350, 5199, 5210, 5599, 5600, 5601, 7000, 60_001):
        pieces = windows(frames)
        assert (
            pieces[0][0] == 0
            and pieces[-1][1] == frames
            and all(end - start <= 3000 for start, end in pieces)
        )
        ids = join([np.arange(start // 4, token_count(end)) for start, end in pieces])
        np.testing.assert_array_equal(ids, np.arange(token_count(frames)))
    assert windows(3350) == [(0, 3000), (2600, 3350)]


@pytest.mark.parity
def test_full_size_manifest():
    """Every tensor of the published model has a place of its exact shape, and every parameter a
    tensor; nothing is allocated.
    """
    manifest = json.loads((COSYVOICE2 / "manifests" / "s3_tokenizer_v2.json").read_text())
    config, shapes = S3Config(), s3_shapes(S3Config())
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict(shapes).items()}
    rules = s3_rules(config)
    ours = {
        r.name: [flat[r.path][r.axes.index(i)] for i in range(len(r.axes))]
        if r.axes
        else list(flat[r.path])
        for r in rules
    }
    same_shapes(
        "manifest s3_tokenizer_v2",
        ours,
        {name: tensor["shape"] for name, tensor in manifest["tensors"].items()},
    )
    assert len(rules) == len(flat) == manifest["number_of_tensors"]
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(shapes))
        == manifest["total_parameters"]
        == 123_714_568
    )
    stand_ins = {
        name: jax.ShapeDtypeStruct(tensor["shape"], np.float32)
        for name, tensor in manifest["tensors"].items()
    }
    assert s3_config(stand_ins, "manifest") == config
    published = manifest["config"]
    assert (config.num_mels, config.dim, config.num_heads, config.num_layers, CODES) == tuple(
        published[key]
        for key in ("n_mels", "n_audio_state", "n_audio_head", "n_audio_layer", "n_codebook_size")
    )


def test_bad_input_is_named(published, tokenizer):
    config, _ = published
    with pytest.raises(
        UserError, match="wave 1 has 200 samples at 16 kHz; the S3 tokenizer needs more than 200"
    ):
        tokenizer.encode([np.zeros(300, np.float32), np.zeros(200, np.float32)])
    with pytest.raises(
        UserError, match=r"wave 0 is int16 \[300\]; the S3 tokenizer takes mono float"
    ):
        tokenizer.encode([np.zeros(300, np.int16)])
    with pytest.raises(UserError, match="takes 128 mel bins, got 80"):
        tokenizer.encode_mels([np.zeros((8, 80), np.float32)])
    tensors = {
        rule.name: np.zeros(1) for rule in s3_rules(config) if rule.name != "encoder.conv1.bias"
    }
    with pytest.raises(
        UserError, match=r"my file does not fit its config: 1 missing \(encoder\.conv1\.bias\)"
    ):
        s3_params(config, tensors, "my file")
    assert tokenizer.encode([]) == []
