"""Real human speech with transcripts, for testing only: Asterisk's English prompts (one woman,
CC-BY-SA-3.0) and pocketsphinx's test clips (BSD).

The clips become question records of the family `human` (the answer is the transcript, for a system
that is told to repeat) and `human repeat` (a test voice first says "Now repeat what I say:"). They
never enter training.
"""

import gzip
import pathlib
import re
import subprocess
from collections.abc import Iterator

import numpy as np

from mdmspeech.data.storage import record_store
from mdmspeech.data.storage.splits import words_of
from mdmspeech.data.synthesis import voices
from mdmspeech.data.synthesis.render import to_int16
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.errors import UserError
from mdmspeech.speech_format import INPUT_RATE
from mdmspeech.text.normalise import normalise, sentence

SOUNDS = pathlib.Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = pathlib.Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
SPHINX = pathlib.Path("/usr/share/pocketsphinx/test/data")
CURE = (
    "sudo apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-en "
    "pocketsphinx-testdata ffmpeg"
)
WORDS, SECONDS = range(3, 17), (0.8, 12.0)  # of a clip that can be asked for and scored
PREFIX = "Now repeat what I say:"
PREFIX_VOICES = [("kokoro", "am_puck"), ("kokoro", "bf_lily")]
PAUSE = 0.25  # seconds between the prefix and the clip


def import_human(folder: pathlib.Path, repeats: int = 100) -> int:
    """Writes the clips as one shard of question records; returns how many. repeats: how many clips
    also get a spoken prefix.
    """
    clips = [*asterisk_clips(), *sphinx_clips()]
    recordings = [
        _record(name, text, text, "human", voice, audio) for name, text, voice, audio in clips
    ]
    prefixes = [_prefix(*who) for who in PREFIX_VOICES]
    pause = np.zeros(int(PAUSE * INPUT_RATE), np.float32)
    for n, (name, text, voice, audio) in enumerate(
        clips[:: max(1, len(clips) // repeats)][:repeats]
    ):
        prefix = prefixes[n % len(prefixes)]
        level = np.sqrt(np.mean(audio**2) / np.mean(prefix**2))  # the two speakers equally loud
        recordings.append(
            _record(
                f"{name}-repeat",
                f"{PREFIX} {text}",
                text,
                "human repeat",
                voice,
                np.concatenate([prefix * level, pause, audio]),
            )
        )
    for name in record_store.shard_names(folder):
        record_store.remove_shard(folder, name)
    record_store.write_shard(folder, "00000-human", recordings)
    return len(recordings)


def asterisk_clips() -> Iterator[tuple[str, str, str, np.ndarray]]:
    """(name, transcript, speaker, float32 audio at 16 kHz) of the prompts that are whole phrases of
    plain words.
    """
    if not TRANSCRIPTS.exists() or not SOUNDS.exists():
        raise UserError(f"the human test clips are missing: {CURE}")
    for line in (
        gzip.decompress(TRANSCRIPTS.read_bytes()).decode("utf-8", errors="replace").splitlines()
    ):
        name, colon, written = line.partition(": ")
        path = SOUNDS / f"{name}.g722"
        text = sentence(normalise(written.replace("...", ""))) if colon else ""
        if (
            len(words_of(text)) not in WORDS
            or not re.fullmatch(r"[A-Za-z ,.;'?!-]+", text)
            or "/" in name
            or not path.exists()
        ):
            continue
        audio = _decode(path)
        if SECONDS[0] <= len(audio) / INPUT_RATE <= SECONDS[1]:
            yield name, text, "allison", audio


def sphinx_clips() -> Iterator[tuple[str, str, str, np.ndarray]]:
    """The same of pocketsphinx's LibriVox and playing-card clips."""
    for listed, voice in (
        (SPHINX / "librivox" / "transcription", "librivox"),
        (SPHINX / "cards" / "cards.transcription", "cards"),
    ):
        if not listed.exists():
            raise UserError(f"the human test clips are missing: {CURE}")
        for text, name in re.findall(
            r"<s>(.*?)</s>\s*\((.*?)\)", listed.read_text(encoding="utf-8")
        ):
            audio = _decode(listed.parent / f"{name}.wav")
            if len(words_of(text)) in WORDS and SECONDS[0] <= len(audio) / INPUT_RATE <= SECONDS[1]:
                yield f"{voice}-{name}", sentence(text), voice, audio


def _record(
    name: str, text: str, answer: str, family: str, voice: str, audio: np.ndarray
) -> tuple[record_store.Record, np.ndarray]:
    fields = {
        "id": f"human-{name}",
        "text": text,
        "answer": answer,
        "family": family,
        "phrasing": f"{family}/clip",
        "voice": voice,
    }
    return {**fields, "engine": "human", "rate": INPUT_RATE, "split": "test"}, to_int16(audio)


def _prefix(engine: str, voice: str) -> np.ndarray:
    import soxr

    spoken = voices.load(engine).speak(Job("prefix", PREFIX, engine, voice))
    return soxr.resample(spoken.audio, spoken.rate, INPUT_RATE)


def _decode(path: pathlib.Path) -> np.ndarray:
    """Any audio file -> float32 mono at 16 kHz, through ffmpeg (libsndfile knows no G.722)."""
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "f32le",
        "-ac",
        "1",
        "-ar",
        str(INPUT_RATE),
        "-",
    ]
    try:
        run = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except FileNotFoundError as error:
        raise UserError(f"ffmpeg is not installed: {CURE}") from error
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"{path} cannot be read as audio: {error.stderr.decode(errors='replace').strip()}"
        ) from error
    return np.frombuffer(run.stdout, "<f4").copy()
