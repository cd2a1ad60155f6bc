"""A look through a corpus counts what was planted in it, and nothing else."""

import io
import json
import math

import numpy as np
import pytest
import soundfile
from corpora import TEXTS, encoded, put, shard, tone

from mdmspeech.data.importers import open_corpus
from mdmspeech.data.importers.survey import Survey, clipped_share, silent_share, survey


def look(folder, **options):
    found = Survey()
    for _ in survey(open_corpus(str(folder)).items(), found, **options):
        pass
    return found.report()


def listed(folder, rows):
    """A manifest of (name, seconds, other fields)."""
    lines = []
    for number, (name, seconds, fields) in enumerate(rows):
        if not (folder / name).exists():
            put(folder, name, encoded(number, seconds=seconds))
        lines.append(json.dumps({"audio": name, "text": f"Text {name}.", "id": number, **fields}))
    put(folder, "m.jsonl", "\n".join(lines))
    return folder


def test_lengths_rates_speakers_languages_and_licences(tmp_path):
    put(tmp_path, "d.flac", encoded(9, "flac", 24_000, seconds=3.0))
    report = look(
        listed(
            tmp_path,
            [
                ("a.wav", 1.0, {"speaker": "ann", "language": "en"}),
                ("b.wav", 2.5, {"speaker": "ann", "licence": "mit"}),
                ("c.wav", 4.5, {"speaker": "bob", "language": "en", "licence": "mit"}),
                ("d.flac", 3.0, {"split": "test"}),
            ],
        )
    )
    assert (report["records"], report["usable"], report["speakers"]) == (4, 4, 2)
    assert report["hours"] == pytest.approx(11 / 3600, abs=1e-6)
    assert report["seconds"] == {"shortest": 1.0, "median": 2.75, "mean": 2.75, "longest": 4.5}
    assert report["lengths"] == [
        {"from": 0.0, "records": 1},
        {"from": 2.0, "records": 2},
        {"from": 4.0, "records": 1},
    ]
    assert report["rates"] == {"16000": 3, "24000": 1}
    assert [(row["speaker"], row["records"]) for row in report["largest_speakers"]] == [
        ("bob", 1),
        ("ann", 2),
        ("", 1),
    ]
    assert report["languages"] == {"en": 2, "": 2} and report["licences"] == {"": 2, "mit": 2}
    assert {split: row["records"] for split, row in report["splits"].items()} == {
        "train": 3,
        "test": 1,
    }
    json.dumps(report, allow_nan=False)


SAME_TEXTS = [  # two texts, and whether they are the same words
    ("Good morning.", "good MORNING", True),
    ("Don't go!", "Don’t go", True),
    ("第2章", "第2節", False),
    ("für", "fur", False),
    ("ДА.", "да", True),
    ("one two", "onetwo", False),
    ("A-B", "a b", True),
]


@pytest.mark.parametrize(("one", "other", "same"), SAME_TEXTS)
def test_the_same_words_in_two_splits_are_leakage(one, other, same, tmp_path):
    texts = [(one, "train"), (other, "test"), ("Something else.", "val"), ("A third.", "train")]
    rows = [
        (f"{n}.wav", 0.5, {"text": text, "split": split}) for n, (text, split) in enumerate(texts)
    ]
    report = look(listed(tmp_path, rows))
    assert report["leakage"]["text"] == {"val": 0, "test": int(same), "first": ["1"] * same}
    assert report["duplicate_texts"] == {"records": int(same), "first": ["1"] * same}
    assert report["leakage"]["audio"] == {"val": 0, "test": 0, "first": []}


def test_the_same_sound_in_another_file_format_is_a_duplicate(tmp_path):
    put(tmp_path, "b.flac", encoded(0, "flac"))
    put(
        tmp_path, "c.wav", encoded(0, rate=8000)
    )  # the same tone at another rate is another recording
    rows = [
        ("a.wav", 0.5, {}),
        ("b.flac", 0.5, {"split": "val"}),
        ("c.wav", 0.5, {"split": "test"}),
    ]
    report = look(listed(tmp_path, rows))
    assert report["duplicate_audio"] == {"records": 1, "first": ["1"]}
    assert report["leakage"]["audio"] == {"val": 1, "test": 0, "first": ["1"]}
    assert report["duplicate_texts"]["records"] == 0


def test_questions_without_a_text_are_no_duplicates(tmp_path):
    talk = [{"from": "human", "value": "<speech>"}, {"from": "gpt", "value": ""}]
    entries = []
    for n in range(3):
        put(tmp_path, f"audios/{n}.wav", encoded(n))
        talk[1]["value"] = f"Answer {n // 2}."
        entries.append(
            {"id": n, "speech": f"x/audios/{n}.wav", "conversations": [*map(dict, talk)]}
        )
    put(tmp_path, "x.json", json.dumps(entries))
    report = look(tmp_path)
    assert report["usable"] == 3 and report["duplicate_texts"] == {"records": 1, "first": ["1"]}


