"""How to speak: which values an option takes, and what is told of the others, before anything is
opened.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.inference.generation_config import PACES, TEMPERATURES, GenerationConfig

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("option", "value"),
    [("steps", np.int64(4)), ("steps", np.uint8(1)), ("seed", np.int32(7)), ("seed", 2**32 - 1),
        ("seed", np.uint64(5)),
     ("pace", np.float32(1.25)), ("pace", 1), ("pace", PACES[0]), ("pace", PACES[1]),
     ("temperature", np.float64(0.5)),
     ("temperature", TEMPERATURES[1]), ("temperature", False + 0), ("vocoder", {}),
     ("vocoder", None)],
)  # fmt: skip
def test_taken(option, value):
    made = getattr(GenerationConfig(**{option: value}), option)
    assert made == value and (option == "vocoder" or type(made) in (int, float))


@pytest.mark.parametrize(
    ("option", "value"),
    [("steps", 0), ("steps", -1), ("steps", True), ("steps", 4.0), ("steps", np.float32(4)),
        ("steps", "4"), ("steps", None), ("steps", [4]),
     ("seed", -1), ("seed", 2**32), ("seed", True), ("seed", 1.0), ("seed", NAN), ("seed", "1"),
     ("seed", None),
     ("pace", NAN), ("pace", INF), ("pace", 0), ("pace", -1.0), ("pace", 1e9), ("pace", True),
     ("pace", "1"), ("pace", None), ("pace", 1j),
     ("pace", np.ones(2)), ("pace", PACES[1] * 1.01), ("pace", PACES[0] * 0.99),
     ("temperature", NAN), ("temperature", -INF), ("temperature", -0.1),
     ("temperature", TEMPERATURES[1] * 1.01),
     ("temperature", True), ("temperature", np.nan), ("temperature", "hot"), ("vocoder", 4),
     ("vocoder", "steps"), ("vocoder", [("steps", 4)])],
)  # fmt: skip
def test_refused_by_name(option, value):
    with pytest.raises(UserError, match=f"^{option}="):
        GenerationConfig(**{option: value})


def test_an_option_that_there_is_not():
    with pytest.raises(UserError, match=r"no option 'speed' of speaking; there are steps, seed"):
        GenerationConfig.of({"speed": 2})


def test_the_ranges_are_the_measured_ones():
    found = json.loads(
        (Path(__file__).parents[2] / "experiments" / "results" / "voice_ranges.json").read_text()
    )
    assert (
        tuple(found["usable"]["pace"]) == PACES
        and tuple(found["usable"]["temperature"]) == TEMPERATURES
    )


def test_the_rule_of_the_ranges():
    from experiments.voice_ranges import clear, usable

    rates = {0.5: 1.0, 0.7: 9.0, 1.0: 2.0, 1.5: 5.0, 2.0: 5.1, 3.0: 12.6, 4.0: 1.0}
    assert clear(rates, 1.0) == (1.0, 1.5) and usable(rates, 1.0) == (0.5, 2.0)


def test_it_needs_no_jax():
    code = (
        "import sys, mdmspeech.inference.generation_config, "
        "mdmspeech.inference.devices; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
