"""Model folders that are broken or built to harm: one clear error each, nothing executed, nothing
large allocated.
"""

import json
import os
import pickle
import resource
import shutil
import struct
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from encoder_folder import read_encoder_folder

from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.huggingface import (
    encoder_config,
    read_thinker_folder,
    thinker_config,
    thinker_params,
)
from mdmspeech.interop.tensors import INDEX, WHOLE, open_tensors, read_tensors, write_tensors

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
HF = {
    "model_type": "qwen3",
    **json.loads((GOLDEN / "hf_qwen3.json").read_text())["config"]["hf_config"],
}
WHISPER = {
    "model_type": "whisper",
    **json.loads((GOLDEN / "hf_whisper80.json").read_text())["config"]["hf_config"],
}


@pytest.fixture
def folder(tmp_path):
    """A good folder of two shards."""
    tensors = read_tensors(GOLDEN / "hf_qwen3.safetensors")
    names = sorted(tensors)
    for file, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        write_tensors(tmp_path / file, {name: tensors[name] for name in part})
    _index(tmp_path, {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(names)})
    (tmp_path / "config.json").write_text(json.dumps(HF))
    return tmp_path


def _index(folder, where):
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))


def _where(folder):
    return json.loads((folder / INDEX).read_text())["weight_map"]


def test_the_good_folder_is_read(folder):
    read_thinker_folder(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "sub/c.safetensors",
        "..\\c.safetensors",
        "c.bin",
        "",
        "..",
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(folder, name):
    _index(folder, {**_where(folder), "model.norm.weight": name})
    with pytest.raises(UserError, match=r"which is no \.safetensors file beside it"):
        read_thinker_folder(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        "{",
        '{"weight_map":' * 99_999,
    ],
)
def test_broken_indices(folder, text):
    (folder / INDEX).write_text(text)
    with pytest.raises(UserError, match=r"instead of an object|no weight_map|not readable JSON"):
        read_thinker_folder(folder)


def test_missing_and_doubled_shards(folder):
    tensors = read_tensors(folder / "b.safetensors")
    write_tensors(
        folder / "b.safetensors", {**tensors, "model.norm.weight": np.zeros(3, np.float32)}
    )
    with pytest.raises(
        UserError, match=r"model\.norm\.weight is in b\.safetensors and in another file"
    ):
        read_thinker_folder(folder)
    os.remove(folder / "b.safetensors")
    with pytest.raises(UserError, match=r"lacks 1 of its 2 files \(b\.safetensors\)"):
        read_thinker_folder(folder)


def test_an_index_that_disagrees_with_its_files(folder):
    where = _where(folder)
    _index(folder, {**where, "model.ghost.weight": "a.safetensors"})
    with pytest.raises(UserError, match=r"disagree about 1 tensors \(model\.ghost\.weight\)"):
        read_thinker_folder(folder)
    where.pop("model.norm.weight")
    _index(folder, where)
    with pytest.raises(UserError, match=r"disagree about 1 tensors \(model\.norm\.weight\)"):
        read_thinker_folder(folder)


