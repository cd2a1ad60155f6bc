"""The prefetch thread: order, positions, errors, ending."""

import threading

import numpy as np
import pytest
from tiny import Numbers

from mdmspeech.training.prefetch import Prefetcher


def feed(batches, ahead=2):
    return Prefetcher(batches, lambda arrays: arrays, lambda batch: len(batch["id"]), ahead)


def test_each_batch_carries_its_own_position_and_ids():
    source = feed(Numbers(0, 4), ahead=5)
    for index in range(3):
        fed = next(source)
        assert fed.data_state == {"position": 4 * (index + 1)}
        assert fed.ids == [f"record-{4 * index + i}" for i in range(4)]
        assert fed.units == 4
        assert set(fed.arrays) == {"x", "y", "mask"}
    source.close()


def test_text_stays_on_the_host():
    class WithText(Numbers):
        def __next__(self):
            return super().__next__() | {
                "text": np.array(["a"] * 4),
                "flag": np.zeros(4, bool),
                "half": np.zeros(4, np.float16),
            }

    source = feed(WithText(0, 4))
    assert set(next(source).arrays) == {"x", "y", "mask", "flag", "half"}
    source.close()


@pytest.mark.parametrize("error", [ValueError("bad record 7"), StopIteration()])
def test_errors_come_out_where_the_batch_is_asked_for_and_stay(error):
    class Fails(Numbers):
        def __next__(self):
            if self.position >= 8:
                raise error
            return super().__next__()

    source = feed(Fails(0, 4))
    next(source), next(source)
    for _ in range(2):
        with pytest.raises(type(error)):
            next(source)
    source.close()


def test_closing_ends_the_thread():
    source = feed(Numbers(0, 4), ahead=1)
    next(source)
    source.close()
    assert not [t for t in threading.enumerate() if t.name == "feed"]
