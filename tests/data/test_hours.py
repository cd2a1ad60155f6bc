"""So many hours of spoken questions: of each part alike, as long as it lasts."""

import numpy as np
import pytest

from mdmspeech.data.datasets import corpus
from mdmspeech.data.datasets.writer import write_dataset


def questions(folder, **seconds):
    """A corpus whose parts have so many questions of a second each."""
    for part, many in seconds.items():
        rows = [
            {"id": f"{part}{n}", "text": "Yes?", "answer": "Yes.", "rate": 16_000,
                "audio": np.zeros(16_000, np.int16)}
            for n in range(many)
        ]  # fmt: skip
        write_dataset(corpus.folder_of(folder, "recordings", part), "recordings", {"train": rows})


@pytest.mark.parametrize(("hours", "count"), [(None, 4), (1, 4), (2.9e-4, 2), (1e-9, 1)])
def test_the_first_hours_of_the_questions(hours, count, tmp_path):
    questions(tmp_path, questions=4)
    assert len(corpus.questions(tmp_path, "train", hours)) == count


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [(100, [1, 4, 6]), (3, [1, 1, 1]), (7, [1, 3, 3]), (10, [1, 4, 5]), (5.5, [1, 3, 3])],
)
def test_hours_are_of_each_part_alike(seconds, counts, tmp_path):
    """Of a small one all, and the others have its rest."""
    questions(tmp_path, a=1, b=4, c=6)
    found = corpus.questions(tmp_path, "train", seconds / 3600, tuple("abc"))
    ids = [found.fields(i)["id"] for i in range(len(found))]
    assert ids == [f"{p}{n}" for p, many in zip("abc", counts, strict=True) for n in range(many)]
