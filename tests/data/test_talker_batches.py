"""Sequences for the Talker: joined utterances, durations that add up to the tokens, an end that is
EOS to the end of its block.
"""

import numpy as np
import pytest

from mdmspeech.data.pipelines import talker_joined
from mdmspeech.data.pipelines.talker_joined import join, joined_statistics, talker_batches

EOS, PAD = 6563, 6564


def utterance(tokens: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    # 1.875 tokens each: the last symbol takes what is left
    frames = np.full(max(tokens // 2, 1), 3)
    return {
        "tokens": rng.integers(0, 6561, tokens),
        "symbols": rng.integers(1, 100, len(frames)),
        "frames": frames,
    }


def joined(lengths, finish, length=64, symbols=64):
    return join([utterance(n, n) for n in lengths], finish, length, symbols, 16, EOS, PAD, 0.04)


def test_a_finished_sequence_ends_in_eos_up_to_its_block():
    out = joined([20, 20, 40], finish=True)
    assert out["tokens"][:40].max() < 6561
    assert (out["tokens"][40:48] == EOS).all() and (out["tokens"][48:] == PAD).all()
    assert out["valid"].sum() == 48


def test_a_cut_sequence_is_full():
    out = joined([20, 20, 40], finish=False)
    assert out["valid"].all() and out["tokens"].max() < 6561


@pytest.mark.parametrize("finish", [True, False])
def test_durations_add_up_to_the_tokens_of_whole_utterances(finish):
    out = joined([21, 23], finish=finish)
    assert out["durations"].sum() == pytest.approx(44)
    assert (out["durations"][out["symbols_valid"]] > 0).all()
    assert not out["durations"][~out["symbols_valid"]].any()


def test_too_many_symbols_drop_the_utterance_not_the_alignment():
    out = joined([20, 40], finish=False, symbols=16)
    assert out["symbols_valid"].sum() == 10
    assert out["durations"].sum() == pytest.approx(20)
    assert (out["tokens"][20:32] == EOS).all()


def test_an_utterance_that_fits_no_sequence_is_passed_over():
    out = joined([60, 20, 24], finish=False, symbols=24)  # 30, 10 and 12 symbols
    assert out["symbols_valid"].sum() == 22 and out["durations"].sum() == pytest.approx(44)
    np.testing.assert_array_equal(out["tokens"][:20], utterance(20, 20)["tokens"])


def test_iterator_state_continues_the_stream():
    source = [utterance(10 + i % 7, i) for i in range(40)]
    sizes = dict(
        batch=2, length=64, symbols=64, block=16, eos=EOS, pad=PAD, token_seconds=0.04, seed=3
    )
    first = talker_batches(source, **sizes)
    next(first)
    state = first.get_state()
    wanted = next(first)
    again = talker_batches(source, **sizes)
    again.set_state(state)
    np.testing.assert_array_equal(next(again)["tokens"], wanted["tokens"])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_make_their_rows_of_the_same_batches(hosts):
    source = [{**utterance(10 + i % 7, i), "id": f"u{i}"} for i in range(40)]
    sizes = dict(
        batch=4, length=64, symbols=64, block=16, eos=EOS, pad=PAD, token_seconds=0.04, seed=3
    )
    whole, shares = (
        talker_batches(source, **sizes),
        [talker_batches(source, **sizes, shard=(h, hosts)) for h in range(hosts)],
    )
    for _ in range(5):
        batch, parts = next(whole), [next(share) for share in shares]
        for name, value in batch.items():
            assert (np.concatenate([part[name] for part in parts]) == value).all(), name
    assert all(name.startswith("u") for name in batch["id"][0].split(","))


def test_statistics_tell_what_a_joined_epoch_leaves_out():
    source = [utterance(10 + i % 30, i) for i in range(50)]
    settings = dict(length=64, symbols=64, block=16, seed=3)
    statistics = joined_statistics(source, **settings)
    batches = talker_batches(source, batch=10, eos=EOS, pad=PAD, token_seconds=0.04, **settings)
    batch = next(batches)  # 10 sequences of 5: one epoch
    spoken = int(((batch["tokens"] < EOS) & batch["valid"]).sum())
    assert (
        statistics.positions == 640
        and statistics.filled == int(batch["valid"].sum())
        and statistics.tokens == spoken
    )
    assert statistics.tokens + statistics.cut + statistics.left_out == sum(
        len(u["tokens"]) for u in source
    )
    assert (
        statistics.too_many_symbols == 0
        and joined_statistics(source, **{**settings, "symbols": 10}).too_many_symbols > 0
    )
    assert batches.about() == [f"joined rows: {statistics}"] and "cut or left out" in str(
        statistics
    )


@pytest.mark.parametrize("count", [3, 5, 37, 6000])
def test_a_run_is_told_of_padding_and_cuts_from_some_sequences_at_most(count, monkeypatch):
    """Of a pass over the records where they are few, of so many sequences where they are not: a
    start is never long.
    """

    class Long:
        def __len__(self):
            return count

        def __getitem__(self, i):
            read.append(i)
            return utterance(20, i)

        def counts(self, field):
            return np.full(count, 20)

    read: list[int] = []
    sizes = dict(
        batch=1, length=64, symbols=64, block=16, eos=EOS, pad=PAD, token_seconds=0.04, seed=3
    )
    monkeypatch.setattr(talker_joined, "_LOOKED_AT", 40)
    (line,) = talker_batches(Long(), **sizes).about()
    assert line.startswith("joined rows: padding: tokens ") and len(read) == 5 * min(
        40, max(1, count // 5)
    )


def test_half_of_the_joined_rows_are_finished():
    source = [utterance(17 + i % 7, i) for i in range(40)]
    batches = talker_batches(
        source,
        batch=50,
        length=64,
        symbols=64,
        block=16,
        eos=EOS,
        pad=PAD,
        token_seconds=0.04,
        seed=3,
    )
    ends = np.concatenate([next(batches)["tokens"][:, -1] for _ in range(4)])
    # five utterances are longer than a row: an unfinished one is full of them
    assert 0.35 < (ends >= EOS).mean() < 0.65
