"""What `random_source` has for the Talker and the Thinker, for the other stages: recordings for the codec, encoder states for the adaptors."""

from typing import Any

import numpy as np

from mdmspeech.data.pipelines.random_source import RandomSpeech, random_text
from mdmspeech.speech_format import DURATION_SECONDS, F0_RATE, OUTPUT_RATE


class RandomRecordings:
    """`source[i]` -> {id, audio int16 at 24 kHz, symbols, frames, f0 float32 at 100 Hz}: each symbol a hum of its own loudness, with its true durations."""

    def __init__(self, count: int = 64, seed: int = 0, *, symbols: int = 128):
        self._speech, self._seed = RandomSpeech(count, seed, symbols=symbols), seed

    def __len__(self) -> int:
        return len(self._speech)

    def __getitem__(self, i: int) -> dict:
        record, rng = self._speech[i], np.random.default_rng((self._seed, int(i), 4))
        frames = record["frames"]
        loudness = np.repeat(rng.uniform(0.0, 0.3, len(frames)), frames * int(DURATION_SECONDS * OUTPUT_RATE))
        f0 = rng.uniform(90.0, 220.0)
        hum = np.sin(2 * np.pi * f0 * np.arange(len(loudness)) / OUTPUT_RATE)
        audio = np.round(32767 * loudness * hum).astype(np.int16)
        pitch = np.full(-(-len(audio) * F0_RATE // OUTPUT_RATE), f0, np.float32)
        return {"id": record["id"], "audio": audio, "symbols": record["symbols"], "frames": frames, "f0": pitch}


class RandomStates:
    """As `states.StateStore`: `source[i]` -> {id, text, answer, states float16 [T, width]}, and `records` without the states."""

    def __init__(self, width: int, count: int = 64, seed: int = 0):
        self._width, self._seed = width, seed
        rng = np.random.default_rng((seed, 5))
        texts = [random_text(rng, 5.0) for _ in range(count)]
        self.records: list[dict[str, Any]] = [
            {"id": f"random-{i}", "text": text, "answer": "", "states": 25 + 3 * len(text)} for i, text in enumerate(texts)
        ]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict:
        record = self.records[i]
        states = np.random.default_rng((self._seed, int(i), 6)).standard_normal((record["states"], self._width))
        return {**record, "states": states.astype(np.float16)}
