"""Hugging Face folders written here: read back bit by bit, complete or absent, and honest about
their layout.
"""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
from encoder_folder import read_encoder_folder

from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.export import (
    How,
    complete_or_absent,
    export_encoder,
    export_thinker,
    refuse_existing,
    write_opened,
)
from mdmspeech.interop.huggingface import (
    LAYOUT,
    STAMP,
    encoder_config,
    encoder_json,
    encoder_params,
    read_thinker_folder,
    thinker_config,
    thinker_json,
    thinker_params,
)
from mdmspeech.interop.tensors import INDEX, read_tensors
from mdmspeech.models.speech_encoder import WHISPER_BASE, WHISPER_LARGE_V3
from mdmspeech.models.thinker import LLAMA32_1B, QWEN3_06B, QWEN3_8B, SMOLLM2_135M
from mdmspeech.training.mesh import make_mesh, param_shardings

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def _thinker(kind, dtype=np.float32, **overrides):
    name = "hf_llama3" if kind == "llama" else f"hf_{kind}"
    hf = json.loads((GOLDEN / f"{name}.json").read_text())["config"]["hf_config"]
    config = thinker_config({"model_type": kind, **hf}, **overrides)
    return config, thinker_params(
        config, read_tensors(GOLDEN / f"{name}.safetensors"), kind, dtype=dtype
    )


def _encoder():
    config = encoder_config(
        json.loads((GOLDEN / "hf_whisper128.json").read_text())["config"]["hf_config"]
    )
    return config, encoder_params(
        config, read_tensors(GOLDEN / "hf_whisper128.safetensors"), "whisper"
    )


def _equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("scan", [False, True])
def test_a_thinker_comes_back_bit_by_bit(tmp_path, kind, scan):
    config, params = _thinker(kind, ml_dtypes.bfloat16, scan_layers=scan)
    export_thinker(tmp_path / "out", config, params, How(shard_bytes=60_000))
    shards = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert (
        len(shards) > 2
        and shards[-1] == f"model-{len(shards):05d}-of-{len(shards):05d}.safetensors"
    )
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    back, read = read_thinker_folder(tmp_path / "out", dtype=ml_dtypes.bfloat16, scan_layers=scan)
    assert back == config
    _equal(read, params)
    assert not (tmp_path / "out.part").exists()


def test_an_encoder_comes_back_bit_by_bit(tmp_path):
    config, params = _encoder()
    export_encoder(tmp_path / "out", config, params)
    back, read = read_encoder_folder(tmp_path / "out")
    assert back == config
    _equal(read, params)
    assert (
        json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["feature_size"]
        == 128
    )


def test_parameters_on_eight_devices_go_out_and_come_in(tmp_path):
    config, params = _thinker("qwen2", scan_layers=True)
    places = param_shardings(make_mesh(2, 2, 2), params)
    export_thinker(tmp_path / "out", config, jax.device_put(params, places))
    _, read = read_thinker_folder(tmp_path / "out", scan_layers=True, shardings=places)
    _equal(read, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, read) == places
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(read))


@pytest.mark.parametrize("config", [SMOLLM2_135M, QWEN3_06B, QWEN3_8B, LLAMA32_1B])
def test_config_json_is_the_inverse(config):
    back = thinker_config(
        json.loads(json.dumps(thinker_json(config))), scan_layers=config.scan_layers
    )
    assert dict(back.rope_scaling or ()) == dict(config.rope_scaling or ())
    assert dataclasses.replace(back, rope_scaling=config.rope_scaling) == config


@pytest.mark.parametrize("config", [WHISPER_BASE, WHISPER_LARGE_V3])
def test_config_json_of_an_encoder_is_the_inverse(config):
    assert encoder_config(encoder_json(config), scan_layers=config.scan_layers) == config


def test_small_files_and_what_our_config_lacks_are_kept(tmp_path):
    config, params = _thinker("qwen3")
    export_thinker(tmp_path / "a", config, params, How(origin="the first"))
    about = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(
        json.dumps({**about, "max_position_embeddings": 4711, "eos_token_id": [3, 5]})
    )
    for name in ("tokenizer.json", "chat_template.jinja", "stranger.py"):
        (tmp_path / "a" / name).write_text(name)
    write_opened(tmp_path / "b", sources.open_thinker(tmp_path / "a"), How(ml_dtypes.bfloat16))
    written = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (written["max_position_embeddings"], written["eos_token_id"]) == (4711, [3, 5])
    assert written["torch_dtype"] == "bfloat16" and written[STAMP] == {
        "layout": LAYOUT,
        "part": "thinker",
        "origin": "folder a",
    }
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "tokenizer.json"
    assert (tmp_path / "b" / "chat_template.jinja").exists() and not (
        tmp_path / "b" / "stranger.py"
    ).exists()
    assert "from: folder a" in (tmp_path / "b" / "README.md").read_text()


def test_nothing_is_left_of_an_export_that_fails_and_nothing_is_replaced_unasked(tmp_path):
    config, params = _thinker("qwen2")
    export_thinker(tmp_path / "out", config, params)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        export_thinker(tmp_path / "out", config, params)

    def fails(folder):
        assert (folder / "config.json").exists()
        raise UserError("no good")

    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    with pytest.raises(UserError, match="no good"):
        export_thinker(tmp_path / "out", config, doubled, How(force=True, check=fails))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    export_thinker(tmp_path / "out", config, doubled, How(force=True))
    _equal(read_thinker_folder(tmp_path / "out")[1], doubled)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no model folder and is not replaced"):
        export_thinker(tmp_path / "mine", config, params, How(force=True))


