"""Who speaks texts that have no recording: an installed voice, any program, an HTTP endpoint.

    hibari, kokoro:af_nicole, piper, ...   `synthesis.voices`, with the speaker after the colon
    command:PROGRAM ARGS                   a program that writes a sound file; in its arguments {text},
                                           {text_file}, {voice} and {out} stand for what they say
    http://HOST/PATH, https://...          POST {"text", "voice", "id", "seed"}, answered by the bytes
                                           of a sound file

A record that names a speaker is spoken by that one.
"""

import dataclasses
import functools
import io
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mdmspeech.audio.wave import load_wave
from mdmspeech.data.synthesis import voices
from mdmspeech.data.synthesis.build import LICENCES
from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError
from mdmspeech.remote import retrying
from mdmspeech.speech_format import OUTPUT_RATE

Voice = Callable[[Job], Rendered]
COMMAND = "command:"
_WEB = ("http://", "https://")
_USUAL = {
    "hibari": "heart",
    "kokoro": "af_heart",
    "piper": "joe",
    "flite": "slt",
    "espeak": "en-us",
}
_FIELD = re.compile(r"\{(text|text_file|voice|out)\}")
_SECONDS = 120.0  # for one text
_LONGEST = 120.0  # seconds of speech


def open_voice(spec: str) -> Voice:
    """The function that speaks, loaded. Raises UserError for a voice that is not there."""
    if spec.startswith(COMMAND):
        return functools.partial(_run, _words(spec))
    if spec.startswith(_WEB):
        return functools.partial(_ask, spec)
    engine, _, speaker = spec.partition(":")
    return functools.partial(_speak, voices.load(engine), engine, speaker or _USUAL.get(engine, ""))


def known_as(spec: str) -> str:
    """What the records call it: the engine, the program or the endpoint."""
    if spec.startswith(COMMAND):
        return Path(_words(spec)[0]).name
    if spec.startswith(_WEB):
        return re.sub(r"\?.*", "", re.sub(r"(?<=://)[^/@]*@", "", spec))
    return spec.partition(":")[0]


def licence(spec: str) -> str:
    """Of what it speaks; "" where that is not known."""
    return LICENCES.get(known_as(spec), "") if not spec.startswith((COMMAND, *_WEB)) else ""


def _words(spec: str) -> list[str]:
    try:
        words = shlex.split(spec.removeprefix(COMMAND))
    except ValueError as error:
        raise UserError(f"--voice {spec}: {error}; quote it as for a shell") from error
    used = {name for word in words for name in _FIELD.findall(word)}
    if not words or "out" not in used or not used & {"text", "text_file"}:
        raise UserError(
            f"--voice {spec}: a command needs {{out}}, the file it writes, and {{text}} or "
            "{text_file}, for example: command:flite -f {text_file} -o {out}"
        )
    if not shutil.which(words[0]):
        raise UserError(
            f"--voice: the program {words[0]} is not installed; install it, or give its path"
        )
    return words


def _speak(loaded: voices.Engine, engine: str, usual: str, job: Job) -> Rendered:
    try:
        return loaded.speak(dataclasses.replace(job, engine=engine, voice=job.voice or usual))
    except UserError as error:
        if not job.voice:
            raise
        raise ValueError(f"{engine} has no speaker {job.voice!r}: {error}") from error


def _run(words: list[str], job: Job) -> Rendered:
    with tempfile.TemporaryDirectory(prefix="mdmspeech-voice-") as folder:
        text, out = Path(folder) / "text.txt", Path(folder) / "out.wav"
        text.write_text(job.text + "\n", encoding="utf-8")
        values = {"text": job.text, "text_file": str(text), "voice": job.voice, "out": str(out)}
        command = [_FIELD.sub(lambda found: values[found[1]], word) for word in words]
        try:
            run = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{words[0]} took more than {_SECONDS:g} s") from error
        if run.returncode or not out.exists():
            told = run.stderr.decode(errors="replace").strip()[:200]
            raise ValueError(f"{words[0]} failed with {run.returncode}: {told}")
        return _read(out.read_bytes(), words[0])


def _ask(url: str, job: Job) -> Rendered:
    said = {"text": job.text, "voice": job.voice, "id": job.id, "seed": job.seed}
    request = urllib.request.Request(
        url, json.dumps(said).encode(), {"Content-Type": "application/json"}, method="POST"
    )

    def answer() -> bytes:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            return response.read()

    try:
        data = retrying.call(answer)
    except retrying.GivenUp as given_up:
        error: BaseException = given_up.error
        code = retrying.status(error)
        if code is not None and 400 <= code < 500 and code not in (401, 403, 404):
            raise ValueError(f"it was refused: {retrying.reason(error)}") from error  # this text
        raise UserError(
            f"the voice {known_as(url)} does not answer: {retrying.reason(error)}; start it, "
            "or name another --voice"
        ) from error
    return _read(data, known_as(url))


def _read(data: bytes, name: str) -> Rendered:
    try:
        wave = load_wave(io.BytesIO(data), OUTPUT_RATE, max_seconds=_LONGEST)
    except UserError as error:
        raise ValueError(f"what {name} gave is no speech: {error}") from error
    return Rendered(wave, OUTPUT_RATE, {})
