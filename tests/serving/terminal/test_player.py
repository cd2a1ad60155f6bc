"""What is played is what came, in order, once; and it is known how much of it was."""

import itertools

import numpy as np
import pytest

from mdmspeech.serving.terminal.player import Player

RATE = 1000


def ramp(first, count):
    return np.arange(first, first + count, dtype=np.float32) / 1e4


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size_come_out_as_they_went_in(seed):
    rng, player, out = np.random.default_rng(seed), Player(RATE), []
    wave = ramp(1, 3000)
    cuts = [0, *sorted(rng.integers(0, 3000, 12).tolist()), 3000]
    for a, b in itertools.pairwise(cuts):
        player.put(1, wave[a:b])
        out.append(player.fill(int(rng.integers(0, 40))))
    player.end(1)
    out.append(player.fill(4000))
    whole = np.concatenate(out)
    np.testing.assert_array_equal(whole[whole != 0], wave)
    assert player.played(1) == 3.0 and not player.busy and player.underruns == 0


def test_a_response_waits_for_a_little_of_it_and_a_short_one_does_not():
    player = Player(RATE)
    player.put(1, ramp(1, 50))
    assert not player.fill(10).any()
    player.put(1, ramp(51, 50))
    assert player.fill(10).all()
    short = Player(RATE)
    short.put(1, ramp(1, 5))
    short.end(1)
    assert short.fill(10)[:5].all()


def test_a_stop_is_at_once_without_a_click_and_tells_how_much_was_played():
    player = Player(RATE)
    player.put(1, np.full(500, 0.5, np.float32))
    player.put(2, ramp(1, 200))
    player.fill(120)
    assert player.stop(1) == 0.12
    rest = player.fill(100)
    assert rest[0] == 0.5 and (np.diff(rest[:5]) < 0).all() and rest[4] == 0
    np.testing.assert_array_equal(rest[5:], ramp(1, 95))  # and the next one is played
    assert player.played(1) == 0.12 and player.stop(1) == 0.12 and player.played(2) == 0.095
    assert player.stop(3) == 0.0


def test_a_gap_is_counted_once_and_the_end_is_none():
    player = Player(RATE)
    player.put(1, ramp(1, 100))
    player.fill(300)
    player.fill(300)
    assert player.underruns == 1
    player.put(1, ramp(101, 10))  # it goes on at once
    assert player.fill(10).all()
    player.fill(10)
    assert player.underruns == 2
    player.put(2, ramp(1, 100))
    player.end(2)
    player.fill(500)
    assert player.underruns == 2
