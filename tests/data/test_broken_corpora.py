"""What is wrong with records of other people's corpora: each costs itself alone, and is told in one
line that names its place.
"""

import io
import json
import os
import tarfile

import corpora
import numpy as np
import pytest
from corpora import encoded, put, sample, shard

from mdmspeech.data.importers import BadItem, Item, open_corpus, tables
from mdmspeech.data.recordings.manifests import read_manifest
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError


def read(folder, **options):
    """(good, bad) records of all that is in the folder."""
    found = list(open_corpus(str(folder), **options).items())
    good = [item for item in found if isinstance(item, Item)]
    return good, [problem for problem in found if isinstance(problem, BadItem)]


LJ = "metadata.csv"
CV = "cv-corpus-17.0/en"
LIBRI = "LibriSpeech/train-clean-100/103/120"
TTS = "LibriTTS/train-clean-100/103/1240/103_1240_000000_000000"


def edit(name, change):
    """Changes a file's bytes; None removes it."""

    def do(folder):
        path = folder / name
        data = change(path.read_bytes()) if callable(change) else change
        path.unlink() if data is None else path.write_bytes(data)

    return do


def line(name, text, at=-1):
    """Adds a line to a list."""
    data = text if isinstance(text, bytes) else text.encode()

    def change(old):
        lines = old.split(b"\n")
        lines.insert(len(lines) - 1 if at < 0 else at, data)
        return b"\n".join(lines)

    return edit(name, change)


def cv(path="common_voice_en_0.mp3", sentence="Hello there.", tail="\t2\t0\t\t\t\ten\t"):
    return f"who\t{path}\t{sentence}{tail}"


def wds(*members):
    return lambda folder: put(folder, "train-000002.tar", shard(members))


def table(**columns):
    def write(folder):
        import pyarrow as pa
        from pyarrow import parquet as pq

        row = {"audio": {"bytes": encoded(7), "path": "x.wav"}, "transcription": "A word."}
        kinds = pa.schema(
            [
                ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                ("transcription", pa.string()),
            ]
        )
        made = pa.Table.from_pylist([{**row, **columns}], schema=kinds)
        pq.write_table(made, folder / "data/train-00009-of-00010.parquet")

    return write


def snac(text):
    def write(folder):
        import pyarrow as pa
        from pyarrow import parquet as pq

        path = folder / "data/train-00000-of-00001.parquet"
        rows = pq.read_table(path).to_pylist()
        rows[1] |= {"answer_snac": text} if isinstance(text, str) else text
        pq.write_table(pa.Table.from_pylist(rows), path)

    return write


