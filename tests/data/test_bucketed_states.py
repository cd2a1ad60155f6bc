"""Bucketed batches of states: deterministic, of similar lengths, padded, their position saved and
restored.
"""

import collections

import numpy as np
import pytest

from mdmspeech.data.pipelines.bucketed_states import BatchPlan, state_batches
from mdmspeech.data.pipelines.random_source import RandomStates
from mdmspeech.errors import UserError

LENGTHS = np.random.default_rng(0).integers(1, 100, 57)
SOURCE = RandomStates(4, count=21)


def letters(text):
    return [ord(character) for character in text]


def batches(**changes):
    return state_batches(SOURCE, **{"batch": 4, "seed": 3, "encode_text": letters, **changes})


def test_same_seed_same_batches_and_another_seed_others():
    first, again, other = (next(batches(seed=seed)) for seed in (3, 3, 4))
    assert first["id"].tolist() == again["id"].tolist() != other["id"].tolist()


def test_position_is_saved_and_restored():
    iterator = batches()
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator)["id"].tolist() for _ in range(4)]
    fresh = batches()
    fresh.set_state(state)
    assert [next(fresh)["id"].tolist() for _ in range(4)] == expected


def test_an_epoch_has_every_record_and_fills_its_last_batch_with_some_again():
    plan = BatchPlan(LENGTHS, 4, 16, 3, epochs=2)
    found = [plan[i][1].tolist() for i in range(len(plan))]
    first, second = found[: plan.per_epoch], found[plan.per_epoch :]
    for epoch in (first, second):
        seen = collections.Counter(i for numbers in epoch for i in numbers)
        assert len(seen) == len(LENGTHS) and max(seen.values()) <= 2 and seen.total() == 60
    assert first != second


def test_batches_hold_similar_lengths():
    plan = BatchPlan(LENGTHS, 4, 16, 0)
    spread = [
        np.ptp(-(-LENGTHS[numbers] // 16))
        for _, numbers in (plan[i] for i in range(plan.per_epoch))
    ]
    assert np.mean(np.array(spread) == 0) > 0.5 and max(spread) <= 2


def test_padding_is_zero_and_masks_are_true():
    batch = next(batches(ids_per_second=100))
    for row, name in enumerate(batch["id"]):
        record = SOURCE[int(name.rpartition("-")[2])]
        count, ids = len(record["states"]), letters(record["text"])
        assert (batch["states"][row, :count] == record["states"]).all() and not batch["states"][
            row, count:
        ].any()
        assert (
            batch["states_valid"][row].sum() == count and batch["states_valid"][row, :count].all()
        )
        assert batch["text"][row, : len(ids)].tolist() == ids and batch["text_valid"][
            row
        ].sum() == len(ids)
    assert (
        batch["states"].shape[1] % 50 == 0
        and batch["states"].shape[1] - batch["states_valid"].sum(axis=1).max() < 50
    )


@pytest.mark.parametrize(("ids_per_second", "ids_more"), [(3, 0), (3, 2), (2, 5)])
def test_a_text_beyond_the_room_is_cut_and_told_of_once(ids_per_second, ids_more, capsys):
    epoch = batches(ids_per_second=ids_per_second, ids_more=ids_more, batch=21)
    first, _ = next(epoch), next(epoch)
    assert first["text"].shape[1] == first["states"].shape[1] // 50 * ids_per_second + ids_more
    cut = [
        record["id"]
        for record in (SOURCE[i] for i in range(len(SOURCE)))
        if len(record["text"]) > first["text"].shape[1]
    ]
    told = capsys.readouterr().err.splitlines()
    assert cut and sorted(line.partition(":")[0] for line in told) == sorted(cut)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_make_their_rows_of_the_same_batches(hosts):
    whole, shares = batches(), [batches(shard=(h, hosts)) for h in range(hosts)]
    for _ in range(6):
        expected, parts = next(whole), [next(share) for share in shares]
        for name, value in expected.items():
            assert (np.concatenate([part[name] for part in parts]) == value).all(), name


def test_too_few_records_is_a_clear_error():
    with pytest.raises(UserError, match="fewer than one batch of 64"):
        batches(batch=64)
