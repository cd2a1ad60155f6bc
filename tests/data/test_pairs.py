"""Pairs of recordings: what is heard is what is written, in the same order."""

import numpy as np

from mdmspeech.preprocessing.precompute import BETWEEN, WithPairs


class Few:
    def __len__(self):
        return 6

    def fields(self, i):
        return {
            "id": f"r{i}",
            "text": f"text {i}.",
            "rate": 100,
            "samples": 150 + 500 * (i == 5),
            "answer": f"a{i}",
        }

    def __getitem__(self, i):
        return {**self.fields(i), "audio": np.full(self.fields(i)["samples"], i + 1, np.int16)}


def test_recordings_come_first_and_unchanged():
    joined = WithPairs(Few(), 2.0)
    assert [joined.fields(i) for i in range(6)] == [Few().fields(i) for i in range(6)]


def test_pairs():
    joined = WithPairs(Few(), 2.0)
    assert 12 < len(joined) <= 18
    for i in range(6, len(joined)):
        record, fields = joined[i], joined.fields(i)
        assert len(record["audio"]) == record["samples"] == fields["samples"] < 1300
        heard = [
            int(v) - 1
            for v in record["audio"][np.flatnonzero(np.diff(record["audio"], prepend=0))]
            if v
        ]
        assert record["text"] == " ".join(f"text {n}." for n in heard) or record[
            "text"
        ] == " ".join(f"text {heard[0]}." for _ in range(2))
        silent = int((record["audio"] == 0).sum())
        assert BETWEEN[0] * 100 - 1 <= silent <= BETWEEN[1] * 100


def test_the_same_every_time():
    assert [WithPairs(Few(), 1.0).fields(i) for i in range(len(WithPairs(Few(), 1.0)))] == [
        WithPairs(Few(), 1.0).fields(i) for i in range(len(WithPairs(Few(), 1.0)))
    ]
