"""How a session listens and speaks, checked before anything is opened. Importing this needs no JAX."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from mdmspeech.audio.turns import TurnDetection
from mdmspeech.errors import UserError
from mdmspeech.inference.generation_config import GenerationConfig, whole

# fields of `GenerationConfig`, which are checked there
_SPEAKING = ("seed", "temperature", "pace", "vocoder")
_SPECULATE = (0.03, 2.0)
# seconds of silence behind the speech that are heard with it, unless an answer is begun after others
TAIL = 0.064


@dataclasses.dataclass(frozen=True)
class SessionConfig:
    """How a session listens and speaks; UserError names what is out of range.

    Attributes:
      turn_detection: how turns are found; None: by `commit` only.
      create_response: whether a turn is answered by itself; else it is only written down until
        `respond`. interrupt_response: whether speech stops a response that is being spoken.
      speculate_s: silence after which an answer is begun, and held back until the turn is over;
        None: not before, and nothing is heard ahead (see `hearing_ahead`). Longer makes fewer answers
        that are begun in vain, for a device that is busy.
      steps: forwards a block of speech, or "auto": 1 for the first, then as many as playback is
        ahead for.
      talker, seed, temperature, pace, vocoder: as of `Assistant.stream`.
      instructions: the system message (None: the release's own, with whose examples it goes).
      output: "audio", or "text" that is not spoken.
      max_output_tokens: of an answer's text; None: as many as the Thinker may write.
      context: tokens of conversation that are remembered, answers included.
      max_events: events that wait to be read before the session stops speaking.
      warm_up: compile all it needs when it opens.
    """

    turn_detection: TurnDetection | None = dataclasses.field(default_factory=TurnDetection)
    create_response: bool = True
    interrupt_response: bool = True
    speculate_s: float | None = TAIL
    steps: int | Literal["auto"] = "auto"
    talker: str = "mdm"
    seed: int = 0
    temperature: float = 0.0
    pace: float = 1.0
    vocoder: Mapping[str, Any] | None = None
    instructions: str | None = None
    output: Literal["audio", "text"] = "audio"
    max_output_tokens: int | None = None
    context: int = 1024
    max_events: int = 256
    warm_up: bool = True

    def __post_init__(self) -> None:
        if self.turn_detection is not None and not isinstance(self.turn_detection, TurnDetection):
            raise UserError(
                f"turn_detection={self.turn_detection!r}: give a TurnDetection, or None"
            )
        for name in ("create_response", "interrupt_response", "warm_up"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}={getattr(self, name)!r}: give True or False")
        given = self.speculate_s
        if given is not None and (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not _SPECULATE[0] <= given <= _SPECULATE[1]
        ):
            raise UserError(
                f"speculate_s={given!r}: give seconds from {_SPECULATE[0]:g} to "
                f"{_SPECULATE[1]:g}, or None to wait for the end of the turn"
            )
        if not isinstance(self.instructions, str | None):
            raise UserError(f"instructions={self.instructions!r:.60}: give a text, or None")
        if self.output not in ("audio", "text"):
            raise UserError(f'output={self.output!r}: give "audio" or "text"')
        if self.max_output_tokens is not None:
            whole("max_output_tokens", self.max_output_tokens, 1, 2**20, "from 1, or None")
        whole("context", self.context, 64, 2**20, "from 64 to 1048576")
        whole("max_events", self.max_events, 4, 2**20, "from 4 to 1048576")
        self.generation()

    def generation(self) -> GenerationConfig:
        """How to speak, where the session does not choose."""
        given = {name: getattr(self, name) for name in _SPEAKING}
        return GenerationConfig(**given if self.steps == "auto" else given | {"steps": self.steps})

    def updated(self, changes: Mapping[str, Any]) -> "SessionConfig":
        """The same with some fields changed, and the others as they are; `turn_detection` may be
        some of its fields. UserError: a field that there is not.
        """
        known = [field.name for field in dataclasses.fields(self)]
        if unknown := [name for name in changes if name not in known]:
            raise UserError(
                f"there is no option {unknown[0]!r} of a session; there are {', '.join(known)}"
            )
        changes = dict(changes)
        if isinstance(part := changes.get("turn_detection"), Mapping):
            changes["turn_detection"] = (self.turn_detection or TurnDetection()).updated(part)
        return dataclasses.replace(self, **changes)
