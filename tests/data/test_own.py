"""Own recordings -> the raw store: every kind of bad line is named, nothing is done twice, and what is stored fits what trains on it."""

import json

import numpy as np
import pytest
import soundfile
from even_aligner import Even, tone

from mdmspeech.data import own
from mdmspeech.data.crops import crop
from mdmspeech.data.store import RecordStore
from mdmspeech.errors import UserError
from mdmspeech.inference.voice import pronounce_text


@pytest.fixture
def folder(tmp_path):
    """Forty good lines, as a user would have them."""
    lines = []
    for n in range(40):
        soundfile.write(tmp_path / f"{n:02d}.wav", tone(2 + n / 40), 22_050)
        lines.append({"audio": f"{n:02d}.wav", "text": f"This is number {n}."})
    write(tmp_path, lines)
    return tmp_path


def write(folder, lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "manifest.jsonl").write_text(text + "\n", encoding="utf-8")


def take_in(folder, aligner=None, **kwargs):
    return own.import_own(folder / "manifest.jsonl", folder / "raw", aligner or Even(), pronounce_text, **kwargs)


def test_records_have_what_training_reads(folder):
    done = take_in(folder)
    store = RecordStore(folder / "raw")
    assert done.recordings == len(store) == 40 and not done.left_out
    assert done.minutes == pytest.approx(60 * store.hours())
    for record in store:
        assert record["text"].startswith("This is number") and not any(c.isdigit() for c in record["text"])
        assert len(record["symbols"]) == len(record["frames"]) and min(record["frames"]) >= 1
        assert sum(record["frames"]) * 600 == len(record["audio"])  # 24 kHz, units of 25 ms
        assert record["frames"][0] <= 4 and record["frames"][-1] <= 8  # the silence at the ends is cut
        assert abs(len(record["f0"]) - len(record["audio"]) / 240) <= 1
        assert np.median(record["f0"]) == pytest.approx(150, abs=2)
        one = crop(record, np.random.default_rng(0), tokens=32, token_samples=960, phones=128)
        assert (one["phone"][: 2 * int(one["valid"].sum()) - 2] >= 0).all() and one["voiced"].any()


def test_speech_is_brought_to_one_level(tmp_path):
    for name, level in (("loud", 0.9), ("low", 0.01)):
        soundfile.write(tmp_path / f"{name}.wav", tone(2, level=level), 22_050)
    write(tmp_path, [{"audio": "loud.wav", "text": "Good."}, {"audio": "low.wav", "text": "Good."}])
    take_in(tmp_path)
    levels = [10 * np.log10(np.mean(np.square(r["audio"] / 32768))) for r in RecordStore(tmp_path / "raw")]
    assert levels == pytest.approx([-24.5, -24.5], abs=0.5)


def test_rates_channels_and_containers(tmp_path):
    stereo = np.stack([tone(2, 44_100), np.zeros(88_200, np.float32)], axis=1)
    soundfile.write(tmp_path / "a.flac", stereo, 44_100)
    soundfile.write(tmp_path / "b.ogg", tone(2, 48_000), 48_000)
    soundfile.write(tmp_path / "c.wav", tone(2, 8_000), 8_000, subtype="PCM_U8")
    write(tmp_path, [{"audio": name, "text": "Good."} for name in ("a.flac", "b.ogg", "c.wav")])
    assert take_in(tmp_path).recordings == 3


