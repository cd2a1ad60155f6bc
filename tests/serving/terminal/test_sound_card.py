"""A sound card of any rate, or the reason why there is none."""

import sys

import numpy as np
import pytest
from stand_in_sound_card import SoundCard

from mdmspeech.errors import UserError
from mdmspeech.serving.terminal import sound_card
from mdmspeech.serving.terminal.player import Player


@pytest.mark.parametrize(("rate", "others"), [(48_000, True), (44_100, False), (16_000, False)])
def test_what_is_said_and_heard_keeps_its_pitch(rate, others):
    card, player, heard = SoundCard(rate, others), Player(24_000), []
    with sound_card.open_sound_card(player, lambda *args: heard.append(args), card):
        wave = np.random.default_rng(0).normal(size=rate).astype(np.float32)
        card.hears(wave)
        player.put(1, np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000).astype(np.float32))
        player.end(1)
        out_rate = card.streams["output"]["samplerate"]
        out = np.concatenate([card.plays(777) for _ in range(out_rate // 777)])
    np.testing.assert_array_equal(np.concatenate([piece for piece, _ in heard]), wave)
    assert {given for _, given in heard} == {rate} and out_rate == (24_000 if others else rate)
    middle = out[out_rate // 4 : out_rate // 2]
    peak = np.argmax(np.abs(np.fft.rfft(middle))) * out_rate / len(middle)
    assert peak == pytest.approx(440, abs=5) and not card.streams


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (SoundCard(without="input"), "no microphone"),
        (SoundCard(without="output"), "no loudspeaker"),
        (SoundCard(busy=True), "another program"),
    ],
)
def test_why_there_is_none(card, told):
    with (
        pytest.raises(UserError, match=f"{told}.*mdmspeech chat"),
        sound_card.open_sound_card(Player(24_000), print, card),
    ):
        pass


def test_what_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match=r"pip install .mdmspeech\[talk\]"):
        sound_card.library()

    class Without:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    with pytest.raises(UserError, match="libportaudio2"):
        sound_card.library()
