"""Shapes are traced once a configuration."""

import dataclasses

import jax
import pytest

from mdmspeech.interop.traced_once import traced_once


@dataclasses.dataclass(frozen=True)
class Sizes:
    dim: object = 2


@pytest.fixture
def traced():
    return []


@pytest.fixture
def shapes(traced):
    def of(config):
        traced.append(config)
        return {"w": jax.ShapeDtypeStruct((2, int(config.dim)), "float32")}

    return traced_once(of)


def test_once_a_configuration(shapes, traced):
    assert shapes(Sizes(4)) == shapes(Sizes(4)) == {"w": jax.ShapeDtypeStruct((2, 4), "float32")}
    assert shapes(Sizes(5))["w"].shape == (2, 5) and traced == [Sizes(4), Sizes(5)]


@pytest.mark.parametrize("dim", [4.0, "4", True])
def test_what_only_looks_alike_is_another(shapes, traced, dim):
    shapes(Sizes(4)), shapes(Sizes(1)), shapes(Sizes(dim))
    assert len(traced) == 3


def test_the_callers_tree_is_its_own(shapes):
    shapes(Sizes(4)).clear()
    assert shapes(Sizes(4))


def test_what_cannot_be_built_is_refused_each_time(shapes, traced):
    for _ in range(2):
        with pytest.raises(TypeError):
            shapes(Sizes([4]))
    assert len(traced) == 2


def test_many_configurations_are_not_all_kept(shapes, traced):
    for dim in range(200):
        shapes(Sizes(dim))
    shapes(Sizes(199)), shapes(Sizes(0))
    assert len(traced) == 201
