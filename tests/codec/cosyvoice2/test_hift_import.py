"""The names in hift.pt: every tensor has a place of its exact shape, both spellings of weight
normalisation, and back.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from measured import same_shapes

from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_hift import fold_weight_norm, hift_params, hift_rules, hift_shapes
from mdmspeech.interop.tensors import read_tensors

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cosyvoice2"
MANIFEST = json.loads((FIXTURES / "manifests" / "cosyvoice2_hift.json").read_text())
SMALL = HiFTConfig(base_channels=32, f0_channels=24)
G, V = ".parametrizations.weight.original0", ".parametrizations.weight.original1"


@pytest.fixture
def tensors():
    return read_tensors(FIXTURES / "hift.safetensors")


@pytest.mark.parity
def test_shapes_of_the_published_checkpoint():
    """Abstractly: nothing of the full size is allocated."""
    shapes, rules, theirs = hift_shapes(HiFTConfig()), hift_rules(HiFTConfig()), {}
    for name, tensor in MANIFEST["tensors"].items():
        if name.endswith(G):
            first, *rest = MANIFEST["tensors"][name.replace(G, V)]["shape"]
            assert tensor["shape"] == [first] + [1] * len(rest)
        else:
            theirs[name.replace(V, ".weight")] = tensor["shape"]
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict(shapes).items()}
    axes = {rule.name: (flat[rule.path], rule.axes) for rule in rules}
    ours = {
        n: [s[a.index(i)] for i in range(len(s))] if a else list(s) for n, (s, a) in axes.items()
    }
    same_shapes("manifest cosyvoice2_hift", ours, theirs)
    assert len(rules) == len(flat) == len(theirs)
    assert (
        len(theirs) + sum(name.endswith(G) for name in MANIFEST["tensors"])
        == MANIFEST["number_of_tensors"]
    )
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(shapes))
        == MANIFEST["parameters_after_folding_weight_norm"]
    )


def test_named_config_is_the_published_one():
    theirs, ours = MANIFEST["config"], HiFTConfig()
    names = {
        "num_mels": "in_channels",
        "sample_rate": "sampling_rate",
        "base_channels": "base_channels",
        "overtones": "nb_harmonics",
        "sine_amplitude": "nsf_alpha",
        "noise_std": "nsf_sigma",
        "voiced_hz": "nsf_voiced_threshold",
        "slope": "lrelu_slope",
        "audio_limit": "audio_limit",
    }
    assert {mine: getattr(ours, mine) for mine in names} == {
        mine: theirs[name] for mine, name in names.items()
    }
    lists = {
        "upsample_rates": "upsample_rates",
        "upsample_kernels": "upsample_kernel_sizes",
        "resblock_kernels": "resblock_kernel_sizes",
    }
    lists["source_kernels"] = "source_resblock_kernel_sizes"
    assert {mine: list(getattr(ours, mine)) for mine in lists} == {
        mine: theirs[name] for mine, name in lists.items()
    }
    for name in ("resblock_dilation_sizes", "source_resblock_dilation_sizes"):
        assert theirs[name] == [list(ours.dilations)] * 3
    assert (ours.n_fft, ours.hop) == (
        theirs["istft_params"]["n_fft"],
        theirs["istft_params"]["hop_len"],
    )
    assert ours.f0_channels == theirs["f0_predictor"]["cond_channels"]


def test_older_names_and_prefix_give_the_same(tensors):
    params = hift_params(SMALL, tensors, "new")
    older = {
        f"generator.{n.replace(G, '.weight_g').replace(V, '.weight_v')}": t
        for n, t in tensors.items()
    }
    assert any(name.endswith("weight_g") for name in older)
    jax.tree.map(np.testing.assert_array_equal, hift_params(SMALL, older, "old"), params)
    folded = fold_weight_norm(tensors, "folded")
    jax.tree.map(np.testing.assert_array_equal, hift_params(SMALL, folded, "folded"), params)


def test_the_norm_goes_over_all_axes_but_the_first():
    v = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    g = np.array([2.0, 3.0], np.float32).reshape(2, 1, 1)
    weight = fold_weight_norm({"a.weight_g": g, "a.weight_v": v, "a.bias": g}, "x")
    assert weight.keys() == {"a.weight", "a.bias"}
    np.testing.assert_allclose(
        np.linalg.norm(weight["a.weight"].reshape(2, -1), axis=1), [2, 3], rtol=1e-6
    )


def test_what_does_not_fit_is_named(tensors):
    with pytest.raises(
        UserError, match=r"my hift does not fit its config: 246 missing .* 1 unknown \(extra\)"
    ):
        hift_params(HiFTConfig(), {"extra": np.zeros(1)}, "my hift")
    with pytest.raises(
        UserError,
        match=(
            r"1 missing \(conv_pre\.weight\); 1 unknown "
            r"\(conv_pre\.parametrizations\.weight\.original1\)"
        ),
    ):
        hift_params(SMALL, {n: t for n, t in tensors.items() if n != f"conv_pre{G}"}, "half")
    with pytest.raises(
        UserError,
        match=(
            r"conv_pre\.parametrizations\.weight\.original0 \[31, 1, 1\] does not "
            r"fit v \[32, 80, 7\]"
        ),
    ):
        hift_params(SMALL, {**tensors, f"conv_pre{G}": np.ones((31, 1, 1))}, "odd")
    with pytest.raises(
        UserError, match=r"ups\.0\.parametrizations\.weight\.original1 has a part of length zero"
    ):
        hift_params(SMALL, {**tensors, f"ups.0{V}": np.zeros_like(tensors[f"ups.0{V}"])}, "zero")
    with pytest.raises(UserError, match=r"conv_pre\.weight twice"):
        hift_params(SMALL, {**tensors, "conv_pre.weight": tensors[f"conv_pre{V}"]}, "twice")
