"""The microphone and the loudspeaker of this machine, by PortAudio (`sounddevice`, extra `talk`)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import soxr

from mdmspeech.errors import UserError
from mdmspeech.serving.terminal.player import Player

_PIECE_S = 0.032  # of a microphone's sound at a time
_INSTEAD = "mdmspeech chat QUESTION.wav -o ANSWER.wav needs none"


def library() -> Any:
    """The module `sounddevice`. UserError: it, or PortAudio, is not there."""
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise UserError(
            "talking needs the packages of the extra talk: pip install "
            '"mdmspeech[talk]" (in a checkout: .venv/bin/pip install -e ".[talk]")'
        ) from error
    except OSError as error:
        raise UserError(
            f"PortAudio, which reaches microphones, is not installed ({error}); on Debian and "
            f"Ubuntu: apt-get install libportaudio2. {_INSTEAD}"
        ) from error
    return sounddevice


@contextmanager
def open_sound_card(
    player: Player, heard: Callable[[np.ndarray, float], None], sounds: Any = None
) -> Iterator[None]:
    """Plays what `player` has, and gives what the microphone hears to `heard` (samples [N], rate).

    sounds: instead of `library()`. UserError: no microphone or no loudspeaker, or they cannot be
    opened.
    """
    sounds = library() if sounds is None else sounds
    into, out = _device(sounds, "input", "microphone"), _device(sounds, "output", "loudspeaker")
    rate = float(into["default_samplerate"])
    play_rate = _play_rate(sounds, player.rate, out)
    turned = None if play_rate == player.rate else soxr.ResampleStream(player.rate, play_rate, 1)
    waiting = [np.zeros(0, np.float32)]

    def listen(samples: np.ndarray, *_: Any) -> None:
        heard(samples[:, 0].copy(), rate)

    def play(samples: np.ndarray, count: int, *_: Any) -> None:
        if turned is None:
            samples[:, 0] = player.fill(count)
            return
        ready = waiting[0]
        while len(ready) < count:
            ready = np.concatenate([ready, turned.resample_chunk(player.fill(player.rate // 50))])
        samples[:, 0], waiting[0] = ready[:count], ready[count:]

    with ExitStack() as opened:
        try:
            for stream in (
                sounds.InputStream(
                    samplerate=rate,
                    channels=1,
                    dtype="float32",
                    blocksize=int(_PIECE_S * rate),
                    callback=listen,
                ),
                sounds.OutputStream(
                    samplerate=play_rate, channels=1, dtype="float32", callback=play
                ),
            ):
                opened.enter_context(stream)
        except sounds.PortAudioError as error:
            raise UserError(
                f"the sound card cannot be opened ({error}); is another program using it? "
                f"{_INSTEAD}"
            ) from error
        yield


def _device(sounds: Any, kind: str, name: str) -> Any:
    try:
        return sounds.query_devices(kind=kind)
    except (sounds.PortAudioError, ValueError) as error:
        raise UserError(f"this machine has no {name} ({error}); {_INSTEAD}") from error


def _play_rate(sounds: Any, rate: int, device: Any) -> int:
    """The player's rate, or the device's own where it takes no other."""
    try:
        sounds.check_output_settings(samplerate=rate, channels=1, dtype="float32")
    except (sounds.PortAudioError, ValueError):
        return int(device["default_samplerate"])
    return rate
