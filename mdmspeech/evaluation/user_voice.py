"""How good is a voice made from own recordings: is it understood, is it clean, and is it the voice
of the recordings?

Its likeness is told by pitch and by the long-term average spectrum, beside those of the recordings
and of the shipped voice; both are plain measurements, no network's opinion, and neither alone
proves likeness.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np

from mdmspeech.audio.pitch import f0_curve
from mdmspeech.audio.writer import save_wave
from mdmspeech.codec.base import Codec
from mdmspeech.data.datasets.corpus import speech
from mdmspeech.data.texts.open_sentences import HARVARD
from mdmspeech.evaluation.mos import mean_opinion
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.tables import table
from mdmspeech.evaluation.testset import spread, wave_of
from mdmspeech.inference.factory import open_assistant
from mdmspeech.interop.release import load_release
from mdmspeech.interop.sources import load_speech_encoder, load_thinker
from mdmspeech.speech_format import OUTPUT_RATE

BASE = "compact"
_BANDS = 40
_HEADER = ("what", "clips", "WER %", "DNSMOS", "median F0, Hz", "spectrum from yours, dB")


def score_own(
    model: str,
    name: str,
    root: str | Path | None,
    *,
    count: int | None = None,
    samples: Path | None = None,
) -> list[dict[str, Any]]:
    """Rows of figures: the held-out recordings, their tokens decoded, and sentences said, each by
    the shipped voice and by `model`.

    Args:
      model: the release made by `make train-own`. name: of the recordings, as given to
        `mdmspeech data --name`.
      count: sentences said and recordings decoded, at most (None: 30, and all that are held out).
        samples: a folder for a few WAV files.

    Raises:
      UserError: no such release, no such recordings.
    """
    source = speech(root, (name,), "test")
    records = [source[i] for i in spread(len(source), count)]
    originals, texts = (
        [wave_of(record) for record in records],
        [record["text"] for record in records],
    )
    voices = {
        f"{who} voice": open_assistant(load_release(m), load_thinker, load_speech_encoder)
        for who, m in (("shipped", BASE), ("own", model))
    }
    recogniser, reference = Recogniser(), average_spectrum(originals, OUTPUT_RATE)

    def row(what: str, waves: Sequence[np.ndarray], said: Sequence[str]) -> dict[str, Any]:
        if samples is not None:
            samples.mkdir(parents=True, exist_ok=True)
            save_wave(
                samples / f"{what.replace(', ', '-').replace(' ', '-')}.wav", waves[0], OUTPUT_RATE
            )
        score = recogniser.spoken_errors(waves, said, OUTPUT_RATE, label=what).report()
        return {
            "what": what, "clips": len(waves), "wer": score["wer"], "wer_95": score["wer_95"],
            "ovrl": mean_opinion(waves, OUTPUT_RATE)["ovrl"],
            "f0": median_f0(waves, OUTPUT_RATE),
            "spectrum_db": spectrum_distance(average_spectrum(waves, OUTPUT_RATE), reference),
        }  # fmt: skip

    rows = [row("recordings", originals, texts)]
    sentences = [HARVARD[i] for i in spread(len(HARVARD), count)]
    for who, assistant in voices.items():
        codec = assistant.voice().codec
        rows.append(row(f"tokens decoded, {who}", codec.decode(tokens(records, codec)), texts))
    for who, assistant in voices.items():
        rows.append(
            row(
                f"sentences, {who}", [one.audio for one in assistant.say_many(sentences)], sentences
            )
        )
    return rows


def tokens(records: Sequence[dict[str, Any]], codec: Codec) -> list[np.ndarray]:
    """The tokens the recordings were taken in with; those of the codec's own encoder where they
    have none.
    """
    if all("tokens" in record for record in records):
        return [np.asarray(record["tokens"], np.int32) for record in records]
    return codec.encode([wave_of(record) for record in records])


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""

    def cells(row: dict[str, Any]) -> tuple:
        low, high = row["wer_95"]
        return (
            row["what"],
            row["clips"],
            f"{row['wer']} ({low}-{high})",
            row["ovrl"],
            round(row["f0"]),
            round(row["spectrum_db"], 1),
        )

    return table(_HEADER, [cells(row) for row in rows])


def median_f0(waves: Sequence[np.ndarray], rate: int) -> float:
    """Hz, over the voiced frames of all waves; nan without any."""
    curves = np.concatenate([f0_curve(wave, rate) for wave in waves])
    voiced = curves[curves > 0]
    return float(np.median(voiced)) if len(voiced) else float("nan")


def average_spectrum(waves: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """Long-term average spectrum: power in 40 mel bands over all waves, in dB, its own mean taken
    off (level does not count).
    """
    power = librosa.feature.melspectrogram(
        y=np.concatenate(waves), sr=rate, n_fft=1024, hop_length=256, n_mels=_BANDS
    ).mean(axis=1)
    bands_db = 10 * np.log10(power + 1e-10)
    return bands_db - bands_db.mean()


def spectrum_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of two average spectra, dB."""
    return float(np.sqrt(np.mean((one - other) ** 2)))
