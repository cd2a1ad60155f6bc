"""Sessions over small random parts, in fast time: the real state machine, a question that is really
speech, and a clock that only moves when it is told to.
"""

import dataclasses
import os
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import small_speech

from mdmspeech.audio.wave import load_wave
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import ResponseAudio
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.models.thinker import Thinker
from mdmspeech.text.prompts import Prompt

RATE = 16_000
SETTINGS = {"warm_up": False, "context": 256, "steps": 2}


class Clock:
    """Seconds."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def talkative() -> ThinkerRunner:
    """A random Thinker whose answers are several words and depend on the question."""
    config = dataclasses.replace(small_speech.THINKER, tie_embeddings=False)
    params = jax.jit(Thinker(config).init)(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))[
        "params"
    ]
    params["output"]["kernel"] = params["output"]["kernel"] * 5
    params["embedding"]["embedding"] = params["embedding"]["embedding"] * 5
    return ThinkerRunner(
        config, params, small_speech.chat_tokenizer(), Prompt("be kind"), max_new=12
    )


def model(assistant: Assistant) -> Assistant:
    """With the voices and the front end of another one."""
    thinker = talkative()
    voices = {name: lambda name=name: assistant.voice(name) for name in assistant.talkers}
    return Assistant("small", voices, lambda: assistant.frontend, lambda: thinker)


def opened(model, clock=None, **settings) -> Session:
    """That has told that it is open."""
    session = Session(model, SessionConfig(**SETTINGS | settings), clock=clock or Clock())
    assert session.work() and type(session.events.get()).__name__ == "SessionOpened"
    return session


def asked() -> np.ndarray:
    """Three seconds of speech."""
    return load_wave(str(resources.files("mdmspeech") / "assets" / "question.wav"))


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def work(session, at_most=10_000):
    """Until there is none."""
    for _ in range(at_most):
        if not session.work():
            return
    raise AssertionError("work without end")


def events(session):
    """Those that wait."""
    found = []
    while (event := session.events.get()) is not None:
        found.append(event)
    return found


def run(session, *waves, piece=1600):
    """Pushes sound as it is recorded, and works until there is nothing to do after each piece."""
    whole, found = np.concatenate([silence(0), *waves]), []
    for at in range(0, len(whole), piece):
        session.push_audio(whole[at : at + piece])
        work(session)
        found += events(session)
    return found


def of(found, kind):
    return [event for event in found if isinstance(event, kind)]


def plain(found):
    """Events that can be compared."""
    return [
        (
            type(event).__name__,
            *(
                _plain(getattr(event, field.name))
                for field in dataclasses.fields(event)
                if field.compare
            ),
        )
        for event in found
    ]


def joined(found):
    """Samples of the responses."""
    return np.concatenate([silence(0), *(event.audio for event in of(found, ResponseAudio))])


def _plain(value):
    return (str(value.dtype), value.tolist()) if isinstance(value, np.ndarray) else value


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
