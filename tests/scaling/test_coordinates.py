"""The coordinate check: under muP activations move as far at every width, under the standard
parametrisation further the wider the model is.
"""

from pathlib import Path

import pytest

from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.scaling import coordinates

LADDER = Path(__file__).parents[2] / "experiments" / "ladder.py"


def moved(width, base):
    config = load_config(f"{LADDER}:width={width},head=32,layers=1")
    config.talker.update(symbol_lookahead=(), base_dim=base, base_head_dim=32 if base else 0)
    return coordinates.moved(make_task(config, Path("none")), config, steps=4)


@pytest.fixture(scope="module")
def found():
    """At 64 both are the same."""
    return {"base": moved(64, 64), "mup": moved(256, 64), "standard": moved(256, 0)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "standard"),
    [("condition", 1.5), ("layers_0", 1.4), ("layers_0/mlp", 1.4), ("logits", 2.0)],
)
def test_activations_grow_under_the_standard_parametrisation_alone(found, name, standard):
    assert 0.4 < found["mup"][name] / found["base"][name] < 1.25
    assert found["standard"][name] / found["base"][name] > standard


@pytest.mark.slow
def test_the_table_says_how_they_grow(found):
    told = coordinates.table({64: found["base"], 256: found["standard"]})
    assert told.splitlines()[0].split() == ["activation", "64", "256", "grows"]
    row = next(line for line in told.splitlines() if line.startswith("logits"))
    assert float(row.split()[-1]) == pytest.approx(
        found["standard"]["logits"] / found["base"]["logits"], abs=0.01
    )
