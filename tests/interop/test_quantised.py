"""Weights in fewer bits: FP8 is what its definition says, number by number; everything else is
named with what to take instead.
"""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from encoder_folder import read_encoder_folder

from mdmspeech.cli import convert, main
from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.huggingface import read_thinker_folder
from mdmspeech.interop.quantised import Dequantised
from mdmspeech.interop.tensors import WHOLE, open_tensors, pieces, read_tensors, write_tensors

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
HF = {
    "model_type": "qwen3",
    **json.loads((GOLDEN / "hf_qwen3.json").read_text())["config"]["hf_config"],
}
WHISPER = {
    "model_type": "whisper",
    **json.loads((GOLDEN / "hf_whisper80.json").read_text())["config"]["hf_config"],
}
F8 = ml_dtypes.float8_e4m3fn
PROJECTION = "model.layers.0.self_attn.q_proj.weight"


def _tensors():
    return read_tensors(GOLDEN / "hf_qwen3.safetensors")


def _folder(path, tensors, hf=HF, **settings):
    path.mkdir(exist_ok=True)
    write_tensors(path / WHOLE, tensors)
    (path / "config.json").write_text(
        json.dumps(hf | ({"quantization_config": settings} if settings else {}))
    )
    return path


def _is_matrix(name, value):
    return value.ndim == 2 and "layers" in name