def _folder(path: Path, config: dict | None, *others: str) -> Path:
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    for name in others:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("years of work")
    return path


_MODEL = {"model_type": "qwen2"}


@pytest.mark.parametrize(
    ("config", "others"),
    [
        ({"stage": "talker", "talker": {}}, ("checkpoints/100/state",)),
        (_MODEL, ("checkpoints/100/state",)),
        ({"stage": "talker"}, ()),
        ({"format": "mdmspeech-release", "parts": {}}, ("thinker/config.json",)),
        ({**_MODEL, "format": "mdmspeech-release"}, ("codec.safetensors",)),
        ({}, ("thesis.tex",)),
        (_MODEL, ("model.safetensors", "thesis.tex")),
        (_MODEL, ("model.safetensors", "notes.txt")),
        (_MODEL, ("model.safetensors", "thinker/model.safetensors")),
        (_MODEL, (".git/HEAD",)),
        ({"model_type": 5}, ()),
        (None, ("model.safetensors",)),
    ],
)
def test_only_a_model_folder_and_nothing_else_is_replaced(config, others, tmp_path):
    there = _folder(tmp_path / "there", config, *others)
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no model folder and is not replaced"):
        refuse_existing(there, force=True)
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "others",
    [
        (),
        (
            "model.safetensors",
            "tokenizer.json",
            "LICENSE",
            ".gitattributes",
            "additional_chat_templates/tool.jinja",
        ),
    ],
)
def test_a_model_folder_is_replaced(others, tmp_path):
    there = _folder(tmp_path / "there", _MODEL, *others)
    assert refuse_existing(there, force=True) == there
    with complete_or_absent(there, force=True) as part:
        (part / "new").write_text("")
    assert [path.name for path in there.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    "source",
    [
        "there",
        "there/model.gguf",
        "there/../there",
        "link",
        "link/model.gguf",
        "there/additional_chat_templates",
    ],
)
def test_a_destination_never_holds_what_is_read(source, tmp_path):
    there = _folder(tmp_path / "there", _MODEL, "additional_chat_templates/tool.jinja")
    (tmp_path / "link").symlink_to(there)
    (there / "model.gguf").write_text("")
    with pytest.raises(UserError, match=r"destination is the source|stands inside"):
        refuse_existing(there, True, (None, tmp_path / source))
    assert (there / "config.json").is_file()
    assert (
        refuse_existing(tmp_path / "other", True, (None, tmp_path / source)) == tmp_path / "other"
    )


@pytest.mark.parametrize("suffix", [".part", ".old"])
def test_what_stands_beside_the_destination_stays(suffix, tmp_path):
    config, params = _thinker("qwen2")
    beside = _folder(tmp_path / f"out{suffix}", None, "thesis.tex")
    with pytest.raises(UserError, match=f"out{suffix} is in the way"):
        export_thinker(tmp_path / "out", config, params)
    assert (beside / "thesis.tex").read_text() == "years of work" and not (
        tmp_path / "out"
    ).exists()


def test_a_tokenizer_that_is_none_is_told_before_anything_is_written(tmp_path):
    config, params = _thinker("qwen2")
    empty = _folder(tmp_path / "empty", _MODEL)
    for where in (empty, tmp_path / "nowhere", ""):
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            export_thinker(tmp_path / "out", config, params, How(companions=where))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_full_disk_and_a_place_that_cannot_be(tmp_path, monkeypatch):
    config, params = _thinker("qwen2")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .* is a file, not a folder"):
        export_thinker(tmp_path / "file" / "out", config, params)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"0\.0 GB left"):
        export_thinker(tmp_path / "out", config, params)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_parameters_of_another_config_are_refused(tmp_path):
    config, params = _thinker("qwen3")
    with pytest.raises(UserError, match="not those of the config"):
        export_thinker(tmp_path / "out", dataclasses.replace(config, ffn_dim=8), params)
    with pytest.raises(UserError, match="both biases and norms"):
        thinker_json(dataclasses.replace(config, qkv_bias=True))
    assert not list(tmp_path.iterdir())


def test_other_layouts_are_refused_with_their_cure(tmp_path):
    config, params = _thinker("qwen3")
    export_thinker(tmp_path / "a", config, params)
    about = json.loads((tmp_path / "a" / "config.json").read_text())
    for layout, message in (
        (LAYOUT - 1, "mdmspeech convert .*a NEW_FOLDER"),
        (LAYOUT + 1, "update mdmspeech"),
        ("x", "never wrote"),
    ):
        (tmp_path / "a" / "config.json").write_text(
            json.dumps({**about, STAMP: {"layout": layout}})
        )
        with pytest.raises(UserError, match=message):
            read_thinker_folder(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(
        json.dumps({**about, STAMP: {"layout": LAYOUT - 1}})
    )
    write_opened(tmp_path / "b", sources.open_any(tmp_path / "a", upgrade=True))
    _equal(read_thinker_folder(tmp_path / "b")[1], params)
