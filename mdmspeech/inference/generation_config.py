"""How to speak: the options of a request, checked before anything is opened or computed. Importing
this needs no JAX.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

from mdmspeech.errors import UserError

# What the shipped voice can still be followed at, as experiments/voice_ranges.py finds it; 0.6 to 1
# and 0 to 0.75 are as clear as the defaults.
PACES = (0.5, 1.25)
TEMPERATURES = (0.0, 1.5)
SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How to speak. Whole numbers may be of any integer type (not bool), the others of any real
    one; UserError names what is out of range.

    Attributes:
      steps: forwards a block, 1 (fastest) to the block size. A next-token Talker ignores it.
      seed, temperature: 0 takes the best token everywhere; above it tokens are drawn, reproducibly.
      pace: 1.25 speaks a quarter faster.
      vocoder: settings of the codec for this request, see its `with_settings`; CosyVoice2's has
        {"steps": 4, "guidance": 0.7} and more.
    """

    steps: int = 4
    seed: int = 0
    temperature: float = 0.0
    pace: float = 1.0
    vocoder: Mapping[str, Any] | None = None

    def __post_init__(self):
        steps = whole(
            "steps",
            self.steps,
            1,
            None,
            "from 1, the fastest, to the block size, 16 in the shipped voice",
        )
        seed = whole("seed", self.seed, 0, SEEDS - 1, f"from 0 to {SEEDS - 1}")
        temperature = real(
            "temperature",
            self.temperature,
            TEMPERATURES,
            "0 takes the best token everywhere; above, speech falls apart",
        )
        pace = real(
            "pace",
            self.pace,
            PACES,
            "1.25 is a quarter faster; outside, words are no longer understood",
        )
        if self.vocoder is not None and not isinstance(self.vocoder, Mapping):
            raise UserError(f'vocoder={self.vocoder!r}: give a mapping, for example {{"steps": 4}}')
        for name, value in {
            "steps": steps,
            "seed": seed,
            "temperature": temperature,
            "pace": pace,
        }.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "GenerationConfig":
        """From keyword arguments. UserError: an option that there is not."""
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in options if name not in known]:
            raise UserError(
                f"there is no option {unknown[0]!r} of speaking; there are {', '.join(known)}"
            )
        return cls(**options)


def whole(name: str, value: Any, low: int, high: int | None, told: str) -> int:
    """`value` as an int. UserError: no whole number of an integer type, or out of range."""
    given = int(value) if isinstance(value, numbers.Integral) and not _is_truth(value) else low - 1
    if given < low or (high is not None and given > high):
        raise UserError(f"{name}={value!r}: give a whole number {told}")
    return given


def real(name: str, value: Any, limits: tuple[float, float], told: str) -> float:
    """`value` as a finite float within `limits`. UserError: it is none."""
    given = float(value) if isinstance(value, numbers.Real) and not _is_truth(value) else math.nan
    if not limits[0] <= given <= limits[1]:  # nor is NaN
        raise UserError(
            f"{name}={value!r}: give a number from {limits[0]:g} to {limits[1]:g} ({told})"
        )
    return given


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)
