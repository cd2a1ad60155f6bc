"""The published folder of CosyVoice2: sizes by the shapes of its tensors, pickles read as data,
everything that is wrong in one error.
"""

import json
import pickle
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2 import (
    cosyvoice2_shapes,
    flow_config,
    hift_config,
    load_cosyvoice2,
)
from mdmspeech.interop.tensors import read_tensors, write_tensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cosyvoice2"
FILES = {"flow": "flow_full", "hift": "hift", "speech_tokenizer_v2": "s3_tokenizer_v2"}
HEADS = dict(tokenizer_head_dim=32, estimator_head_dim=8)


class Shape:
    """Stands for a tensor whose values nobody reads."""

    def __init__(self, shape):
        self.shape, self.ndim = tuple(shape), len(shape)


@pytest.fixture
def folder(tmp_path):
    for name, fixture in FILES.items():
        (tmp_path / f"{name}.safetensors").write_bytes(
            (FIXTURES / f"{fixture}.safetensors").read_bytes()
        )
    return tmp_path


def manifest(name):
    listed = json.loads((FIXTURES / "manifests" / f"{name}.json").read_text())
    return {name: tensor["shape"] for name, tensor in listed["tensors"].items()}


def torch_file(path, tensors):
    """What torch.save writes of a state dict, made without torch."""

    # Protocol 2 by hand: a dict of tensors, each the call of a named function with a persistent id.
    out, storages = [b"\x80\x02}("], {}

    def text(value):
        data = value.encode()
        return b"X" + len(data).to_bytes(4, "little") + data

    def number(value):
        return b"J" + int(value).to_bytes(4, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(number(value) for value in values) + b"t"

    for n, (name, value) in enumerate(tensors.items()):
        value = np.ascontiguousarray(value, np.float32)
        strides = [step // 4 for step in value.strides]
        storage = (
            b"("
            + text("storage")
            + b"ctorch\nFloatStorage\n"
            + text(str(n))
            + text("cpu")
            + number(value.size)
            + b"tQ"
        )
        arguments = (
            b"("
            + storage
            + number(0)
            + numbers(value.shape)
            + numbers(strides)
            + b"\x89ccollections\nOrderedDict\n)Rt"
        )
        out.append(text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")
        storages[str(n)] = value.tobytes()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"".join(out) + b"u.")
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)


def test_the_published_sizes_are_told_by_the_shapes():
    flow, hift = (
        {name: Shape(shape) for name, shape in manifest(f"cosyvoice2_{part}").items()}
        for part in ("flow", "hift")
    )
    full = CosyVoice2Config()
    assert flow_config(flow) == full.flow
    zeros = {
        name: np.ones(tensor.shape, np.float32)
        for name, tensor in hift.items()
        if np.prod(tensor.shape) < 2**16 or "conv_pre" in name or "condnet.0." in name
    }
    assert hift_config(zeros, "hift") == full.hift


@pytest.mark.slow
def test_the_published_codec_has_a_place_for_every_tensor():
    """Abstractly. (Names and shapes one by one: `test_flow_import.py`, `test_hift_import.py`,
    `test_s3_tokenizer.py`.)
    """
    shapes = cosyvoice2_shapes(CosyVoice2Config())
    totals = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()
    }
    assert totals == {"tokenizer": 123_714_568, "flow": 112_549_360, "hift": 20_806_557}


@pytest.mark.slow
def test_small_models_load_the_same_way(folder):
    config, params = load_cosyvoice2(folder, **HEADS)
    assert (
        config.flow.vocab_size,
        config.flow.encoder.dim,
        config.flow.encoder.num_heads,
        config.flow.estimator.num_heads,
    ) == (300, 32, 2, 3)
    assert (config.hift.base_channels, config.hift.f0_channels, config.tokenizer.num_layers) == (
        32,
        24,
        3,
    )
    want = {
        path: leaf.shape for path, leaf in flatten_dict(cosyvoice2_shapes(config), sep="/").items()
    }
    assert {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()} == want


@pytest.mark.slow
def test_pt_files_give_the_same(folder):
    expected = load_cosyvoice2(folder, **HEADS)
    for name in ("flow", "hift"):
        torch_file(folder / f"{name}.pt", read_tensors(folder / f"{name}.safetensors"))
        (folder / f"{name}.safetensors").unlink()
    config, params = load_cosyvoice2(folder, **HEADS)
    assert config == expected[0]
    jax.tree.map(np.testing.assert_array_equal, params, expected[1])


@pytest.mark.slow
def test_everything_wrong_is_in_one_error(folder):
    flow, hift, tokenizer = (read_tensors(folder / f"{name}.safetensors") for name in FILES)
    del flow["encoder_proj.bias"]
    write_tensors(folder / "flow.safetensors", {**flow, "llm.weight": np.ones(3, np.float32)})
    hift["conv_post.bias"] = np.ones(7, np.float32)
    write_tensors(folder / "hift.safetensors", hift)
    del tokenizer["encoder.blocks.0.attn.key.weight"]
    write_tensors(folder / "speech_tokenizer_v2.safetensors", tokenizer)
    with pytest.raises(UserError) as caught:
        load_cosyvoice2(folder, **HEADS)
    for part in (
        r"1 missing (encoder_proj.bias); 1 unknown (llm.weight)",
        r"1 misshapen (conv_post.bias [7] instead of [18])",
        r"1 missing (encoder.blocks.0.attn.key.weight)",
        "flow.safetensors does not fit",
        "hift.safetensors does not fit",
        "speech_tokenizer_v2.safetensors does not fit",
    ):
        assert part in str(caught.value)


def test_files_that_are_not_there(folder):
    for name in ("flow", "speech_tokenizer_v2"):
        (folder / f"{name}.safetensors").unlink()
    with pytest.raises(
        UserError,
        match=r"has no speech_tokenizer_v2\.onnx, flow\.pt; download FunAudioLLM/CosyVoice2-0\.5B",
    ):
        load_cosyvoice2(folder)


@pytest.mark.slow
def test_other_models_and_pickles_that_run_something(folder, tmp_path):
    write_tensors(
        folder / "flow.safetensors",
        {"model.embed_tokens.weight": np.ones((4, 4), ml_dtypes.bfloat16)},
    )
    with pytest.raises(
        UserError,
        match=(
            r"flow\.safetensors does not fit its config: 1121 missing .* 1 unknown "
            r"\(model\.embed_tokens\.weight\)"
        ),
    ):
        load_cosyvoice2(folder, **HEADS)
    marker = tmp_path / "ran"
    with zipfile.ZipFile(folder / "flow.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Bomb(marker), protocol=2))
    with pytest.raises(UserError, match=r"flow\.pt .*touch|flow\.pt .*getattr"):
        load_cosyvoice2(folder, **HEADS)
    assert not marker.exists()


class _Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)