# Format, what is done to its sample, the place and the words of the only new bad record, and how
# many good ones are left.
BROKEN = [
    ("manifest", edit("wavs/1.wav", None), "line 2", "wavs/1.wav is not there", 2),
    ("manifest", edit("wavs/1.wav", b""), "line 2", "an empty file", 2),
    (
        "manifest",
        line("manifest.jsonl", '{"audio": "wavs/0.wav", "text": " "}', 1),
        "line 2",
        "text missing or empty",
        3,
    ),
    (
        "manifest",
        line("manifest.jsonl", '{"audio": "wavs/0.wav", "text": "?!", "id": 3}'),
        "line 4",
        "nothing can be said of the text",
        3,
    ),
    (
        "manifest",
        line("manifest.jsonl", '{"audio": "wavs/0.wav", "text": "x"}'),
        "line 4",
        "the id wavs/0.wav is there before",
        3,
    ),
    (
        "manifest",
        line("manifest.jsonl", b'{"audio": "a", "text": "caf\xe9"}'),
        "line 4",
        "not UTF-8 (byte 0xe9",
        3,
    ),
    (
        "manifest",
        line("manifest.jsonl", '{"audio": "/dev/zero", "text": "x"}'),
        "line 4",
        "dev/zero is not there",
        3,
    ),
    (
        "manifest",
        line("manifest.jsonl", '{"audio": "wavs/0.wav", "text": "x", "id": 1, "split": "holdout"}'),
        "line 4",
        "split is 'holdout'",
        3,
    ),
    (
        "manifest",
        line("manifest.jsonl", '{"audio": "wavs/0.wav", "text": "x", "speaker": [5]}'),
        "line 4",
        "speaker is a list; give text",
        3,
    ),
    ("manifest", line("manifest.jsonl", "{'audio': 1}"), "line 4", "not a JSON object", 3),
    (
        "manifest",
        line("manifest.jsonl", json.dumps({"audio": "wavs/0.wav", "text": "la " * 2000})),
        "line 4",
        "6,000 characters",
        3,
    ),
    (
        "vocalnet",
        edit("VoiceAssistant-430K-vocalnet/audios/1.wav", None),
        "entry 2",
        "1.wav is not there",
        2,
    ),
    (
        "vocalnet",
        edit(
            "VoiceAssistant-430K-vocalnet/VoiceAssistant-430K.json",
            lambda d: d.replace(b'"from": "human", ', b"", 2).replace(
                b'"value": "<speech>', b'"said": "<speech>', 1
            ),
        ),
        "entry 1",
        "not the expected layout (KeyError: 'value')",
        2,
    ),
    (
        "vocalnet",
        edit(
            "VoiceAssistant-430K-vocalnet/VoiceAssistant-430K.json",
            lambda d: d[: d.index(b"19092")],
        ),
        "entry 3",
        "not JSON from character",
        2,
    ),
    (
        "vocalnet",
        edit(
            "VoiceAssistant-430K-vocalnet/VoiceAssistant-430K.json",
            lambda d: d.replace(b"It depends on the laws of 1 places.", b" "),
        ),
        "entry 2",
        "answer missing or empty",
        2,
    ),
    (
        "ljspeech",
        line(LJ, "LJ001-0009|No sound.|No sound."),
        "line 4",
        "wavs/LJ001-0009.wav is not there",
        3,
    ),
    (
        "ljspeech",
        line(LJ, "LJ001-0001|Twice.|Twice."),
        "line 4",
        "the id LJ001-0001 is there before",
        3,
    ),
    ("ljspeech", line(LJ, "LJ001-0001"), "line 4", 'not "id|text|normalised text"', 3),
    ("ljspeech", line(LJ, "LJ001-0001|||"), "line 4", "4 columns between '|', at most 3", 3),
    ("ljspeech", line(LJ, "LJ001-0001||"), "line 4", "text missing or empty", 3),
    (
        "ljspeech",
        line(LJ, b"LJ001-0001|caf\xe9|caf\xe9", 1),
        "line 2",
        "not UTF-8 (byte 0xe9 at position 15)",
        3,
    ),
    (
        "ljspeech",
        line(LJ, "LJ001-0001|x|" + "word " * 899 + "words"),
        "line 4",
        "4,500 characters",
        3,
    ),
    ("ljspeech", line(LJ, "LJ001-0001|x|a\x00b"), "line 4", "an earlier program could not read", 3),
    (
        "ljspeech",
        line(LJ, "LJ001-0001|x|Gr\ufffd\ufffde"),
        "line 4",
        "an earlier program could not read",
        3,
    ),
    ("ljspeech", edit("wavs/LJ001-0001.wav", b""), "line 2", "an empty file", 2),
    (
        "librispeech",
        edit(f"{LIBRI}/103-120-0001.flac", None),
        "103-120.trans.txt, line 2",
        "103-120-0001",
        5,
    ),
    (
        "librispeech",
        line(f"{LIBRI}/103-120.trans.txt", "103-120-0001 AGAIN"),
        "line 3",
        "is there before",
        6,
    ),
    (
        "librispeech",
        line(f"{LIBRI}/103-120.trans.txt", "103-120-0001"),
        "line 3",
        "text missing or empty",
        6,
    ),
    (
        "librispeech",
        lambda f: put(f, f"{LIBRI}/103-120-0002.flac", encoded(1, "flac")),
        "103-120-0002.flac",
        "no text says what is said in it",
        6,
    ),
    (
        "librispeech",
        edit(f"{LIBRI}/103-120.trans.txt", "103-120-0000 A".encode("utf-16")),
        "train-clean-100/103",
        "is UTF-16, not UTF-8; write it again: iconv",
        4,
    ),
    ("libritts", edit(f"{TTS}.wav", None), ".normalized.txt", ".wav is not there", 3),
    (
        "libritts",
        edit(f"{TTS}.normalized.txt", b"\n"),
        ".normalized.txt",
        "text missing or empty",
        3,
    ),
    ("libritts", edit(f"{TTS}.normalized.txt", b"\xff\xfe"), ".normalized.txt", "not UTF-8", 3),
    (
        "vctk",
        edit("txt/p226/p226_001.txt", b""),
        "txt/p226/p226_001.txt",
        "text missing or empty",
        2,
    ),
    (
        "vctk",
        edit("wav48_silence_trimmed/p226/p226_001_mic1.flac", None),
        "txt/p226/p226_001.txt",
        "no recording of it by mic1",
        2,
    ),
    (
        "vctk",
        lambda f: put(f, "txt/p399/p399_001.txt", "Alone."),
        "txt/p399/p399_001.txt",
        "no recording of it by mic1",
        3,
    ),
    (
        "vctk",
        edit("wav48_silence_trimmed/p226/p226_001_mic1.flac", b""),
        "txt/p226/p226_001.txt",
        "an empty file",
        2,
    ),
    (
        "common_voice",
        edit(f"{CV}/clips/common_voice_en_1.mp3", None),
        "en/train.tsv, line 3",
        "common_voice_en_1.mp3 is not there",
        3,
    ),
    ("common_voice", line(f"{CV}/train.tsv", cv()), "en/train.tsv, line 4", "is there before", 4),
    (
        "common_voice",
        line(f"{CV}/train.tsv", "who\tcommon_voice_en_0.mp3", 1),
        "line 2",
        "2 columns, 10 are expected",
        4,
    ),
    (
        "common_voice",
        line(f"{CV}/train.tsv", cv(sentence="a\tb")),
        "line 4",
        "11 columns between 'tab', at most 10",
        4,
    ),
    (
        "common_voice",
        line(f"{CV}/train.tsv", cv(sentence="")),
        "line 4",
        "text missing or empty",
        4,
    ),
    (
        "common_voice",
        line(f"{CV}/train.tsv", cv(sentence="\u2026")),
        "line 4",
        "nothing can be said",
        4,
    ),
    (
        "common_voice",
        line(f"{CV}/train.tsv", cv().encode("utf-16-le")[:40]),
        "line 4",
        "columns",
        4,
    ),
    ("parquet", table(audio=None), "train-00009-of-00010.parquet, row 1", "it has no audio", 4),
    ("parquet", table(audio={"bytes": b"", "path": "x.wav"}), "row 1", "its audio has no bytes", 4),
    ("parquet", table(transcription=None), "row 1", "text missing or empty", 4),
    (
        "parquet",
        table(audio={"bytes": encoded(7), "path": "clip0.flac"}),
        "row 1",
        "the id clip0 is there before",
        4,
    ),
    (
        "parquet",
        edit("data/train-00001-of-00002.parquet", lambda d: d[:100]),
        "train-00001-of-00002.parquet",
        "not readable as Parquet",
        3,
    ),
    (
        "voice_assistant",
        snac("# 1 2 3"),
        "row 2",
        "frame 1 of its tokens is '1 2 3', not 7 numbers",
        2,
    ),
    ("voice_assistant", snac("# 1 2 3 4 5 6 -7"), "row 2", "not 7 numbers", 2),
    ("voice_assistant", snac({"answer": ""}), "row 2", "answer missing or empty", 2),
    ("voice_assistant", snac({"question_audio": None}), "row 2", "it has no audio", 2),
    (
        "voice_assistant",
        snac({"index": "0"}),
        "row 2",
        "the id trivia_multi_choice-0-1 is there",
        2,
    ),
    (
        "webdataset",
        wds(("k.wav", encoded(5))),
        "train-000002.tar, k",
        "no text in a record of wav",
        4,
    ),
    (
        "webdataset",
        wds(("k.txt", "A word.")),
        "train-000002.tar, k",
        "no audio file in a record of txt",
        4,
    ),
    ("webdataset", wds(("k.txt", b"caf\xe9"), ("k.wav", encoded(5))), "tar, k", "not UTF-8", 4),
    ("webdataset", wds(("k.txt", "A."), ("k.wav", "")), "tar, k", "k.wav has no bytes", 4),
    (
        "webdataset",
        wds(("k.json", "[1]"), ("k.wav", encoded(5))),
        "tar, k",
        "its JSON is a list",
        4,
    ),
    (
        "webdataset",
        wds(("k.json", '{"text": ["a"]}'), ("k.wav", encoded(5))),
        "tar, k",
        'text is ["a"], not text',
        4,
    ),
    ("webdataset", wds(*sample(0)), "tar, a/0000", "is there before", 4),
    (
        "webdataset",
        wds(("k.txt", "A."), ("k.wav", encoded(5)), ("k.flac", encoded(6, "flac"))),
        "tar, k",
        "2 audio files: wav, flac",
        4,
    ),
    (
        "webdataset",
        lambda f: put(f, "train-000002.tar", shard(sample(4))[:700]),
        "tar, ",
        "damaged or cut off there",
        4,
    ),
    (
        "webdataset",
        lambda f: put(f, "train-000002.tar", b"not a tar at all" * 99),
        "tar, its beginning",
        "damaged or cut off there",
        4,
    ),
]


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: f"{row[0]}: {row[3][:40]}")
def test_a_broken_record_is_one_clear_line_and_costs_no_other(row, tmp_path):
    name, damage, place, words, left = row
    getattr(corpora, name)(tmp_path)
    before = {str(problem) for problem in read(tmp_path)[1]}
    damage(tmp_path)
    good, bad = read(tmp_path)
    assert len(good) == left
    (problem,) = [problem for problem in bad if str(problem) not in before]
    assert place in problem.where and words in problem.reason, str(problem)
    assert str(problem) == f"{problem.where}: {problem.reason}" and len(str(problem)) < 400
    assert problem.kind and "\n" not in str(problem)


