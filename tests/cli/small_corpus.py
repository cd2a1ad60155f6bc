"""A corpus of few recordings of noise, with encoder states of questions."""

from pathlib import Path

import numpy as np

from mdmspeech.data.datasets.corpus import folder_of
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.data.synthesis.build import write_datasets


def write(root: Path) -> None:
    """Parts "open", "answers", "mine" and "questions", with states of the last."""
    rng = np.random.default_rng(0)
    for part in ("open", "answers", "mine", "questions"):
        rate = 16_000 if part == "questions" else 24_000
        held_out = {0: "test", 1: "val" if part == "questions" else "train"}
        rows = []
        for n in range(24):
            record = {
                "id": f"{part}-{n}",
                "text": f"It is number {n}.",
                "question": f"What is {n}?",
                "answer": f"It is {n}.",
                "rate": rate,
                "split": held_out.get(n % 8, "train"),
            }
            record |= {"symbols": [0, 5, 6, 0], "frames": [4, 12, 12, 4], "f0": [120] * 80}
            rows.append((record, (3000 * rng.normal(size=int(0.8 * rate))).astype(np.int16)))
        write_shard(root / "raw" / part, "00000-0", rows)
    write_datasets(root)
    spoken = [
        {"id": str(n), "text": "One.", "states": rng.normal(size=(60, 512)).astype(np.float16)}
        for n in range(40)
    ]
    folder = folder_of(root, "states", "questions")
    write_dataset(folder, "states", {"train": spoken, "val": spoken}, width=512)