def test_clipped_and_silent_shares():
    wave = tone(0, seconds=1.0) / np.float32(32768)
    assert clipped_share(wave) == 0 and silent_share(wave, 16_000) == 0
    loud = wave.copy()
    loud[4000:4800] = 1.0  # 5 %
    loud[9000] = loud[9010] = -1.0  # single samples are peaks
    assert clipped_share(loud) == pytest.approx(0.05)
    for quiet in (0.0, 1e-4, 0.002):  # nothing, dither, and 45 dB below what is loud
        half = wave.copy()
        half[8000:12000] = quiet
        assert silent_share(half, 16_000) == pytest.approx(0.25, abs=0.02), quiet
    assert silent_share(0.05 * wave, 16_000) == 0  # soft all through is not silent
    assert 0 <= silent_share(wave[:100], 16_000) <= 1


def test_the_shares_of_a_corpus_are_weighed_by_length(tmp_path):
    out = io.BytesIO()
    wave = tone(0, seconds=3.0)
    wave[:4800] = 32767  # a tenth of the long one
    soundfile.write(out, wave, 16_000, format="WAV")
    put(tmp_path, "a.wav", out.getvalue())
    report = look(listed(tmp_path, [("a.wav", 3, {}), ("b.wav", 1.0, {})]))
    assert report["clipped_share"] == pytest.approx(0.1 * 3 / 4)


def test_what_would_be_rejected_is_counted_by_its_reason(tmp_path):
    for name, content in {"no.wav": b"RIFF", "cut.wav": encoded(3)[:-6000]}.items():
        put(tmp_path, name, content)
    rows = [
        ("a.wav", 0.5, {}),
        *[("no.wav", 1, {"id": f"no{n}"}) for n in range(7)],
        ("cut.wav", 1, {}),
        ("long.wav", 3, {}),
        ("b.wav", 0.5, {"text": "far too many words " * 4}),
        ("a.wav", 1, {"id": 0}),
        ("c.wav", 0.5, {"text": ""}),
    ]
    report = look(listed(tmp_path, rows), max_seconds=2.0)
    counts = {kind: row["records"] for kind, row in report["rejected"].items()}
    assert counts == {
        "audio not readable": 7,
        "audio cut off": 1,
        "audio too long": 1,
        "text too long for its audio": 1,
        "id twice": 1,
        "line not usable": 1,
    }
    assert next(iter(counts)) == "audio not readable"
    assert report["usable"] == 1 and report["records"] == 13
    first = report["rejected"]["audio not readable"]["first"]
    assert len(first) == 5 and first[0].startswith("m.jsonl, line 2: no.wav is not readable audio")


def test_answers_are_counted_and_have_to_be_there(tmp_path):
    for n in range(3):
        put(tmp_path, f"answer{n}.wav", encoded(n, seconds=2.0))
    np.save(tmp_path / "u.npy", np.arange(9))
    rows = [
        ("a.wav", 1, {"answer": "Yes.", "answer_audio": "answer0.wav", "units": "u.npy"}),
        ("b.wav", 1, {"answer": "No.", "answer_audio": "answer1.wav"}),
        ("c.wav", 1, {"answer": "No.", "units": "gone.npy"}),
        ("d.wav", 1, {"answer": "No.", "answer_audio": "gone.wav"}),
    ]
    report = look(listed(tmp_path, rows))
    assert (report["usable"], report["answer_tokens"]) == (2, 1)
    assert report["answer_hours"] == pytest.approx(4 / 3600, abs=1e-6)
    assert set(report["rejected"]) == {"answer tokens not readable", "no audio file"}


SAID = [  # text, language, what an English voice leaves out
    ("Plain words.", "en", ""),
    ("It costs 5 € – “really”…", "en", ""),
    ("Hello 😀 there 😀", "en", "😀😀"),
    ("Москва is far from here, very far from us", "", "Москва"),
    ("Москва is far", "ru", ""),
    ("Es ist schön", "de", ""),
    ("naïve café", "en-GB", ""),
    ("これは日本語", "", ""),
]


@pytest.mark.parametrize(("text", "language", "left_out"), SAID)
def test_what_an_english_voice_leaves_out(text, language, left_out, tmp_path):
    report = look(listed(tmp_path, [("a.wav", 3, {"text": text, "language": language})]))
    told = {row["character"]: row["times"] for row in report["unsayable"]}
    assert told == {sign: left_out.count(sign) for sign in left_out}


def test_a_limit_reads_no_further(tmp_path):
    members = [(f"{n}.{end}", encoded(n) if end == "wav" else TEXTS[n])
        for n in range(3) for end in ("txt", "wav")]  # fmt: skip
    put(tmp_path, "a.tar", shard(members)[:-9000])  # its third record is damaged
    report = look(tmp_path, limit=2)
    assert (report["records"], report["usable"]) == (2, 2)
    assert (look(tmp_path)["records"], look(tmp_path)["usable"]) == (3, 2)


def test_nothing_at_all_is_a_report_as_well():
    report = Survey().report()
    assert report["records"] == report["hours"] == 0 and report["lengths"] == []
    assert not any(isinstance(value, float) and math.isnan(value) for value in report.values())