SOUNDS = [
    ("cut off", encoded(0)[:-6000], "was cut off: 0.1", "audio cut off"),
    ("a text", b"hello there", "not readable audio", "audio not readable"),
    (
        "a pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
        "git lfs pull",
        "audio not readable",
    ),
    ("silence", None, "holds only silence", "only silence"),
    ("too short", encoded(0, seconds=0.05), "too short: 0.050 s", "audio too short"),
    ("too long", encoded(0, seconds=31, rate=8000), "too long: 31.0 s", "audio too long"),
    ("no samples", encoded(0, seconds=0), "holds no samples", "audio of length 0"),
    ("half a header", encoded(0)[:30], "not readable audio", "audio not readable"),
    ("an archive", b"PK\x03\x04" + bytes(90), "zip archive", "audio not readable"),
]


@pytest.mark.parametrize("row", SOUNDS, ids=lambda row: row[0])
@pytest.mark.parametrize("shape", ["file", "shard"])
def test_sound_that_cannot_be_used_is_told_when_it_is_asked_for(row, shape, tmp_path):
    _, content, words, kind = row
    if content is None:
        out = io.BytesIO()
        corpora.soundfile.write(out, np.full(16_000, 900, np.int16), 16_000, format="WAV")
        content = out.getvalue()
    if shape == "file":
        put(tmp_path, "a.wav", content)
        put(tmp_path, "m.jsonl", '{"audio": "a.wav", "text": "A word."}')
    else:
        put(tmp_path, "a.tar", shard([("a.txt", "A word."), ("a.wav", content)]))
    (item,), _ = read(tmp_path)
    with pytest.raises(BadItem) as problem:
        item.load()
    assert words in problem.value.reason and problem.value.kind == kind
    assert problem.value.where == item.where


