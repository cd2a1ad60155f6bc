"""A stage that starts from an earlier one's checkpoint."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training.loop import train
from mdmspeech.training.warm_start import load_params, overwrite


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_newest_parameters_come_back_averaged_if_there_is_an_average(tmp_path, ema):
    config = tiny_config(steps=4)
    config.optim.ema = ema
    state = train(config, TinyTask(), tmp_path)
    loaded = load_params(tmp_path)
    expected = state.ema if ema else state.params
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_params(tmp_path)


def tree(*paths, value=1.0, width=2):
    return unflatten_dict({path: np.full((width, 2), value, np.float32) for path in paths}, sep="/")


LAYERS = ("embed/table", "layers_0/kernel", "layers_1/kernel", "norm/scale")


@pytest.mark.parametrize(
    ("earlier", "differing", "told"),
    [
        (
            LAYERS[:-1],
            {},
            r"1 \(norm/scale\) that the earlier run lacks \(to start them fresh: init_fresh\)",
        ),
        (
            ("embed/table", "norm/scale"),
            {},
            r"2 \(layers_0/kernel, layers_1/kernel\) that the earlier run lacks",
        ),
        (
            (*LAYERS, "layers_2/kernel"),
            {},
            (
                r"1 \(layers_2/kernel\) that only the earlier run has \(to leave them "
                r"out: init_ignored\)"
            ),
        ),
        (
            (*LAYERS[:-1], "norm/other"),
            {},
            r"1 \(norm/scale\) that .* lacks .*; 1 \(norm/other\) that only",
        ),
        (
            (),
            {},
            (
                r"4 \(embed/table, layers_0/kernel, layers_1/kernel, norm/scale\) that "
                r"the earlier run lacks"
            ),
        ),
        (
            (*LAYERS, *(f"layers_{n}/kernel" for n in range(2, 9))),
            {},
            r"7 \(layers_2/kernel, layers_3/kernel, layers_4/kernel, layers_5/kernel, \.\.\.\)",
        ),
        # one level too deep
        (
            ("encoder/" + path for path in LAYERS),
            {},
            r"4 \(embed/table.* lacks .*; 4 \(encoder/embed/table",
        ),
        (LAYERS[:-1], {"fresh": ("norm",)}, r"init_fresh 'norm' matches no parameter, of 4"),
        (
            LAYERS,
            {"ignored": ("layers_2/.*",)},
            r"init_ignored 'layers_2/\.\*' matches no parameter",
        ),
        (LAYERS, {"fresh": ("(",)}, r"init_fresh '\(' is no regular expression"),
        (LAYERS[:-1], {"fresh": ("embed/.*",)}, r"1 \(norm/scale\) that the earlier run lacks"),
    ],
)
def test_what_only_one_of_the_two_has_is_named(earlier, differing, told):
    with pytest.raises(UserError, match=told):
        overwrite(tree(*LAYERS, value=7.0), tree(*earlier), **differing)


@pytest.mark.parametrize(
    ("earlier", "differing", "fresh"),
    [
        (LAYERS, {}, ()),
        (LAYERS[:-1], {"fresh": ("norm/scale",)}, ("norm/scale",)),
        (LAYERS, {"fresh": ("embed/.*",)}, ("embed/table",)),  # there, and not wanted
        (("embed/table", "norm/scale"), {"fresh": (r"layers_\d/.*",)}, LAYERS[1:3]),
        ((*LAYERS, "layers_2/kernel", "layers_3/kernel"), {"ignored": ("layers_[23]/.*",)}, ()),
        (
            (*LAYERS[:-1], "old/scale"),
            {"fresh": ("norm/.*",), "ignored": ("old/.*",)},
            ("norm/scale",),
        ),
    ],
)
def test_what_is_named_may_differ(earlier, differing, fresh):
    merged = flatten_dict(overwrite(tree(*LAYERS, value=7.0), tree(*earlier), **differing), sep="/")
    assert {path: float(leaf[0, 0]) for path, leaf in merged.items()} == {
        path: 7.0 if path in fresh else 1.0 for path in LAYERS
    }


def test_shapes_must_agree():
    with pytest.raises(
        UserError,
        match=r"parameter layers_0/kernel has shape \(3, 2\) in the earlier run and \(2, 2\) here",
    ):
        overwrite(tree("layers_0/kernel"), tree("layers_0/kernel", width=3))
