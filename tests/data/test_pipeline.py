"""The Grain pipeline: deterministic, bucketed, padded, its position saved and restored."""

import collections

import numpy as np
import pytest

from mdmspeech.data.pipelines.bucketed import BatchPlan, batches, collate
from mdmspeech.errors import UserError

LENGTHS = np.random.default_rng(0).integers(1, 100, 57)


class Source:
    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, i):
        return {"id": f"r{i}", "audio": np.arange(1, LENGTHS[i] + 1, dtype=np.int16), "gain": 1.0}


def pipeline(**changes):
    return batches(Source(), {"audio": LENGTHS}, **{"batch": 4, "multiples": {"audio": 16}, "bucket": 16, "seed": 3, **changes})


def test_same_seed_same_batches_and_another_seed_others():
    first, again, other = (next(iter(pipeline(seed=s))) for s in (3, 3, 4))
    assert first["id"].tolist() == again["id"].tolist() != other["id"].tolist()


def test_position_is_saved_and_restored():
    iterator = iter(pipeline())
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator)["id"].tolist() for _ in range(4)]
    fresh = iter(pipeline())
    fresh.set_state(state)
    assert [next(fresh)["id"].tolist() for _ in range(4)] == expected


def test_an_epoch_has_every_record_and_fills_its_last_batch_with_some_again():
    ids = [b["id"].tolist() for b in pipeline(epochs=2)]
    per_epoch = -(-len(LENGTHS) // 4)
    first, second = ids[:per_epoch], ids[per_epoch:]
    assert len(ids) == 2 * per_epoch
    for epoch in (first, second):
        seen = collections.Counter(i for b in epoch for i in b)
        assert len(seen) == len(LENGTHS) and max(seen.values()) <= 2 and seen.total() == 60
    assert first != second


def test_batches_hold_similar_lengths():
    plan = BatchPlan(LENGTHS, 4, 16, 0)
    spread = [np.ptp(-(-LENGTHS[numbers] // 16)) for _, numbers in (plan[i] for i in range(plan.per_epoch))]
    assert np.mean(np.array(spread) == 0) > 0.5 and max(spread) <= 2


def test_padding_is_zero_and_lengths_are_true():
    batch = next(iter(pipeline()))
    for row, length, name in zip(batch["audio"], batch["audio_length"], batch["id"], strict=True):
        assert length == LENGTHS[int(name[1:])]
        assert (row[:length] == np.arange(1, length + 1)).all() and not row[length:].any()
    assert batch["audio"].shape[1] % 16 == 0 and batch["gain"].shape == (4,)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_make_their_rows_of_the_same_batches(hosts):
    def noisy(record, rng):
        return {**record, "gain": rng.random()}

    for whole, *shares in zip(
        pipeline(epochs=1, change=noisy), *[pipeline(epochs=1, change=noisy, shard=(h, hosts)) for h in range(hosts)], strict=True
    ):
        for name, value in whole.items():
            assert (np.concatenate([share[name] for share in shares]) == value).all(), name


def test_several_hosts_must_know_all_lengths():
    with pytest.raises(UserError, match="lengths of text must be given"):
        pipeline(multiples={"audio": 16, "text": 4}, shard=(0, 2))


def test_change_is_seeded_by_the_position():
    def noisy(record, rng):
        return {**record, "audio": record["audio"] + rng.integers(0, 100, len(record["audio"])).astype(np.int16)}

    one, two = (next(iter(pipeline(change=noisy)))["audio"] for _ in range(2))
    plain = next(iter(pipeline()))["audio"]
    assert (one == two).all() and (one != plain).any()


def test_too_few_records_is_a_clear_error():
    with pytest.raises(UserError, match="fewer than one batch"):
        pipeline(batch=64)


def test_collate_pads_several_fields():
    batch = collate([{"a": [1], "b": [1, 2, 3], "t": "x"}, {"a": [], "b": [4], "t": "y"}], {"a": 2, "b": 4})
    assert batch["a"].tolist() == [[1, 0], [0, 0]] and batch["b"].shape == (2, 4)
    assert batch["a_length"].tolist() == [1, 0] and batch["t"].tolist() == ["x", "y"]