def test_a_file_that_went_away_and_tokens_that_are_none(tmp_path):
    corpora.vocalnet(tmp_path)
    good, _ = read(tmp_path)
    folder = tmp_path / "VoiceAssistant-430K-vocalnet"
    (folder / "audios/0.wav").unlink()
    for ask in (good[0].load, good[0].raw):
        with pytest.raises(BadItem, match=r"0\.wav does not exist"):
            ask()
    (folder / "cosyvoice2_tokens/0.npy").unlink()
    np.save(folder / "cosyvoice2_tokens/1.npy", np.array([0.5]))
    np.save(folder / "cosyvoice2_tokens/2.npy", np.array([{}], object), allow_pickle=True)
    for item, words in zip(
        good, ("No such file", "float64, not integers", "allow_pickle"), strict=True
    ):
        with pytest.raises(BadItem, match=words):
            item.units.load()


# ---- Lists as they come -------------------------------------------------------------------------

WRITTEN = [  # a list of LJSpeech's layout as bytes, and the texts that are in it
    (b"a|x|One.\r\nb|x|Two.\r\n", ["One.", "Two."]),
    (b"\xef\xbb\xbfa|x|One.\nb|x|Two.", ["One.", "Two."]),
    (b"a|x|One.\rb|x|Two.\r", ["One.", "Two."]),
    (b"a|One.\n\n  \nb|Two.|\n", ["One.", "Two."]),
    (b'a|x|"One."\nb|x|"Yes," he said, "no"\n', ['"One."', '"Yes," he said, "no"']),
    (b'a|x|"One | two"\nb|x|"He said ""no"", then."\n', ["One | two", 'He said "no", then.']),
    (b'a|x|"One\nb|x|2"" wide\n', ['"One', '2"" wide']),
    (b"a | x | One. \nwavs/b|x|Two.\n", ["One.", "Two."]),
    (b"a.wav|x|One.\nb|x|One\\|two\n", ["One.", "One|two"]),
    ("a|x|Caf\u00e9 \u2028 x\nb|x|Z\u0308\n".encode(), ["Caf\u00e9 \u2028 x", "Z\u0308"]),
]


