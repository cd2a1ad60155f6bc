"""Pairs of recordings heard in a row with a pause between them, so that a pause inside a question is not taken for its end."""

import numpy as np

PAUSE = (0.2, 0.8)  # seconds
_LONGEST = 12.0  # seconds of a pair


class WithPairs:
    """Random access like `data.storage.sources.Records`: all of the recordings, then `share` times as many pairs of them. Pairs that would be too long are left out."""

    def __init__(self, records, share: float, seed: int = 0):
        self._records = records
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(records), size=(int(share * len(records)), 2))
        pauses = rng.uniform(*PAUSE, size=len(drawn))
        self._pairs = [(int(a), int(b), pause) for (a, b), pause in zip(drawn, pauses, strict=True) if self._seconds(a, b) < _LONGEST]

    def __len__(self) -> int:
        return len(self._records) + len(self._pairs)

    def __getitem__(self, i: int) -> dict:
        if i < len(self._records):
            return self._records[i]
        a, b, pause = self._pairs[i - len(self._records)]
        first, second = self._records[a], self._records[b]
        gap = np.zeros(int(pause * first["rate"]), np.asarray(first["audio"]).dtype)
        audio = np.concatenate([first["audio"], gap, second["audio"]])
        return {**self.fields(i), "audio": audio, "samples": len(audio)}

    def fields(self, i: int) -> dict:
        """The record without its audio."""
        if i < len(self._records):
            return self._records.fields(i)
        a, b, pause = self._pairs[i - len(self._records)]
        first, second = self._records.fields(a), self._records.fields(b)
        return {
            "id": f"{first['id']}+{second['id']}",
            "text": f"{first['text']} {second['text']}",
            "answer": "",
            "rate": first["rate"],
            "samples": first["samples"] + int(pause * first["rate"]) + second["samples"],
        }

    def _seconds(self, a: int, b: int) -> float:
        return sum(f["samples"] / f["rate"] for f in (self._records.fields(int(a)), self._records.fields(int(b))))
