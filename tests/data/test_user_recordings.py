"""Own recordings -> the raw store: every kind of bad line is named, nothing is done twice, and what
is stored fits what trains on it.
"""

import json

import numpy as np
import pytest
import soundfile
from even_aligner import Even, tone

from mdmspeech.data.pipelines.codec_crops import crop
from mdmspeech.data.recordings import user
from mdmspeech.data.storage.record_store import RecordStore, write_shard
from mdmspeech.errors import UserError
from mdmspeech.inference.paced_synthesizer import pronounce_text


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
    return user.import_own(
        folder / "manifest.jsonl", folder / "raw", aligner or Even(), pronounce_text, **kwargs
    )


def test_records_have_what_training_reads(folder):
    done = take_in(folder)
    store = RecordStore(folder / "raw")
    assert done.recordings == len(store) == 40 and not done.left_out
    assert done.minutes == pytest.approx(60 * store.hours())
    for record in store:
        assert record["text"].startswith("This is number") and not any(
            c.isdigit() for c in record["text"]
        )
        assert len(record["symbols"]) == len(record["frames"]) and min(record["frames"]) >= 1
        assert sum(record["frames"]) * 600 == len(record["audio"])  # 24 kHz, units of 25 ms
        # the silence at the ends is cut
        assert record["frames"][0] <= 4 and record["frames"][-1] <= 8
        assert abs(len(record["f0"]) - len(record["audio"]) / 240) <= 1
        assert np.median(record["f0"]) == pytest.approx(150, abs=2)
        one = crop(record, np.random.default_rng(0), tokens=32, token_samples=960, phones=128)
        assert (one["phone"][: 2 * int(one["valid"].sum()) - 2] >= 0).all() and one["voiced"].any()


def test_speech_is_brought_to_one_level(tmp_path):
    for name, level in (("loud", 0.9), ("low", 0.01)):
        soundfile.write(tmp_path / f"{name}.wav", tone(2, level=level), 22_050)
    write(tmp_path, [{"audio": "loud.wav", "text": "Good."}, {"audio": "low.wav", "text": "Good."}])
    take_in(tmp_path)
    levels = [
        10 * np.log10(np.mean(np.square(r["audio"] / 32768))) for r in RecordStore(tmp_path / "raw")
    ]
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
        (
            {"audio": "short.wav", "text": "Half a second is not enough for this."},
            "cannot be said in 0.5 s",
        ),
        ({"audio": "01.wav", "text": "?!", "id": "signs"}, "nothing can be said"),
        ({"audio": "00.wav", "text": "Good."}, "is listed before, in manifest.jsonl, line 1"),
        (
            {"audio": "02.wav", "text": "Good.", "id": "validation", "split": "valid"},
            "use train, val or test",
        ),
    ]
    write(folder, [*good, *(line for line, _ in bad)])
    done = take_in(folder)
    assert done.recordings == 40 and len(done.left_out) == len(bad)
    for number, ((_, reason), told) in enumerate(zip(bad, done.left_out, strict=True), 41):
        assert told.startswith(f"manifest.jsonl, line {number}: ") and reason in told
    assert (folder / "raw" / "left_out.txt").read_text().splitlines() == done.left_out


def test_recordings_that_do_not_match_their_text_are_left_out(folder):
    with pytest.raises(
        UserError,
        match=(
            r"none of the 40 recordings can be used, first: manifest\.jsonl, line 1: "
            r"the text does not match"
        ),
    ):
        take_in(folder, Even(score=user.MATCHES - 0.1))


def test_a_few_percent_are_held_out_always_the_same(folder):
    assert take_in(folder).held_out == 2
    chosen = {r["id"] for r in RecordStore(folder / "raw").fields if r["split"] == "test"}
    write(folder, reversed((folder / "manifest.jsonl").read_text().splitlines()))
    take_in(folder)
    assert {r["id"] for r in RecordStore(folder / "raw").fields if r["split"] == "test"} == chosen


def test_splits_of_the_manifest_are_kept(folder):
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    write(
        folder,
        [
            {**line, "split": "test" if n < 3 else "val"} if n < 5 else line
            for n, line in enumerate(lines)
        ],
    )
    assert take_in(folder).held_out == 3
    found = RecordStore(folder / "raw").fields
    assert {
        split: [r["id"] for r in found if r["split"] == split] for split in ("test", "val")
    } == {"test": ["00.wav", "01.wav", "02.wav"], "val": ["03.wav", "04.wav"]}