@pytest.mark.parametrize(("data", "texts"), WRITTEN, ids=range(len(WRITTEN)))
def test_marks_line_ends_and_quotes_of_a_list(data, texts, tmp_path):
    for name in "ab":
        put(tmp_path, f"wavs/{name}.wav", encoded(0))
    put(tmp_path, LJ, data)
    good, bad = read(tmp_path)
    assert not bad and [item.text for item in good] == texts
    assert [item.id for item in good] == ["a", "b"]


LISTS = [  # a JSON list as bytes, the ids in it, the words of what is wrong
    (b'[{"id": 1}, {"id": 2}]', [1, 2], []),
    (b'\xef\xbb\xbf [\r\n{"id": 1},\n\n{"id": 2}\n]\r\n', [1, 2], []),
    (b'[{"id": 1}, {"id": 2}', [1, 2], ["not JSON from character 22 of the file on"]),
    (b'[{"id": 1}, {"id" 2}, {"id": 3}]', [1], ["not JSON from character 13"]),
    (b'[{"id": 1}]\n{"id": 2}\n', [1], ["not JSON from character 12"]),
    (b'[{"id": 1}, 5, null, [2], {"id": 3}]', [1, 3], ["but a int", "but null", "but a list"]),
    (b'[{"id": 1}, {"x": "\\ud800"}, {"id": 3}]', [1, 3], ["half a character"]),
    (b'[{"id": 1, "x": "\xe9"}, {"id": 3}]', [3], ["half a character"]),
    (b'[{"id": "\xc3\xa9' + b"\xc3\xa9" * 70_000 + b'"}, {"id": 3}]', ["é" * 70_001, 3], []),
    (b"[]", [], []),
]


