"""The answer voice, and pseudo-speakers made from it: `hibari-tts` (Apache-2.0, 24 kHz,
deterministic, ~75x real time on one core).

Two things the library does not give are read out of its ONNX graph: the duration of every phoneme
(the output of the node that rounds and clips them, in 25 ms frames) and the F0 curve (80 Hz). They
are the Talker's pacing targets and the codec's source signal.

A pseudo-speaker moves the formants by resampling: the voice speaks `formant` times slower at F0 /
`formant`, and the result is played that much faster.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError
from mdmspeech.speech_format import DURATION_SECONDS, F0_SECONDS, OUTPUT_RATE
from mdmspeech.text.pronounce import (
    BOUNDARY,
    Pronouncer,
    import_hibari,
    pronouncer,
    split_at_boundaries,
)

SAMPLES_PER_FRAME = int(OUTPUT_RATE * DURATION_SECONDS)
F0_FRAME = 0.0125  # seconds per value of the model's F0 curve
UNVOICED_BELOW = 40.0  # Hz, the model's own threshold
# the model starts every sentence with about 0.35 s of silence; an answer should not: 0.1 s is kept
LEAD_FRAMES = 4


@dataclasses.dataclass(frozen=True)
class HibariVoice:
    """A pseudo-speaker: formant shift (1 = the voice itself, >1 a shorter vocal tract), mean F0 in
    Hz, width of the F0 range (1 = natural).
    """

    formant: float
    f0: float
    f0_range: float

    @property
    def name(self) -> str:
        """For example `shift1.12_f0230_range0.9`, which `parse` reads back."""
        return f"shift{self.formant:.2f}_f{self.f0:04.0f}_range{self.f0_range:.2f}"

    @classmethod
    def parse(cls, name: str) -> "HibariVoice":
        """The inverse of `name`."""
        try:
            shift, f0, width = name.split("_")
            return cls(
                float(shift.removeprefix("shift")),
                float(f0.removeprefix("f")),
                float(width.removeprefix("range")),
            )
        except ValueError as error:
            raise UserError(
                f"pseudo-speaker {name!r} is not of the form shift1.10_f0220_range0.90"
            ) from error


class Hibari:
    """Voice `heart` is the voice itself, with durations and F0 in the fields; any
    `HibariVoice.name` is a pseudo-speaker (audio only).
    """

    def __init__(self, pronounce: Pronouncer | None = None):
        self._pronounce = pronounce or pronouncer()
        self._session = _session()
        self._synth = import_hibari("hibari.dsp").synth

    def speak(self, job: Job) -> Rendered:
        """One job; for `heart` the fields are symbols (M ids), frames (M durations in 25 ms frames)
        and f0 (Hz at 100 Hz, 0 = unvoiced).
        """
        if job.voice == "heart":
            return self._speak_plainly(job)
        audio, rate, _, _ = self.speak_timed(job)
        return Rendered(audio, rate, {})

    def speak_timed(self, job: Job) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
        """A pseudo-speaker's wave and its rate, the symbols [M] and when each ends [M], in seconds."""
        speaker, rng, parts, lasting = (
            HibariVoice.parse(job.voice),
            np.random.default_rng(job.seed),
            [],
            [0.0],
        )
        spoken = self._pronounce(job.text)
        for symbols in split_at_boundaries(spoken):
            spectra, f0, frames = self._run(symbols, job.speed / speaker.formant)
            parts.append(self._synth(*spectra, _shift_f0(f0, speaker), rng))
            seconds = frames * (DURATION_SECONDS / speaker.formant)
            # the end of one sentence and the start of the next share a boundary
            lasting[-1] += seconds[0]
            lasting += seconds[1:].tolist()
        audio = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return _resample(audio, speaker.formant), OUTPUT_RATE, spoken.symbols, np.cumsum(lasting)

    def _speak_plainly(self, job: Job) -> Rendered:
        spoken, rng = self._pronounce(job.text), np.random.default_rng(job.seed)
        audio, f0_80, frames = [], [], [0]
        for symbols in split_at_boundaries(spoken):
            spectra, f0, durations = self._run(symbols, job.speed)
            wave = self._synth(*spectra, f0, rng)
            cut = max(0, durations[0] - LEAD_FRAMES)
            durations[0] -= cut
            audio.append(wave[cut * SAMPLES_PER_FRAME :])
            f0_80.append(f0[2 * cut :])
            # the end of one sentence and the start of the next share a boundary
            frames[-1] += durations[0]
            frames += durations[1:].tolist()
        if not audio:
            raise ValueError(f"nothing to say in {job.text!r}")
        wave = np.concatenate(audio)
        fields = {
            "symbols": spoken.symbols.tolist(),
            "frames": [int(n) for n in frames],
            "f0": resample_f0(np.concatenate(f0_80), len(wave) / OUTPUT_RATE).tolist(),
        }
        return Rendered(wave, OUTPUT_RATE, fields)

    def _run(self, symbols: np.ndarray, speed: float):
        """One sentence through the network: spectral parts (five [601, F]), f0 [F] in Hz at 80 Hz,
        durations int [M + 2] in 25 ms frames.
        """
        ids = self._pronounce.native_ids[[BOUNDARY, *symbols, BOUNDARY]]
        outputs = self._session.run(
            None, {"ids": ids[None], "speed": np.array([speed], np.float32)}
        )
        *spectra, f0, frames = outputs
        return [s[0] for s in spectra], f0[0], np.rint(frames).astype(int)