def test_bad_lines_are_named_with_their_reason(folder):
    good = (folder / "manifest.jsonl").read_text().splitlines()
    soundfile.write(folder / "silent.wav", np.zeros(22_050), 22_050)
    soundfile.write(folder / "long.wav", tone(31, 8_000), 8_000)
    soundfile.write(folder / "short.wav", tone(0.5), 22_050)
    (folder / "letter.wav").write_text("Dear Sir")
    bad = [
        ("{", "not a JSON object"),
        ({"audio": "00.wav"}, "text missing"),
        ({"audio": "none.wav", "text": "Good."}, "does not exist"),
        ({"audio": "letter.wav", "text": "Good."}, "not readable audio"),
        ({"audio": "silent.wav", "text": "Good."}, "only silence"),
        ({"audio": "long.wav", "text": "Good."}, "too long"),
        ({"audio": "short.wav", "text": "Half a second is not enough for this."}, "cannot be said in 0.5 s"),
        ({"audio": "01.wav", "text": "?!", "id": "signs"}, "nothing can be said"),
        ({"audio": "00.wav", "text": "Good."}, "is listed before, in manifest.jsonl, line 1"),
        ({"audio": "02.wav", "text": "Good.", "id": "validation", "split": "valid"}, "use train or test"),
    ]
    write(folder, [*good, *(line for line, _ in bad)])
    done = take_in(folder)
    assert done.recordings == 40 and len(done.left_out) == len(bad)
    for number, ((_, reason), told) in enumerate(zip(bad, done.left_out, strict=True), 41):
        assert told.startswith(f"manifest.jsonl, line {number}: ") and reason in told
    assert (folder / "raw" / "left_out.txt").read_text().splitlines() == done.left_out


def test_recordings_that_do_not_match_their_text_are_left_out(folder):
    with pytest.raises(UserError, match=r"none of the 40 recordings can be used, first: manifest\.jsonl, line 1: the text does not match"):
        take_in(folder, Even(score=own.MATCHES - 0.1))


def test_a_few_percent_are_held_out_always_the_same(folder):
    assert take_in(folder).held_out == 2
    chosen = {r["id"] for r in RecordStore(folder / "raw").fields if r["split"] == "test"}
    write(folder, reversed((folder / "manifest.jsonl").read_text().splitlines()))
    take_in(folder)
    assert {r["id"] for r in RecordStore(folder / "raw").fields if r["split"] == "test"} == chosen


def test_splits_of_the_manifest_are_kept(folder):
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    write(folder, [{**line, "split": "test"} if n < 3 else line for n, line in enumerate(lines)])
    assert take_in(folder).held_out == 3
    assert [r["id"] for r in RecordStore(folder / "raw").fields if r["split"] == "test"] == ["00.wav", "01.wav", "02.wav"]


def test_nothing_is_done_twice_and_a_killed_run_goes_on(folder):
    dying = Even(dies_at=2 * own.SHARD)
    with pytest.raises(KeyboardInterrupt):
        take_in(folder, dying)
    going_on = Even()
    take_in(folder, going_on)
    assert going_on.asked == 40 - own.SHARD
    before = {path: path.read_bytes() for path in (folder / "raw").iterdir()}
    again = Even()
    take_in(folder, again)
    assert again.asked == 0
    assert before == {path: path.read_bytes() for path in (folder / "raw").iterdir()}


def test_a_speaker_gives_tokens_at_the_recordings_own_durations(folder):
    told = []

    def speak(symbols, durations):
        told.extend(zip(symbols, durations, strict=True))
        return [np.arange(round(row.sum())) for row in durations]

    take_in(folder, speaker=lambda: speak)
    store = RecordStore(folder / "raw")
    for record, (symbols, durations) in zip(store, told, strict=True):
        assert len(record["tokens"]) == -(-len(record["audio"]) // 960)
        assert record["symbols"] == symbols.tolist()
        np.testing.assert_allclose(durations[:-1], np.array(record["frames"])[:-1] * 0.625)
        assert 0 <= durations[-1] - record["frames"][-1] * 0.625 < 1


def test_what_changed_is_done_again(folder):
    take_in(folder)
    soundfile.write(folder / "39.wav", tone(3), 22_050)
    changed = Even()
    take_in(folder, changed)
    assert 0 < changed.asked <= own.SHARD
    other = Even()
    take_in(folder, other, aligned_by="a better aligner")
    assert other.asked == 40


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        take_in(tmp_path)
