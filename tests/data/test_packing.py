"""Packing: nothing lost, no capacity exceeded, hardly any padding, the same batches whatever the
hosts and the interruptions.
"""

import collections
import copy

import numpy as np
import pytest

from mdmspeech.data.packing.bins import pack
from mdmspeech.data.packing.plan import PackedBatches, PackPlan, better_capacities
from mdmspeech.data.packing.position import CheckedBatches, digest_of
from mdmspeech.data.packing.sharding import HostShare, host_rows
from mdmspeech.data.pipelines.random_source import RandomSpeech
from mdmspeech.data.pipelines.talker_packed import whole_blocks
from mdmspeech.errors import UserError

RNG = np.random.default_rng(0)
SIZES = np.stack([RNG.integers(1, 60, 500), RNG.integers(1, 90, 500)], axis=1)
CAPACITIES = {"tokens": 100, "symbols": 160}


def plan(sizes=SIZES, **changes):
    sizes = sizes if isinstance(sizes, dict) else {"only": sizes}
    return PackPlan(
        sizes,
        **{"capacities": CAPACITIES, "batch": 4, "seed": 3, "say": lambda line: None, **changes},
    )


def rows_of(plan, batches):
    return [row for k in range(batches) for row in plan[k]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capacities", "within"), [((100, 160), 1.02), ((59, 1000), 1.1), ((2000, 89), 1.1)]
)
def test_pack_loses_nothing_and_keeps_every_capacity(capacities, within):
    rows = pack(SIZES, capacities)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert all((SIZES[row].sum(axis=0) <= capacities).all() for row in rows)
    needed = (SIZES.sum(axis=0) / capacities).max()
    assert len(rows) <= within * needed + 1
    many = np.tile(SIZES, (8, 1))[np.random.default_rng(1).permutation(4000)]
    assert len(pack(many, capacities)) <= within * 8 * needed + 1, "more records do not pack worse"


def test_a_window_of_rows_is_the_source_so_many_times():
    packed = plan()
    assert packed.window == 2500, "a small corpus is packed several passes at a time"
    statistics = packed.statistics()
    rows = [packed.row(number) for number in range(statistics.rows)]
    seen = collections.Counter(draw.record for row in rows for draw in row)
    assert seen == dict.fromkeys(range(500), 5)
    assert (
        statistics.records == 2500
        and statistics.repeats == 2000
        and statistics.passes == {"only": 5.0}
    )
    assert sorted(draw.position for row in rows for draw in row) == list(range(2500))
    assert statistics.used == {"tokens": 5 * SIZES[:, 0].sum(), "symbols": 5 * SIZES[:, 1].sum()}


def test_no_row_is_too_full():
    for row in rows_of(plan(), 200):
        assert (
            row
            and (
                SIZES[[draw.record for draw in row]].sum(axis=0) <= list(CAPACITIES.values())
            ).all()
        )


@pytest.mark.slow
def test_the_same_seed_the_same_rows_and_another_others():
    assert rows_of(plan(), 50) == rows_of(plan(), 50) != rows_of(plan(seed=4), 50)


