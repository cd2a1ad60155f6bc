"""What is wrong with records of other people's corpora: each costs itself alone, and is told in one
line that names its place.
"""

import json
import os
import tarfile

import corpora
import pytest
from corpora import encoded, put, read, sample, shard

from mdmspeech.data.importers import open_corpus
from mdmspeech.errors import UserError

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
