"""What every synthesiser returns, and what it is asked."""

import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np


class Rendered(NamedTuple):
    """One utterance: float32 audio [N] in [-1, 1] at `rate` Hz, and JSON-ready extra fields for its
    record.
    """

    audio: np.ndarray
    rate: int
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One utterance to make.

    id: unique within its part. text: what is said. voice: the engine's own name for the speaker.
      speed: 1 is the voice's normal pace.
    seed: fixes whatever is random in the engine. record: further fields copied into the record
      (family, split, answer, ...).
    """

    id: str
    text: str
    engine: str
    voice: str
    speed: float = 1.0
    seed: int = 0
    record: dict[str, Any] = dataclasses.field(default_factory=dict)


class Engine(Protocol):
    """A loaded synthesiser; cheap to call many times, not shared between processes."""

    def speak(self, job: Job) -> Rendered:
        """Renders one job. Raises `UserError` when the engine itself is missing, ValueError when
        this text cannot be said.
        """
        ...
