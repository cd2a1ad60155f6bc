"""Full-size models, built abstractly: every tensor of the published checkpoints has a place of its
exact shape.
"""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from flax.traverse_util import flatten_dict
from measured import same_shapes

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import (
    encoder_config,
    encoder_shapes,
    thinker_config,
    thinker_shapes,
    thinker_tensors,
    whisper_encoder_tensors,
)
from mdmspeech.interop.huggingface_rules import encoder_rules, thinker_rules
from mdmspeech.interop.rules import check_tensors
from mdmspeech.models.speech_encoder import WHISPER_BASE, WHISPER_LARGE_V3
from mdmspeech.models.thinker import QWEN3_8B, SMOLLM2_135M

MANIFESTS = Path(__file__).parents[1] / "fixtures" / "golden" / "manifests"


def _count(shapes):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parity
@pytest.mark.parametrize(
    "name",
    ["qwen3_8b", "qwen3_0_6b", "llama_3_2_1b", "whisper_large_v3_encoder", "whisper_base_encoder"],
)
def test_shapes_of_published_checkpoints(name):
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    if "whisper" in name:
        config = encoder_config(manifest["config"])
        rules, shapes_of = encoder_rules(config), encoder_shapes
    else:
        config = thinker_config({"model_type": name.split("_")[0], **manifest["config"]})
        rules, shapes_of = thinker_rules(config), thinker_shapes
    shapes = shapes_of(config)
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict(shapes).items()}
    axes = {rule.name: (flat[rule.path], rule.axes) for rule in rules}
    ours = {
        n: [s[a.index(i)] for i in range(len(s))] if a else list(s) for n, (s, a) in axes.items()
    }
    same_shapes(f"manifest {name}", ours, {n: t["shape"] for n, t in manifest["tensors"].items()})
    assert len(rules) == len(flat) == manifest["number_of_tensors"]
    assert _count(shapes) == manifest["total_parameters"]
    assert (
        _count(shapes_of(dataclasses.replace(config, scan_layers=True)))
        == manifest["total_parameters"]
    )


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["qwen3_8b", "llama_3_2_1b", "whisper_large_v3_encoder"])
def test_published_checkpoints_pass_the_importers_check(name, scan):
    """In both layouts, and not with a tensor less."""
    manifest = json.loads((MANIFESTS / f"{name}.json").read_text())
    tensors = {
        key: SimpleNamespace(shape=tuple(value["shape"]), dtype="float16")
        for key, value in manifest["tensors"].items()
    }
    if "whisper" in name:
        config = encoder_config(manifest["config"], scan_layers=scan)
        rules, shapes, tensors = (
            encoder_rules(config),
            encoder_shapes(config),
            whisper_encoder_tensors(tensors),
        )
    else:
        config = thinker_config(
            {"model_type": name.split("_")[0], **manifest["config"]}, scan_layers=scan
        )
        rules, shapes, tensors = (
            thinker_rules(config),
            thinker_shapes(config),
            thinker_tensors(config, tensors, ""),
        )
    wanted = {path: leaf.shape for path, leaf in flatten_dict(shapes, sep="/").items()}
    check_tensors(tensors, rules, wanted, name)
    last = sorted(tensors)[-1]
    with pytest.raises(UserError, match=rf"1 missing \({last}\)"):
        check_tensors(
            {key: value for key, value in tensors.items() if key != last}, rules, wanted, name
        )


def test_named_configs_are_the_published_ones():
    read = {
        name: json.loads((MANIFESTS / f"{name}.json").read_text())["config"]
        for name in ("qwen3_8b", "whisper_large_v3_encoder")
    }
    assert thinker_config({"model_type": "qwen3", **read["qwen3_8b"]}, scan_layers=True) == QWEN3_8B
    assert encoder_config(read["whisper_large_v3_encoder"], scan_layers=True) == WHISPER_LARGE_V3
    assert _count(thinker_shapes(SMOLLM2_135M)) == 134_515_008
    assert _count(encoder_shapes(WHISPER_BASE)) == 20_590_592