def resample_f0(f0_80: np.ndarray, seconds: float) -> np.ndarray:
    """F0 at 80 Hz -> int Hz at 100 Hz (frame centres), interpolated between voiced neighbours only;
    0 = unvoiced.
    """
    centres = (np.arange(round(seconds / F0_SECONDS)) + 0.5) * F0_SECONDS / F0_FRAME - 0.5
    left = np.clip(np.floor(centres).astype(int), 0, len(f0_80) - 1)
    right = np.clip(left + 1, 0, len(f0_80) - 1)
    nearest = np.clip(np.rint(centres).astype(int), 0, len(f0_80) - 1)
    between = f0_80[left] + (centres - left) * (f0_80[right] - f0_80[left])
    both_voiced = (f0_80[left] > UNVOICED_BELOW) & (f0_80[right] > UNVOICED_BELOW)
    f0 = np.where(both_voiced, between, f0_80[nearest])
    return np.where(f0 > UNVOICED_BELOW, np.rint(f0), 0).astype(int)


def _shift_f0(f0: np.ndarray, speaker: HibariVoice) -> np.ndarray:
    """The F0 curve a pseudo-speaker must be synthesised with, so that it comes out right after the
    formant resampling.
    """
    voiced = f0 > UNVOICED_BELOW
    if not voiced.any():
        return f0
    log_f0 = np.log(np.maximum(f0, UNVOICED_BELOW))
    moved = np.exp(np.log(speaker.f0) + (log_f0 - log_f0[voiced].mean()) * speaker.f0_range)
    return np.where(voiced, moved / speaker.formant, 0).astype(np.float32)


def _resample(audio: np.ndarray, formant: float) -> np.ndarray:
    if formant == 1 or not len(audio):
        return audio
    import soxr

    return soxr.resample(audio, OUTPUT_RATE, OUTPUT_RATE / formant)


@functools.lru_cache(maxsize=1)
def _session():
    """The library's own model with its duration node as one more output, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = pathlib.Path(import_hibari("hibari.tts").ASSETS) / "hibari.onnx"
    return onnxruntime.InferenceSession(
        _with_durations(path), options, providers=["CPUExecutionProvider"]
    )


def _with_durations(path: pathlib.Path) -> bytes:
    """The ONNX file with the durations exposed: the Clip that follows a Round and feeds (through
    casts) the CumSum of the alignment.
    """
    import onnx

    model = onnx.load(path)
    rounded = {n.output[0] for n in model.graph.node if n.op_type == "Round"}
    durations = [
        n.output[0] for n in model.graph.node if n.op_type == "Clip" and n.input[0] in rounded
    ]
    if len(durations) != 1:
        raise UserError(
            f"{path}: expected one Round -> Clip pair (the durations), found "
            f"{len(durations)}; install hibari-tts 0.2.x"
        )
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(durations[0]))
    return model.SerializeToString()