def test_nothing_is_done_twice_and_a_killed_run_goes_on(folder):
    dying = Even(dies_at=2 * user.SHARD)
    with pytest.raises(KeyboardInterrupt):
        take_in(folder, dying)
    going_on = Even()
    take_in(folder, going_on)
    assert going_on.asked == 40 - user.SHARD
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
    assert 0 < changed.asked <= user.SHARD
    other = Even()
    take_in(folder, other, aligned_by="a better aligner")
    assert other.asked == 40


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        take_in(tmp_path)


def _as_before_files_were_kept(raw):
    for path in raw.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(
                json.dumps({k: v for k, v in row.items() if k != "source"}) + "\n" for row in rows
            )
        )


@pytest.mark.parametrize("known", [True, False])
def test_other_recordings_of_the_same_names_do_not_replace_an_import(known, folder):
    take_in(folder)
    raw = folder / "raw"
    if not known:
        _as_before_files_were_kept(raw)
    before = {path.name: path.read_bytes() for path in raw.iterdir()}
    other = folder / "other"
    other.mkdir()
    # as long as the others, to the byte, and with their texts where these are not needed to tell
    for n in range(3):
        soundfile.write(other / f"{n:02d}.wav", 0.5 * tone(2 + n / 40), 22_050)
    write(
        other,
        [
            {"audio": f"{n:02d}.wav", "text": f"This is number {n}." if known else f"That was {n}."}
            for n in range(3)
        ],
    )
    with pytest.raises(UserError, match=r"holds 40 other recordings, such as 00\.wav"):
        user.import_own(other / "manifest.jsonl", raw, Even(), pronounce_text)
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == before


@pytest.mark.parametrize("known", [True, False])
def test_how_many_there_were_is_told(known, folder):
    assert take_in(folder).before == 0
    if not known:
        _as_before_files_were_kept(folder / "raw")
    write(folder, [{"audio": "00.wav", "text": "This is number 0."}])
    done = take_in(folder)
    assert (done.before, done.recordings) == (40, 1)


def test_texts_may_all_be_corrected(folder):
    take_in(folder)
    write(folder, [{"audio": f"{n:02d}.wav", "text": f"That was number {n}."} for n in range(40)])
    assert take_in(folder).recordings == 40


CUTS = [
    lambda text: text[:-20], lambda text: text[: len(text) // 2], lambda text: b"",
    lambda text: b"\xff" + text, lambda text: text + b"[]\n",
    lambda text: text + b"{}\n", lambda text: text + b"null\n",
    lambda text: text.replace(b'"samples"', b'"s"'), lambda text: b"[" * 100_000,
    lambda text: text.replace(b'"rate": 24000', b'"rate": "24000"'),
]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS, ids=range(len(CUTS)))
def test_a_cut_index_is_told(cut, tmp_path):
    rows = [({"id": f"r{n}", "rate": 24000, "text": "é"}, np.zeros(10, np.int16)) for n in range(3)]
    write_shard(
        tmp_path, "00001-abc", [*rows, ({"id": "bad", "error": "no text"}, np.zeros(0, np.int16))]
    )
    index = tmp_path / "00001-abc.jsonl"
    assert len(RecordStore(tmp_path)) == 3
    index.write_bytes(cut(index.read_bytes()))
    with pytest.raises(
        UserError,
        match=(
            r"abc\.jsonl is cut or damaged at line \d+; delete it and its \.pcm and run "
            r"mdmspeech data again"
        ),
    ):
        RecordStore(tmp_path)


def test_the_cure_of_a_cut_index_works(folder):
    take_in(folder)
    index = max((folder / "raw").glob("*.jsonl"))
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(UserError, match="is cut or damaged"):
        take_in(folder, aligned_by="a better aligner")
    index.unlink()
    index.with_suffix(".pcm").unlink()
    assert take_in(folder).recordings == len(list(RecordStore(folder / "raw"))) == 40


def test_missing_audio_is_told_with_a_cure_that_works(folder):
    take_in(folder)
    pcm = min((folder / "raw").glob("*.pcm"))
    pcm.unlink()
    with pytest.raises(
        UserError, match=rf"{pcm.name} is missing; delete its \.jsonl and run mdmspeech data again"
    ):
        list(RecordStore(folder / "raw"))
    pcm.with_suffix(".jsonl").unlink()
    assert take_in(folder).recordings == len(list(RecordStore(folder / "raw"))) == 40