def _safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        _safetensors(b"{" * 5000),
        _safetensors([]),
        # four petabytes
        _safetensors(
            {"w": {"dtype": "F32", "shape": [2**25, 2**25], "data_offsets": [0, 2**52]}}, bytes(64)
        ),
        _safetensors(
            {"w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]}}, bytes(64)
        ),
        _safetensors({"w": {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]}}, bytes(64)),
        _safetensors({"w": {"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}}, bytes(64)),
        _safetensors({"w": {"dtype": "EXEC", "shape": [16], "data_offsets": [0, 64]}}, bytes(64)),
        _safetensors({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}, bytes(60)),
        # two in one place
        _safetensors(
            {n: {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} for n in "wv"}, bytes(64)
        ),
    ],
    ids=range(13),
)
def test_broken_headers(tmp_path, content):
    (tmp_path / WHOLE).write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps(HF))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"model\.safetensors is corrupt or no safetensors file"):
        read_thinker_folder(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_everything_wrong_is_found_in_the_headers(folder, monkeypatch):
    monkeypatch.setattr(
        "mdmspeech.interop.tensors.OnDisk.__getitem__",
        lambda self, rows: pytest.fail("a weight was read"),
    )
    (folder / "config.json").write_text(
        json.dumps({**HF, "num_hidden_layers": 3, "intermediate_size": 99})
    )
    with pytest.raises(UserError, match=r"11 missing \(model\.layers\.2.*; 6 misshapen"):
        read_thinker_folder(folder)


@pytest.mark.parametrize("value", [0, -4, "4", 4.0, True, None, [4], {}, 2**80])
@pytest.mark.parametrize(
    "name", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
def test_sizes_that_no_model_has(name, value):
    with pytest.raises(UserError, match=f"{name}; a whole number from 1 to"):
        thinker_config({**HF, name: value})


@pytest.mark.parametrize(
    "name", ["encoder_layers", "d_model", "num_mel_bins", "max_source_positions"]
)
def test_sizes_that_no_encoder_has(name):
    for value in (0, -1, "80", 10**9, True, []):
        with pytest.raises(UserError, match=f"{name}; a whole number"):
            encoder_config({**WHISPER, name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**6}, "from 1 to 1,000"),
        ({"num_key_value_heads": 3}, "cannot share 3"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_theta": "1e6"}, "rope_theta"),
        ({"rms_norm_eps": [1]}, "rms_norm_eps"),
        ({"rope_scaling": "llama3"}, "no JSON object"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "is incomplete"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "0 for factor"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "'longrope' is not known"),
        ({"head_dim": 7}, "even head_dim"),
        ({"model_type": ["qwen3"]}, "cannot be a Thinker"),
        ({"model_type": "gpt2"}, "cannot be a Thinker"),
    ],
)
def test_settings_that_no_model_has(change, message):
    with pytest.raises(UserError, match=message):
        thinker_config({**HF, **change})


def test_the_largest_sizes_that_are_believed_are_still_refused_by_the_headers(folder):
    """Shapes of exabytes are computed, nothing is allocated."""
    wide = dict(
        vocab_size=2**24,
        hidden_size=2**20,
        num_attention_heads=16,
        num_key_value_heads=1,
        head_dim=4096,
        intermediate_size=2**20,
    )
    (folder / "config.json").write_text(json.dumps({**HF, **wide}))
    with pytest.raises(UserError, match="misshapen"):
        read_thinker_folder(folder)
    wide = dict(
        d_model=2**20,
        encoder_layers=1000,
        encoder_attention_heads=256,
        encoder_ffn_dim=2**20,
        max_source_positions=2**20,
    )
    (folder / "config.json").write_text(json.dumps({**WHISPER, **wide}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="missing"):
        read_encoder_folder(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kilobytes


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null", "{", "", "\x00", "[" * 100_000])
def test_a_config_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text)
    for read in (read_thinker_folder, read_encoder_folder, sources.open_any):
        with pytest.raises(UserError, match=r"instead of an object|not readable JSON"):
            read(folder)


class _Bomb:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def _pytorch(path, tree):
    """A torch.save archive around any pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("m/data.pkl", pickle.dumps(tree, protocol=2))
        archive.writestr("m/version", "3\n")


def test_pickles_are_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(HF))
    _pytorch(tmp_path / "pytorch_model.bin", {"model.norm.weight": _Bomb()})
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        read_thinker_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        read_thinker_folder(tmp_path)
    shutil.move(tmp_path / "pytorch_model.bin", tmp_path / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(UserError, match="safe_serialization=True"):
        read_thinker_folder(tmp_path)
    (tmp_path / WHOLE).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UserError, match="no safetensors file"):
        read_thinker_folder(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_weights_repeated_in_another_precision_are_not_mixed_in(tmp_path):
    """Whisper-large-v3's folder has model.safetensors and, under another index, the same in float32."""
    tensors = read_tensors(GOLDEN / "hf_qwen3.safetensors")
    write_tensors(tmp_path / WHOLE, tensors)
    write_tensors(
        tmp_path / "model.fp32-00001-of-00001.safetensors",
        {name: 2 * value for name, value in tensors.items()},
    )
    (tmp_path / "config.json").write_text(json.dumps(HF))
    config, params = read_thinker_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, thinker_params(config, tensors, ""))
    assert len(open_tensors(tmp_path)) == len(tensors)