def _by_block(tensors, block, ending="weight_scale_inv", kind=np.float32):
    """As DeepSeek-V3 and Qwen3-FP8 are stored: the largest of each block of a matrix is 448. ->
    (stored, what it means).
    """
    stored, meant = dict(tensors), dict(tensors)
    for name, value in tensors.items():
        if not _is_matrix(name, value):
            continue
        scale = np.zeros([-(-n // b) for n, b in zip(value.shape, block, strict=True)], kind)
        quantised, whole = np.zeros(value.shape, F8), np.zeros(value.shape, np.float32)
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                part = np.s_[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
                scale[i, j] = np.abs(value[part]).max() / 448
                quantised[part] = (value[part] / np.float32(scale[i, j])).astype(F8)
                whole[part] = quantised[part].astype(np.float32) * np.float32(scale[i, j])
        stored[name], stored[name.replace("weight", ending)], meant[name] = quantised, scale, whole
    return stored, meant


@pytest.mark.parametrize(
    ("block", "kind"),
    [((8, 16), np.float32), ((16, 5), ml_dtypes.bfloat16), ((128, 128), np.float32)],
)
def test_fp8_by_blocks(tmp_path, block, kind):
    """Blocks that divide the matrices and blocks that do not; 5 % of a block's largest weight is
    the most that may be lost.
    """
    tensors = _tensors()
    stored, meant = _by_block(tensors, block, kind=kind)
    folder = _folder(
        tmp_path / "m",
        stored,
        quant_method="fp8",
        weight_block_size=list(block),
        activation_scheme="dynamic",
    )
    opened = sources.open_thinker(folder)
    for name, value in meant.items():
        np.testing.assert_array_equal(np.asarray(opened.tensors[name]), value)
        assert np.abs(value - tensors[name]).max() <= 0.05 * np.abs(tensors[name]).max()
    _, params = read_thinker_folder(folder)
    got = params["layers"]["0"]["attn"]["q"]["kernel"]
    np.testing.assert_array_equal(got, meant[PROJECTION].T)
    rows = [(at, rows) for at, rows in pieces(opened.tensors[PROJECTION], 3, 11, size=1)]
    assert [at for at, _ in rows] == list(range(3, 11))
    np.testing.assert_array_equal(np.concatenate([r for _, r in rows]), meant[PROJECTION][3:11])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), ("rows",), ("rows", 1)])
@pytest.mark.parametrize("method", ["compressed-tensors", "fbgemm_fp8", None])
def test_fp8_by_rows_and_tensors(tmp_path, shape, method):
    stored = dict(_tensors())
    rng, meant = np.random.default_rng(0), {}
    for name, value in _tensors().items():
        if _is_matrix(name, value):
            scale = rng.uniform(
                0.5, 2, [value.shape[0] if n == "rows" else n for n in shape]
            ).astype(np.float32)
            stored[name] = value.astype(F8)
            stored[name + "_scale"], stored[name.replace("weight", "input_scale")] = (
                scale,
                np.ones(1, np.float32),
            )
            meant[name] = stored[name].astype(np.float32) * scale.reshape(-1, 1)
    folder = _folder(
        tmp_path / "m",
        stored,
        **({} if method is None else {"quant_method": method, "format": "float-quantized"}),
    )
    opened = sources.open_thinker(folder)
    for name, value in meant.items():
        np.testing.assert_array_equal(np.asarray(opened.tensors[name]), value)


def test_fp8_whisper_and_conversion(tmp_path, capsys):
    """An encoder as well; and what `convert` writes is the plain float32 model."""
    stored, meant = _by_block(read_tensors(GOLDEN / "hf_whisper80.safetensors"), (16, 16))
    params = read_encoder_folder(
        _folder(tmp_path / "w", stored, WHISPER, quant_method="fp8", weight_block_size=[16, 16])
    )[1]
    np.testing.assert_array_equal(
        params["layers"]["0"]["mlp"]["fc1"]["kernel"], meant["layers.0.fc1.weight"].T
    )
    stored, meant = _by_block(_tensors(), (8, 16))
    folder = _folder(tmp_path / "m", stored, quant_method="fp8", weight_block_size=[8, 16])
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 0
    for name, value in read_tensors(tmp_path / "out").items():
        np.testing.assert_array_equal(value, meant[name])
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_fp8_bytes_come_from_the_file_as_they_are(tmp_path):
    values = {
        "a": np.arange(7, dtype=np.float32),
        "w": np.arange(256, dtype=np.uint8).view(F8).reshape(8, 32),
        "s": np.float32(2).reshape(()),
    }
    write_tensors(tmp_path / WHOLE, values)
    found = open_tensors(tmp_path / WHOLE)["w"]
    np.testing.assert_array_equal(np.asarray(found).view(np.uint8), values["w"].view(np.uint8))
    np.testing.assert_array_equal(found[2:5].view(np.uint8), values["w"][2:5].view(np.uint8))


@pytest.mark.parametrize("shape", [(2,), (16, 16), (3, 3), (1, 16), (0,), (2, 2, 2)])
def test_fp8_scales_that_do_not_fit(shape):
    with pytest.raises(UserError, match="which are not one a block of"):
        Dequantised(np.zeros((32, 16), F8), np.ones(shape, np.float32), (128, 128), "w")


def test_fp8_scales_that_are_no_numbers():
    with pytest.raises(UserError, match="scales that are no numbers"):
        np.asarray(
            Dequantised(np.zeros((4, 4), F8), np.array([np.nan], np.float32), (128, 128), "w")
        )


def _renamed(changes):
    """The golden tensors with one projection taken apart: ending -> array."""
    tensors = _tensors()
    rows, columns = tensors.pop(PROJECTION).shape
    stem = PROJECTION.removesuffix(".weight")
    return tensors | {
        stem + ending: np.zeros([{"o": rows, "i": columns}.get(n, n) for n in shape], kind)
        for ending, (shape, kind) in changes.items()
    }


W8 = {".weight": ("oi", np.int8)}
KINDS = {
    "int8 without scales": (
        W8,
        {},
        r"1 weights that are whole numbers \(int8: .*q_proj\.weight\) without scales",
    ),
    "uint8 without scales": ({".weight": ("oi", np.uint8)}, {}, "whole numbers .uint8"),
    "int32": ({".weight": ("oi", np.int32)}, {}, "whole numbers .int32"),
    "int8 with scales": (
        {**W8, ".weight_scale": (("o", 1), np.float32)},
        {},
        "with scales of a kind that is not read here",
    ),
    "bitsandbytes 8": (
        {**W8, ".SCB": (("o",), np.float32)},
        {"load_in_8bit": True},
        "bitsandbytes .8 bits.",
    ),
    "bitsandbytes 8, config lost": (
        {**W8, ".SCB": (("o",), np.float32)},
        {},
        "bitsandbytes .8 bits.",
    ),
    "bitsandbytes 4": (
        {
            ".weight": ((64, 1), np.uint8),
            ".weight.absmax": ((8,), np.float32),
            ".weight.quant_map": ((16,), np.float32),
        },
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "bitsandbytes .4 bits.",
    ),
    "GPTQ": (
        {
            ".qweight": ((4, "o"), np.int32),
            ".qzeros": ((1, 4), np.int32),
            ".scales": ((1, "o"), np.float16),
            ".g_idx": (("i",), np.int32),
        },
        {"quant_method": "gptq", "bits": 4},
        "quantised by GPTQ,",
    ),
    "AWQ": (
        {
            ".qweight": (("i", 4), np.int32),
            ".qzeros": ((1, 4), np.int32),
            ".scales": ((1, "o"), np.float16),
        },
        {"quant_method": "awq", "bits": 4},
        "quantised by AWQ or GPTQ,",
    ),
    "AWQ, config lost": (
        {".qweight": (("i", 4), np.int32), ".scales": ((1, "o"), np.float16)},
        {},
        "AWQ or GPTQ",
    ),
    "compressed-tensors, int4": (
        {
            ".weight_packed": (("o", 4), np.int32),
            ".weight_scale": (("o", 1), np.float16),
            ".weight_shape": ((2,), np.int64),
        },
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        "compressed-tensors .packed.",
    ),
    "compressed-tensors, int8": (
        {**W8, ".weight_scale": (("o", 1), np.float32)},
        {"quant_method": "compressed-tensors", "format": "int-quantized"},
        "quantised by compressed-tensors,",
    ),
    "zero points": ({**W8, ".weight_zero_point": (("o", 1), np.int8)}, {}, "with zero points"),
    "NVFP4": (
        {
            ".weight": (("o", 4), np.uint8),
            ".weight_scale": (("o", 1), F8),
            ".weight_scale_2": ((), np.float32),
        },
        {"quant_method": "modelopt"},
        "NVFP4",
    ),
    "MXFP4": (
        {"_blocks": (("o", 4), np.uint8), "_scales": (("o", 1), np.uint8)},
        {"quant_method": "mxfp4"},
        "MXFP4",
    ),
    "HQQ": (
        {".W_q": (("o", 4), np.uint8), ".meta": ((1,), np.float32)},
        {"quant_method": "hqq"},
        "HQQ",
    ),
    "AQLM": (
        {".codes": (("o", 4), np.int8), ".codebooks": ((1,), np.float16)},
        {"quant_method": "aqlm"},
        "AQLM",
    ),
    "something new": (W8, {"quant_method": "tomorrow"}, "quantised by tomorrow,"),
    "FP8 without scales": (
        {".weight": ("oi", F8)},
        {},
        "without the scales that say what it means",
    ),
    "FP8, scales lost": ({".weight": ("oi", F8)}, {"quant_method": "fp8"}, "without the scales"),
    "settings of another kind": (
        {".weight": ("oi", F8)},
        {"quant_method": "fp8", "weight_block_size": "128"},
        "'128' for the size of FP8 blocks",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_are_not_read_are_named_with_what_is(tmp_path, capsys, kind):
    changes, settings, message = KINDS[kind]
    changes = {ending: (tuple(shape), dtype) for ending, (shape, dtype) in changes.items()}
    folder = _folder(tmp_path / "m", _renamed(changes), **settings)
    for read in (sources.open_thinker, read_thinker_folder, sources.open_any):
        with pytest.raises(UserError, match=message) as refused:
            read(folder)
        assert kind.startswith("settings") or (
            "original repository" in str(refused.value) and ".gguf" in str(refused.value)
        )
    assert main(["convert", str(folder), str(tmp_path / "out"), "--check"]) == 2
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [3, "gptq", [1]])
def test_settings_that_are_no_object(tmp_path, value):
    with pytest.raises(UserError, match="quantization_config is no JSON object"):
        sources.open_thinker(
            _folder(tmp_path / "m", _tensors(), HF | {"quantization_config": value})
        )


def test_settings_that_were_left_behind_do_not_matter(tmp_path):
    """Merged and saved again in bfloat16, with the quantised base's config.json."""
    opened = sources.open_thinker(
        _folder(tmp_path / "m", _tensors(), quant_method="bitsandbytes", load_in_4bit=True)
    )
    np.testing.assert_array_equal(np.asarray(opened.tensors[PROJECTION]), _tensors()[PROJECTION])


FAULTS = {
    "a matrix of another layer": lambda t: t | {PROJECTION: t[PROJECTION.replace("0", "1")]},
    "rows in another order": lambda t: t | {PROJECTION: t[PROJECTION][::-1]},
    "a hundredth too large": lambda t: (
        t | {"model.norm.weight": t["model.norm.weight"] * np.float32(1.01)}
    ),
    "not a number": lambda t: (
        t | {"model.norm.weight": t["model.norm.weight"] * np.float32(np.nan)}
    ),
    "all zero": lambda t: {name: 0 * value for name, value in t.items()},
    "another sign": lambda t: t | {n: -t[n] for n in ("model.layers.1.mlp.down_proj.weight",)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_of_a_conversion_finds_wrong_weights(tmp_path, fault):
    """What was written is altered before it is compared."""
    base = sources.open_any(_folder(tmp_path / "base", _tensors()))
    convert._check(base, None, True, _folder(tmp_path / "right", _tensors()))
    with pytest.raises(UserError, match="nothing was written"):
        convert._check(
            base,
            None,
            True,
            _folder(
                tmp_path / "wrong",
                {n: np.ascontiguousarray(v) for n, v in FAULTS[fault](_tensors()).items()},
            ),
        )


def test_a_source_that_computes_nothing_is_no_proof(tmp_path, capsys):
    """Garbage compared with itself: a model whose outputs are all zero, or no numbers, is the same
    as itself.
    """
    for name, factor in (("zero", 0.0), ("nan", np.nan)):
        folder = _folder(
            tmp_path / name, {n: (v * factor).astype(np.float32) for n, v in _tensors().items()}
        )
        assert main(["convert", str(folder), str(tmp_path / "out"), "--check"]) == 2
        assert "outputs" in capsys.readouterr().err and not (tmp_path / "out").exists()
