"""The full-size flow, built abstractly: every tensor of flow.pt has a place of its exact shape, and
nothing else has.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from measured import same_shapes

from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_flow import flow_params, flow_rules, flow_shapes

MANIFEST = (
    Path(__file__).parents[2] / "fixtures" / "cosyvoice2" / "manifests" / "cosyvoice2_flow.json"
)


@pytest.mark.slow
@pytest.mark.parity
def test_shapes_of_the_published_checkpoint():
    manifest = json.loads(MANIFEST.read_text())
    shapes = flow_shapes(FlowConfig())
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict(shapes).items()}
    rules = flow_rules(FlowConfig())
    assert {rule.path for rule in rules} == flat.keys()
    axes = {rule.name: (flat[rule.path], rule.axes) for rule in rules}
    ours = {
        n: [s[a.index(i)] for i in range(len(s))] if a else list(s) for n, (s, a) in axes.items()
    }
    same_shapes(
        "manifest cosyvoice2_flow", ours, {n: t["shape"] for n, t in manifest["tensors"].items()}
    )
    assert len(rules) == len(flat) == manifest["number_of_tensors"]
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(shapes) == manifest["total_parameters"]
    assert count(shapes["encoder"]) == manifest["parts"]["encoder"]
    assert count(shapes["estimator"]) == manifest["parts"]["estimator"]


def test_named_config_is_the_published_one():
    theirs, ours = json.loads(MANIFEST.read_text())["config"], FlowConfig()
    encoder, estimator = theirs["encoder"], theirs["decoder"]["estimator"]
    assert (ours.vocab_size, ours.speaker_dim, ours.encoder.lookahead) == (
        theirs["vocab_size"],
        theirs["spk_embed_dim"],
        theirs["pre_lookahead_len"],
    )
    sizes = ours.encoder.dim, ours.encoder.num_heads, ours.encoder.ffn_dim, ours.encoder.num_layers
    assert sizes == (
        encoder["output_size"],
        encoder["attention_heads"],
        encoder["linear_units"],
        encoder["num_blocks"],
    )
    names = {"num_mels": "out_channels", "num_heads": "num_heads", "head_dim": "attention_head_dim"}
    names |= {"stage_num_layers": "n_blocks", "mid_stages": "num_mid_blocks"}
    assert {mine: getattr(ours.estimator, mine) for mine in names} == {
        mine: estimator[name] for mine, name in names.items()
    }
    assert [ours.estimator.channels] == estimator["channels"]


@pytest.mark.slow
def test_another_checkpoint_is_refused():
    with pytest.raises(
        UserError, match=r"my flow does not fit its config: 1121 missing .* 1 unknown \(extra\)"
    ):
        flow_params(FlowConfig(), {"extra": np.zeros(1)}, "my flow")
