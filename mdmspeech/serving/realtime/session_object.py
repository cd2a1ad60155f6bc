"""The `session` of the protocol: what a client sees of it, how `session.update` changes it field by
field, and what a `SessionConfig` makes of that.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from mdmspeech.audio.turns import TurnDetection
from mdmspeech.inference.generation_config import PACES, SEEDS, TEMPERATURES
from mdmspeech.serving.checks import (
    Check,
    anything,
    choice,
    either,
    flag,
    mapping,
    metadata,
    number,
    only,
    text,
    wrong,
)
from mdmspeech.serving.request_error import RequestError, refused
from mdmspeech.serving.voices import OPENAI_VOICES, VOICE
from mdmspeech.speech_format import OUTPUT_RATE

MOST_TOKENS = 4096
WORDS, TOKENS = "response.output_audio.words", "response.output_audio.tokens"

# silence that ends a turn where a client leaves it to us how eager to be, ms
_EAGERNESS = {"low": 1000, "medium": 600, "auto": 600, "high": 400}
_TOOLS = "this model calls no tools"
_PCM = "sound is 16-bit PCM here: audio/pcm"
# names of the protocol's beta -> where they are now
_OLD = {
    "modalities": "output_modalities",
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "input_audio_format": "audio.input.format",
    "output_audio_format": "audio.output.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
    "max_response_output_tokens": "max_output_tokens",
}
_OBJECTS = {
    "session.audio", "session.audio.input", "session.audio.input.format",
    "session.audio.output", "session.audio.output.format",
}  # fmt: skip
# objects that may be null, with what their fields are before one is given
_OPTIONAL: dict[str, dict[str, Any]] = {
    "session.audio.input.transcription": {},
    "session.audio.input.turn_detection": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "create_response": True,
        "interrupt_response": True,
    },
}


@dataclasses.dataclass(frozen=True)
class Model:
    """What a session must know of its model.

    Attributes:
      name: what clients call it. instructions: its own. steps: the most forwards a block. talker: of
        this session. limit_s: the longest question, seconds. max_text: characters of a text.
    """

    name: str
    instructions: str = ""
    steps: int = 16
    talker: str = "mdm"
    limit_s: float = 30.0
    max_text: int = 4096


class SessionObject:
    """Of one conversation.

    Attributes:
      notes: system messages that were added as items.
    """

    def __init__(self, model: Model, session_id: str, expires_at: int) -> None:
        self.model, self.notes = model, list[str]()
        self._checks = _checks(model)
        pcm = {"type": "audio/pcm", "rate": OUTPUT_RATE}
        vad = _OPTIONAL["session.audio.input.turn_detection"]
        self._state: dict[str, Any] = {
            "id": session_id,
            "object": "realtime.session",
            "type": "realtime",
            "model": model.name,
            "expires_at": expires_at,
            "instructions": model.instructions,
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": dict(pcm),
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": dict(vad),
                },
                "output": {
                    "format": dict(pcm),
                    "voice": VOICE,
                    "speed": 1.0,
                    "pace": 1.0,
                    "steps": "auto",
                    "seed": 0,
                    "temperature": 0.0,
                    "talker": model.talker,
                },
            },
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "tracing": None,
            "prompt": None,
            "include": [],
        }

    def shown(self) -> dict[str, Any]:
        """The whole of it."""
        return copy.deepcopy(self._state)

    def update(self, patch: Any) -> None:
        """Changes what it names, all of it or nothing. RequestError: a field that cannot be so."""
        state = copy.deepcopy(self._state)
        self._merge(state, mapping("session", patch), "session")
        if (vad := state["audio"]["input"]["turn_detection"]) is not None:
            vad.pop("eagerness", None)
        self._state = state

    def settings(self) -> dict[str, Any]:
        """As fields of a `SessionConfig`."""
        state, output = self._state, self._state["audio"]["output"]
        vad = state["audio"]["input"]["turn_detection"]
        found = {
            "turn_detection": None,
            "create_response": False,
            "instructions": self.instructions(),
            "output": state["output_modalities"][0],
            "max_output_tokens": _tokens(state["max_output_tokens"]),
            **{name: output[name] for name in ("steps", "seed", "temperature", "pace")},
        }
        if vad is not None:
            found["create_response"] = vad["create_response"]
            found["interrupt_response"] = vad["interrupt_response"]
            found["turn_detection"] = TurnDetection(
                threshold=vad["threshold"],
                prefix_padding_s=vad["prefix_padding_ms"] / 1000,
                silence_duration_s=vad["silence_duration_ms"] / 1000,
            )
        return found

    def instructions(self) -> str | None:
        """The system message, notes included; None: the model's own."""
        given = self._state["instructions"]
        if given == self.model.instructions and not self.notes:
            return None
        return "\n\n".join(one for one in (given, *self.notes) if one)

    @property
    def input_rate(self) -> int:
        """Hz, of sound that comes in."""
        return self._state["audio"]["input"]["format"]["rate"]

    @property
    def detects_turns(self) -> bool:
        """Whether speech is found by itself."""
        return self._state["audio"]["input"]["turn_detection"] is not None

    @property
    def transcribes(self) -> bool:
        """Whether a client wants to know what was understood."""
        return self._state["audio"]["input"]["transcription"] is not None

    def includes(self, name: str) -> bool:
        """Whether a client has asked for these fields."""
        return name in self._state["include"]

    def for_response(self, patch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `response.create` changes for one response: (fields of the response, settings for
        `Session.respond`).

        RequestError: as `update`.
        """
        if isinstance(audio := patch.get("audio"), dict) and "input" in audio:
            raise _unknown("response.audio.input", "response.audio", "input")
        own = SessionObject(self.model, "", 0)
        own._state, own.notes = copy.deepcopy(self._state), self.notes
        own._checks = {
            key: check for key, check in self._checks.items() if key not in _OF_SESSIONS
        } | _OF_RESPONSES
        own._state |= {"metadata": None, "conversation": "auto", "input": []}
        try:
            own.update(patch)
        except RequestError as error:
            raise _renamed(error) from error
        before, after = self.settings(), own.settings()
        changes = {
            name: value
            for name, value in after.items()
            if name not in ("turn_detection", "create_response", "interrupt_response")
            and value != before[name]
        }
        output = own._state["audio"]["output"]
        fields = {
            "output_modalities": own._state["output_modalities"],
            "max_output_tokens": own._state["max_output_tokens"],
            "metadata": own._state["metadata"],
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
        }
        return fields, changes

    def _merge(self, state: dict[str, Any], patch: Mapping[str, Any], where: str) -> None:
        for name, value in patch.items():
            param = f"{where}.{name}"
            if param in _OBJECTS and value is not None:
                self._merge(state[name], mapping(param, value), param)
            elif param in _OPTIONAL:
                self._merge_optional(state, name, value, param)
            elif param in self._checks:
                _put(state, name, self._checks[param](param, value), param)
            elif param not in _OBJECTS:  # null says nothing of an object
                raise _unknown(param, where, name)

    def _merge_optional(self, state: dict[str, Any], name: str, value: Any, param: str) -> None:
        if value is None:
            state[name] = None
            return
        given = mapping(param, value)
        # what is not named stays as it is: a change of one field switches nothing off
        found = dict(_OPTIONAL[param] if state[name] is None else state[name])
        self._merge(found, given, param)
        if found.get("type") == "semantic_vad":
            found["type"] = "server_vad"  # which is what a client is told
            if "silence_duration_ms" not in given:
                found["silence_duration_ms"] = _EAGERNESS[given.get("eagerness") or "auto"]
        state[name] = found


def _put(state: dict[str, Any], name: str, value: Any, param: str) -> None:
    if param in ("session.audio.output.speed", "session.audio.output.pace"):
        state["speed"] = state["pace"] = value  # two names of one thing
    elif param == "session.audio.output.voice" and value is None:
        state[name] = VOICE
    elif param in _KEPT:
        pass
    elif value is None and param in _DEFAULTS:
        state[name] = copy.deepcopy(_DEFAULTS[param])
    else:
        state[name] = value


def _checks(model: Model) -> dict[str, Check]:
    """Field -> what it may be."""
    vad, output = "session.audio.input.turn_detection", "session.audio.output"
    nothing = None
    return {
        **dict.fromkeys(_KEPT, anything),
        "session.type": _realtime,
        "session.instructions": _instructions(model),
        "session.output_modalities": _modalities,
        "session.max_output_tokens": _optional(
            either("inf", number(1, MOST_TOKENS, whole=True)), "inf"
        ),
        "session.tools": only([[]], _TOOLS),
        "session.tool_choice": only(["auto", "none"], _TOOLS),
        "session.parallel_tool_calls": anything,
        "session.tracing": lambda _, value: "auto" if value == "auto" else None,
        "session.truncation": only(["auto"], "the oldest turns are forgotten when they must be"),
        "session.prompt": only([], "prompts are not stored here: send instructions"),
        "session.reasoning": only([], "the model's thoughts cannot be set"),
        "session.include": _include,
        "session.audio.input.format.type": only(["audio/pcm"], _PCM),
        "session.audio.input.format.rate": _optional(number(8000, 48_000, whole=True), OUTPUT_RATE),
        "session.audio.input.noise_reduction": only([], "the sound is heard as it is"),
        "session.audio.input.transcription.model": _optional(text(64), nothing),
        "session.audio.input.transcription.language": _optional(text(35), nothing),
        "session.audio.input.transcription.prompt": only([""], "the ear takes no hints"),
        "session.audio.input.transcription.delay": only([], "transcripts come when a turn is over"),
        f"{vad}.type": choice("server_vad", "semantic_vad"),
        f"{vad}.threshold": _optional(number(0.05, 0.95), 0.5),
        f"{vad}.prefix_padding_ms": _optional(number(0, 2000, whole=True), 300),
        f"{vad}.silence_duration_ms": _optional(number(100, 5000, whole=True), 500),
        f"{vad}.create_response": _optional(flag, True),
        f"{vad}.interrupt_response": _optional(flag, True),
        f"{vad}.idle_timeout_ms": only([], "nothing is said to who says nothing"),
        f"{vad}.eagerness": _optional(choice(*_EAGERNESS), "auto"),
        f"{output}.format.type": only(["audio/pcm"], _PCM),
        f"{output}.format.rate": only([OUTPUT_RATE], f"speech is made at {OUTPUT_RATE} Hz"),
        f"{output}.voice": _voice,
        f"{output}.speed": _optional(number(*PACES), 1.0),
        f"{output}.pace": _optional(number(*PACES), 1.0),
        f"{output}.steps": _optional(either("auto", number(1, model.steps, whole=True)), "auto"),
        f"{output}.seed": _optional(number(0, SEEDS - 1, whole=True), 0),
        f"{output}.temperature": _optional(number(*TEMPERATURES), 0.0),
        f"{output}.talker": only([model.talker], "it is chosen in the address, ?talker=NAME"),
    }


# what a client may send back as it was told, and cannot change
_KEPT = ("session.id", "session.object", "session.model", "session.expires_at")
_DEFAULTS: dict[str, Any] = {
    "session.tools": [],
    "session.tool_choice": "auto",
    "session.truncation": "auto",
    "session.audio.input.format.type": "audio/pcm",
    "session.audio.output.format.type": "audio/pcm",
    "session.audio.output.format.rate": OUTPUT_RATE,
}


def _optional(check: Check, default: Any) -> Check:
    """Null stands for what it was in the beginning."""
    return lambda param, value: default if value is None else check(param, value)


def _instructions(model: Model) -> Check:
    """Without words they are the model's own."""
    check = _optional(text(4 * model.max_text), "")
    return lambda param, value: check(param, value).strip() or model.instructions


def _realtime(param: str, value: Any) -> str:
    if value == "transcription":
        raise refused(
            param,
            'send type "realtime" with audio.input.transcription and '
            "turn_detection.create_response false: then nothing is answered",
        )
    return only(["realtime"], 'sessions are of type "realtime"')(param, value) or "realtime"


def _modalities(param: str, value: Any) -> list[str]:
    if value is None:
        return ["audio"]
    if value not in (["audio"], ["text"]):
        raise wrong(param, value, '["audio"], which comes with its transcript, or ["text"]')
    return list(value)


def _include(param: str, value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(param, value, f'a list, of "{WORDS}" and "{TOKENS}"')
    for one in value:
        if one not in (WORDS, TOKENS):
            raise refused(param, f'there are "{WORDS}" and "{TOKENS}"')
    return list(dict.fromkeys(value))


def _voice(param: str, value: Any) -> Any:
    given = value.get("id") if isinstance(value, dict) and set(value) == {"id"} else value
    if given is not None and (
        not isinstance(given, str) or given.lower() not in (VOICE, *OPENAI_VOICES)
    ):
        raise RequestError(
            f'there is no such voice; there is "{VOICE}", and the names of OpenAI\'s voices, which '
            "are the same one",
            param,
            code="voice_not_found",
        )
    return given


def _tokens(value: Any) -> int | None:
    return None if value == "inf" else value


def _unknown(param: str, where: str, name: str) -> RequestError:
    told = f"there is no field {param[:80]!r} here"
    if where == "session" and name in _OLD:
        told += f"; it is session.{_OLD[name]} now"
    return RequestError(told, param[:80], code="unknown_parameter")


_OF_SESSIONS = {
    "session.type", "session.tracing", "session.truncation", "session.include",
    *_KEPT, "session.audio.input.format.type", "session.audio.input.format.rate",
    "session.audio.input.noise_reduction", "session.audio.output.talker",
}  # fmt: skip
_OF_RESPONSES: dict[str, Check] = {
    "session.metadata": metadata,
    "session.conversation": only(["auto"], "every response belongs to the conversation"),
    "session.input": only([[]], "every response answers the conversation: create items in it"),
}


def _renamed(error: RequestError) -> RequestError:
    """Of a response, not of a session."""
    param = None if error.param is None else "response" + error.param.removeprefix("session")
    message = (
        str(error).replace(error.param or "\0", param or "").replace(" session.", " response.")
    )
    return RequestError(message, param, code=error.code)