def test_any_batch_at_once():
    whole = plan(window=300)
    expected = [whole[k] for k in range(60)]
    fresh = plan(window=300)
    assert [fresh[k] for k in (59, 0, 30, 7)] == [expected[k] for k in (59, 0, 30, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_global_batches(hosts):
    shares = [plan(shard=(h, hosts)) for h in range(hosts)]
    whole = plan()
    for k in (0, 1, 17):
        assert [row for share in shares for row in share[k]] == whole[k]


def test_padding_is_small_on_the_lengths_of_speech():
    speech = RandomSpeech(3000)
    sizes = np.stack([whole_blocks(speech.counts("tokens"), 16), speech.counts("symbols")], axis=1)
    statistics = plan(sizes, capacities={"tokens": 256, "symbols": 320}).statistics()
    assert statistics.padding["tokens"] < 0.02
    assert statistics.naive["tokens"] > 0.15
    assert "naive" in str(statistics)


def test_records_that_are_too_long_are_counted_and_told():
    lines = []
    sizes = SIZES.copy()
    sizes[[5, 9], 0] = 101
    packed = plan(sizes, say=lines.append)
    assert packed.too_long == {"only": 2} and packed.statistics().too_long == {"only": 2}
    assert lines == [
        (
            "only: 2 of 500 records are too long for a row: 2 beyond 100 tokens "
            "(the longest has 101); they are left out, longer rows would take them"
        )
    ]
    assert not {5, 9} & {draw.record for row in rows_of(packed, 100) for draw in row}
    with pytest.raises(UserError, match="make the rows longer"):
        plan(SIZES + 200)


def test_what_the_caller_refused_counts_and_is_not_told_twice():
    lines: list[str] = []
    packed = plan(usable={"only": np.arange(500) != 7}, say=lines.append)
    assert packed.too_long == {"only": 1} and not lines
    assert 7 not in {draw.record for row in rows_of(packed, 100) for draw in row}


def test_sources_are_mixed_by_weight():
    packed = plan({"a": SIZES[:100], "b": SIZES[100:]}, weights={"a": 0.5, "b": 0.5}, window=2000)
    seen = collections.Counter(
        draw.source for number in range(packed.statistics(1).rows) for draw in packed.row(number)
    )
    assert seen == {"a": 1000, "b": 1000}
    assert packed.statistics(1).passes == {"a": 10.0, "b": 2.5}


def make(rows):
    return {
        "record": np.array(
            [sum((draw.position + 1) * (draw.record + 1) for draw in row) for row in rows]
        )
    }


def test_a_resumed_stream_is_the_uninterrupted_one_on_any_number_of_hosts():
    whole = PackedBatches(plan(window=300), make)
    for _ in range(70):
        next(whole)
    state = whole.get_state()
    assert state["window"] >= 2 and len(str(state)) < 120
    expected = [next(whole)["record"].tolist() for _ in range(60)]
    again = PackedBatches(plan(window=300), make, threads=2)
    again.set_state(state)
    assert [next(again)["record"].tolist() for _ in range(60)] == expected
    hosts = [PackedBatches(plan(window=300, shard=(h, 2)), make) for h in range(2)]
    for host in hosts:
        host.set_state(state)
    assert [
        np.concatenate([next(host)["record"] for host in hosts]).tolist() for _ in range(60)
    ] == expected
    assert hosts[0].get_state() == hosts[1].get_state() == again.get_state()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_every_record_once_an_epoch_on_hosts_that_come_and_go(seed):
    """A run is killed at random batches and goes on with another number of hosts."""
    rng = np.random.default_rng(seed)
    sizes = np.stack([rng.integers(5, 60, 200), rng.integers(5, 90, 200)], axis=1)
    settings = dict(batch=256, seed=seed, window=1000)
    whole = plan(sizes, **settings)

    def fresh(host, hosts):
        if hosts <= 2:
            return plan(sizes, **settings, shard=(host, hosts))
        share = copy.copy(whole)  # which packs no window again: 256 times is slow
        share._mine = host_rows(256, (host, hosts))
        return share

    last = -(-(whole.statistics(3).rows) // 256)  # batches that hold three windows
    read, at, anchor = [], 0, {"window": 0, "row": 0}
    while at < last:
        hosts, stop = int(rng.choice([1, 2, 4, 32, 256])), int(min(at + rng.integers(1, 4), last))
        shares = [fresh(h, hosts) for h in range(hosts)]
        for share in shares:
            share.go_to(anchor)
        for k in range(at, stop):
            batch = [row for share in shares for row in share[k]]
            assert batch == whole[k]
            read += [draw for row in batch for draw in row]
        at, anchor = stop, shares[-1].anchor(stop)
    positions = collections.Counter(draw.position for draw in read)
    assert set(positions.values()) == {1} and {*range(3000)} <= {*positions}
    for epoch in range(15):  # of 200 records each
        mine = [d.record for d in read if epoch * 200 <= d.position < (epoch + 1) * 200]
        assert sorted(mine) == list(range(200))


def test_other_records_of_the_same_lengths_are_other_data():
    one, other, silent = (PackedBatches(plan(), make, content=text) for text in ("ab", "cd", ""))
    next(one)
    state = one.get_state()
    with pytest.raises(UserError, match="the data have changed"):
        other.set_state(state)
    other.set_state({name: value for name, value in state.items() if name != "content"})
    assert silent.get_state().keys() == state.keys() - {"content"}


def test_passes_of_each_source_at_a_position():
    packed = PackedBatches(
        plan({"a": SIZES[:100], "b": SIZES[100:]}, weights={"a": 1, "b": 1}, window=2000), make
    )
    assert packed.passes(packed.get_state()) == {"a": 0.0, "b": 0.0}
    rows = [packed.plan.statistics(n).rows for n in (1, 2)]
    state = {"batch": rows[1] // 4, **packed.plan.anchor(rows[1] // 4)}
    assert packed.passes(state) == pytest.approx({"a": 20.0, "b": 5.0}, rel=0.01)


def test_resuming_packs_no_window_from_before():
    first = PackedBatches(plan(window=300), make)
    for _ in range(70):
        next(first)
    state, resumed = first.get_state(), plan(window=300)
    stream = PackedBatches(resumed, make)
    stream.set_state(state)
    next(stream)
    assert state["window"] >= 2 and resumed._rows.cache_info().misses <= 2


def test_other_data_than_those_of_the_position_are_refused():
    state = PackedBatches(plan(), make).get_state()
    with pytest.raises(UserError, match="have changed since"):
        PackedBatches(plan(SIZES[:499]), make).set_state(state)
    with pytest.raises(UserError, match="have changed since"):
        PackedBatches(plan(capacities={"tokens": 120, "symbols": 160}), make).set_state(state)


def test_host_rows_and_shares():
    assert [host_rows(8, (h, 4)) for h in range(4)] == [
        slice(0, 2),
        slice(2, 4),
        slice(4, 6),
        slice(6, 8),
    ]
    shares = [HostShare(range(20), 6, (h, 3)) for h in range(3)]
    assert [list(share) for share in shares] == [
        [0, 1, 6, 7, 12, 13],
        [2, 3, 8, 9, 14, 15],
        [4, 5, 10, 11, 16, 17],
    ]
    with pytest.raises(UserError, match="does not divide among 3 hosts"):
        host_rows(8, (0, 3))
    with pytest.raises(UserError, match="counted from 0"):
        host_rows(8, (2, 2))


@pytest.mark.slow
def test_a_run_is_told_of_padding_and_of_better_rows():
    tight = plan(SIZES, capacities={"tokens": 400, "symbols": 600}).about()
    assert len(tight) == 1 and tight[0].startswith(
        "packed rows: 400 tokens and 600 symbols; padding 0."
    )
    wasteful = plan(SIZES, capacities={"tokens": 400, "symbols": 1000})
    lines = wasteful.about()
    assert "symbols; padding" in lines[0] and lines[1].startswith("rows of ")
    better, shares = better_capacities(SIZES, wasteful.capacities)
    packed = plan(SIZES, capacities=better)
    assert (
        max(packed.statistics().padding.values())
        < 0.05
        < 0.3
        < wasteful.statistics().padding["symbols"]
    )
    assert (
        shares.keys() == better.keys()
        and sum(better[f] != wasteful.capacities[f] for f in better) == 1
    )


def test_better_rows_keep_divisors_and_take_every_record():
    sizes = np.array([[300, 40]] * 40 + [[3000, 400]] * 4)
    better, _ = better_capacities(sizes, {"frames": 3000, "ids": 768})
    assert better["ids"] % 64 == 0 and better["frames"] % 10 == 0
    assert (sizes <= list(better.values())).all()


def test_a_position_is_of_its_data():
    class Batches:
        place = 0

        def __next__(self):
            self.place += 1
            return {}

        def get_state(self):
            return {"next_index": self.place}

        def set_state(self, state):
            self.place = state["next_index"]

    speech = RandomSpeech(20)
    digests = [digest_of(s, "tokens") for s in (speech, RandomSpeech(20, seed=1), RandomSpeech(21))]
    assert len({*digests}) == 3 and digest_of(speech, "tokens") == digests[0]
    assert digest_of([0] * 3, "tokens") != digest_of([0] * 4, "tokens")
    one = CheckedBatches(Batches(), digests[0])
    next(one), next(one)
    again = CheckedBatches(Batches(), digests[0])
    again.set_state(one.get_state())
    assert again.get_state() == one.get_state()
    with pytest.raises(UserError, match=r"the data have changed .*--set train\.new_data=True"):
        CheckedBatches(Batches(), digests[1]).set_state(one.get_state())
    older = CheckedBatches(Batches(), digests[1])
    older.set_state({"next_index": 7})  # saved before positions knew their data
    assert older.get_state()["place"] == {"next_index": 7}