@pytest.mark.parametrize(("data", "ids", "wrong"), LISTS, ids=range(len(LISTS)))
def test_a_json_list_is_read_item_by_item(data, ids, wrong, tmp_path):
    path = put(tmp_path, "x.json", data)
    found = [value for _, value in tables.read_objects(str(path))]
    assert [value["id"] for value in found if isinstance(value, dict)] == ids
    bad = [str(value) for value in found if isinstance(value, BadRecord)]
    assert len(bad) == len(wrong)
    assert all(words in problem for words, problem in zip(wrong, bad, strict=True)), bad


HOSTILE = [
    '{"audio": "a.wav", "text": "half \\ud800 a sign"}',
    '{"audio": "a\\u0000.wav", "text": "Good."}',
    '{"audio": "a.wav", "text": "Good.", "id": ' + "7" * 5000 + "}",
    '{"audio": "a.wav", "text": "Good.", "id": ["a"]}',
    '{"audio": "a.wav", "text": "Good.", "id": ""}',
    '{"audio": "a.wav", "text": "Good.", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"audio": "a.wav", "text": "Good.", "symbols": [1.5], "frames": [1]}',
    '{"audio": "a.wav", "text": "Good.", "symbols": [1, 2], "frames": [1]}',
    '{"audio": "a.wav", "text": "Good.", "f0": [1e999]}',
    '{"audio": 5, "text": "Good."}',
    '{"audio": "a.wav"}',
    "# a comment",
    "[1, 2]",
    "null",
    '{"audio": "a.wav", "text": "Good."',
    b"\xff\xfe\x00\x01",
    '{"audio": "a.wav", "text": "' + "la " * 2000 + '"}',
]


@pytest.mark.parametrize("listed", [False, True])
def test_a_manifest_is_judged_as_by_the_reader_of_own_recordings(listed, tmp_path):
    """Line by line the same reasons, whether its lines are streamed or read at once."""
    put(tmp_path, "a.wav", encoded(0))
    good = '{"audio": "a.wav", "text": "Good."}'
    if listed:
        rows = [row for row in HOSTILE if isinstance(row, str) and _is_json(row)]
        data = ("[" + ",\n ".join([good, *rows]) + "]").encode()
    else:
        rows = [good, *HOSTILE, "\ufeff" + good.replace("{", '{"id": 2, ')]
        data = b"\r\n".join(row if isinstance(row, bytes) else row.encode() for row in rows)
    put(tmp_path, "m.jsonl", data)
    old = read_manifest(tmp_path / "m.jsonl", 16_000).entries
    new = list(open_corpus(str(tmp_path)).items())
    assert len(old) == len(new) > 10
    for one, other in zip(old, new, strict=True):
        assert isinstance(one, BadRecord) == isinstance(other, BadItem)
        if isinstance(one, BadRecord):
            assert " ".join(str(one).split()) == str(other)


def _is_json(row):
    try:
        json.loads(row)
    except (ValueError, RecursionError):
        return False
    return True


def test_a_shard_of_other_tar_archives_is_none(tmp_path):
    """Archives that a corpus was fetched in are no shards of records."""
    names = (
        "LibriSpeech/dev-clean/84/1/84-1-0000.flac",
        "LibriSpeech/dev-clean/84/1/84-1.trans.txt",
    )
    put(tmp_path, "dev-clean.tar.gz", shard([(names[0], encoded(0, "flac")), (names[1], "84 A")]))
    with pytest.raises(UserError, match="no corpus of a known format"):
        open_corpus(str(tmp_path))
    corpora.librispeech(tmp_path)
    with tarfile.open(tmp_path / "dev-clean.tar.gz") as tar:
        assert len(tar.getnames()) == 2
    assert open_corpus(str(tmp_path / "LibriSpeech")).format == "librispeech"


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    corpora.librispeech(tmp_path)
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("84/121"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    good, (problem,) = read(tmp_path / "LibriSpeech", format="librispeech")
    assert len(good) == 4 and problem.where == "dev-clean/84"
    assert "dev-clean/84/121" in problem.reason and "ermission denied" in problem.reason
