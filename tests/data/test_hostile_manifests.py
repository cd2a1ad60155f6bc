"""What strangers' manifests hold: a bad line costs that line and is named by its number in the
file; an earlier import outlives a wrong one.
"""

import codecs
import errno
import json
import os
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from even_aligner import Even, tone
from hostile_lines import lines_of

from mdmspeech.data.datasets.corpus import speech
from mdmspeech.data.datasets.make import recordings_from_raw
from mdmspeech.data.recordings import user
from mdmspeech.data.recordings.manifests import read_manifest
from mdmspeech.data.storage import record_store
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError
from mdmspeech.inference.paced_synthesizer import pronounce_text

GOOD = [{"audio": f"{n}.wav", "text": f"This is number {n}.", "id": f"id{n}"} for n in range(4)]


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waves")
    for n in range(4):
        soundfile.write(folder / f"{n}.wav", tone(2, 8_000), 8_000)
    return folder


@pytest.fixture
def folder(waves, tmp_path):
    for path in waves.iterdir():
        os.link(path, tmp_path / path.name)
    return tmp_path


def take_in(folder, data, aligner=None):
    (folder / "m.jsonl").write_bytes(data)
    return user.import_own(
        folder / "m.jsonl", folder / "root" / "raw" / "own", aligner or Even(), pronounce_text
    )


def content(folder):
    return (
        {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
        if folder.is_dir()
        else None
    )


BAD = [
    ('{"audio": "0.wav", "text": "half \\ud800 a sign"}', "half a character"),
    ('{"audio": "0.wav", "text": "Good.", "voice": "\\udfff"}', "half a character"),
    ('{"audio": "0.wav", "text": "Good.", "note": {"\\ud83d": 1}}', "half a character"),
    ('{"audio": "0\\u0000.wav", "text": "Good."}', "signs that no file name has"),
    ('{"audio": "0.wav", "text": "Good.", "id": ' + "7" * 5000 + "}", "thousands of digits"),
    ('{"audio": "0.wav", "text": "Good.", "id": ' + "7" * 2000 + "}",
        "id is empty, longer than any name"),
    ('{"audio": "0.wav", "text": "Good.", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "nested too deeply"),
    ("[" * 100_000, "nested too deeply"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": {"a": 1}}', "symbols is a dict"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [1, "b"]}', "symbols has a str"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [1.5], "frames": [1]}', "symbols has a float"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [1e99], "frames": [1]}',
        "symbols has a float"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [99999999999999999999], "frames": [1]}',
        "from 0 to"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [1], "frames": [-3]}', "frames has -3"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [1], "frames": [NaN]}', "frames has nan"),
    ('{"audio": "0.wav", "text": "Good.", "symbols": [1, 2], "frames": [1]}',
        "1 frames for 2 symbols"),
    ('{"audio": "0.wav", "text": "Good.", "frames": [1, 2]}', "2 frames for 0 symbols"),
    ('{"audio": "0.wav", "text": "Good.", "f0": [1e999]}', "f0 has inf"),
    ('{"audio": "0.wav", "text": "Good.", "f0": "high"}', "f0 is a str"),
    ('{"audio": "0.wav", "text": "Good.", "id": ["a"]}', "id is a list"),
    ('{"audio": "0.wav", "text": "Good.", "id": true}', "id is a bool"),
    ('{"audio": "0.wav", "text": "Good.", "id": null}', "id is a NoneType"),
    ('{"audio": "0.wav", "text": "Good.", "id": ""}', "id is empty"),
    ('{"audio": "0.wav", "text": "Good.", "id": "a\\nb"}', "cannot be printed"),
    ('{"audio": "0.wav", "text": "Good.", "split": ["test"]}', "split is a list"),
    ('{"audio": "0.wav", "text": "Good.", "split": "dev", "id": "new"}', "use train, val or test"),
    ('{"audio": "0.wav", "text": "Good.", "family": {}}', "family is a dict"),
    ('{"audio": 5, "text": "Good."}', "audio missing"),
    ('{"audio": "0.wav", "text": ["Good."]}', "text missing"),
    ('{"audio": "0.wav", "text": ""}', "text missing"),
    ('{"audio": "0.wav", "text": "... —", "id": "signs"}', "nothing can be said"),
    ('{"audio": "0.wav", "text": "' + "la " * 2000 + '", "id": "long"}', "6,000 characters"),
    ('{"audio": ".", "text": "Good."}', "is a folder"),
    ('{"audio": "/dev/zero", "text": "Good."}', "device or a pipe"),
    ('{"audio": "' + "a" * 5000 + '.wav", "text": "Good.", "id": "name"}', "File name too long"),
    ('{"audio": "../../../../nowhere/0.wav", "text": "Good."}', "does not exist"),
    ('{"audio": "m.jsonl", "text": "Good."}', "not readable audio"),
    ('{"audio": "0.wav", "text": "Good.", "id": "id1"}', "is listed before, in m.jsonl, line 3"),
    ("# a comment", "a comment"),
    ("// another", "a comment"),
    ("[1, 2]", "not a JSON object but a list"),
    ("null", "not a JSON object but null"),
    ('"0.wav"', "not a JSON object but a str"),
    ("{'audio': '0.wav'}", "not a JSON object"),
    ('{"audio": "0.wav", "text": "Good."', "not a JSON object"),
    ('{"audio": "0.wav", "text": "Good."},', "not a JSON object (Extra data"),
    (b'{"audio": "0.wav", "text": "caf\xe9"}', "not UTF-8 (byte 0xe9"),
    (b"\xff\xfe\x00\x01", "not UTF-8"),
]  # fmt: skip


def test_every_bad_line_is_named_by_its_number_and_no_good_one_is_lost(folder):
    bad = [line for line, _ in BAD]
    u2028 = '{"audio": "3.wav", "text": "One line\u2028and \x85 another.", "id": "id3"}'
    rows = lines_of(
        GOOD[0], "", GOOD[1], *bad, "  \t", codecs.BOM_UTF8 + json.dumps(GOOD[2]).encode(), u2028
    )
    done = take_in(folder, codecs.BOM_UTF8 + b"\r\n".join(rows) + b"\r\n")
    raw = folder / "root" / "raw" / "own"
    kept = record_store.RecordStore(raw)
    assert [record["id"] for record in kept.fields] == ["id0", "id1", "id2", "id3"]
    assert len(kept[3]["audio"]) > 1000  # U+2028 in a record does not end its line in the store
    assert len(done.left_out) == len(BAD)
    for number, ((_, reason), told) in enumerate(zip(BAD, done.left_out, strict=True), 4):
        assert (
            told.startswith(f"m.jsonl, line {number}: ") and reason in told and len(told) < 400
        ), told
    assert (raw / "left_out.txt").read_text().split("\n")[:-1] == done.left_out


FILES = [
    (b"", "is empty"),
    (b"\n \n\r\n", "is empty"),
    (codecs.BOM_UTF8, "is empty"),
    (json.dumps(GOOD[0]).encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    (json.dumps(GOOD[0]).encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
    (json.dumps(GOOD[0]).encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
    (json.dumps(GOOD[0]).encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
    (json.dumps(GOOD[0]).encode("utf-32-le"), "iconv -f UTF-32LE -t UTF-8"),
    (b"audio,text\n0.wav,Good.\n", "is a table"),
    (b"0.wav\tGood.\n", "is a table"),
    (b"LJ001-0001|Printing, in the only sense|Printing\n", "is a table"),
    (b"[\n{'audio': 1}\n]\n", "python -m json.tool"),
    (json.dumps(GOOD[0], indent=1).encode(), "every object on a line of its own"),
    (b"hello\n", "write one a line"),
    (b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256)), "no line that is a JSON object"),
]


@pytest.mark.parametrize(("data", "cure"), FILES, ids=range(len(FILES)))
def test_what_is_no_such_file_is_refused_with_its_cure(data, cure, folder):
    with pytest.raises(UserError) as refused:
        take_in(folder, data)
    assert cure in str(refused.value) and len(str(refused.value)) < 500
    assert not (folder / "root").exists()


def test_the_cures_work(folder):
    """The commands that the messages name, run as they stand."""
    for data in (
        json.dumps(GOOD[0]).encode("utf-16"),
        json.dumps(GOOD[0]).encode("utf-16-le"),
        b"0.wav\tThis is number one.\n",
        b'0.wav,"This, is."\n',
    ):
        with pytest.raises(UserError) as refused:
            take_in(folder, data)
        command = next(part for part in ("iconv" + str(refused.value).partition("iconv")[2],
            "python -c" + str(refused.value).partition("python -c")[2]) if "<" in part or "-f" in part)  # fmt: skip
        subprocess.run(
            command.replace("python", sys.executable, 1), shell=True, cwd=folder, check=True
        )
        made = folder / command.split("> ")[-1]
        assert read_manifest(made, 24_000).entries[0]["audio"] == "0.wav"


@pytest.mark.parametrize(
    "write",
    [
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=2),
        lambda rows: "\n\r\n" + json.dumps(rows) + "\n",
    ],
)
def test_a_json_list_is_read_as_well(write, folder):
    (folder / "m.jsonl").write_text(write([GOOD[0], {"audio": 1}, GOOD[1]]))
    read = read_manifest(folder / "m.jsonl", 24_000)
    assert read.where == ["m.jsonl, entry 1", "m.jsonl, entry 2", "m.jsonl, entry 3"]
    assert [isinstance(entry, BadRecord) for entry in read.entries] == [False, True, False]


def test_old_line_ends_and_a_first_line_that_is_a_list(folder):
    (folder / "m.jsonl").write_bytes(b"\r".join(lines_of(*GOOD)))
    assert len(read_manifest(folder / "m.jsonl", 24_000).entries) == 4
    (folder / "m.jsonl").write_bytes(b"\n".join(lines_of("[1]", *GOOD)))
    assert [
        isinstance(entry, BadRecord) for entry in read_manifest(folder / "m.jsonl", 24_000).entries
    ] == [True, *[False] * 4]


def test_a_path_that_is_no_manifest(folder):
    for path, told in (
        (folder, "is a folder"),
        (folder / "no.jsonl", "cannot be read"),
        (folder / "0.wav" / "m.jsonl", "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(UserError, match=told):
            user.import_own(path, folder / "root" / "raw" / "own", Even(), pronounce_text)
    assert not (folder / "root").exists()


JUNK = [
    b"\x00", b"\xff", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\\ud800", b"[", b"}", b'"', b"\\", b"NaN",
    b"-", b"\r", b"9" * 5000, b"[" * 3000,
]  # fmt: skip
VALUES = [
    b"null", b"[]", b"{}", b"1e999", b"NaN", b"true", b'""', b"-1", b"[[1]]", b'"\\u0000"',
    b"8" * 4400,
]  # fmt: skip
FIELDS = [
    b"id", b"split", b"voice", b"symbols", b"frames", b"f0", b"units", b"rate", b"audio", b"text",
]  # fmt: skip
ODD = [b"{}", b"[[]]", b"NaN", b"-Infinity", b'"\\udc00"', b"false", b"1e400", b"[1, null]"]


def mutate(rng, line):
    """One of the things that editors, exports and transfers do to a line; it never has a line feed."""
    at = rng.randrange(len(line) + 1)
    junk = rng.choice([*JUNK, bytes([rng.randrange(11, 256)])])
    how = rng.randrange(5)
    if how == 0:
        return line[:at]
    if how == 1:
        return line[:at] + junk + line[at:]
    if how == 2:
        return line[:at] + junk + line[at + len(junk) :]
    if how == 3:
        value = rng.choice(VALUES)
        audio = value if rng.random() < 0.5 else b'"0.wav"'
        return b'{"audio": %b, "text": %b, "id": %b}' % (audio, value, value)
    return line[:-1] + b', "%b": %b}' % (rng.choice(FIELDS), rng.choice(ODD))


def test_no_mutation_ends_an_import_or_costs_a_good_line(folder):
    """Only UserError, only the mutated lines, and each under its number."""
    rng, good = (
        random.Random(11),
        lines_of(*({**row, "id": f"good{n}"} for n, row in enumerate(GOOD))),
    )
    seen = set()
    for _ in range(400):
        rows = [*good]
        places = sorted(rng.sample(range(5), rng.randrange(1, 4)))
        for place in places:
            rows.insert(place, mutate(rng, rng.choice(good).replace(b"good", b"bad")))
        (folder / "m.jsonl").write_bytes(b"\n".join(rows))
        read = read_manifest(folder / "m.jsonl", 24_000)
        rows_of = user._rows(read)
        kept = {row["id"] for row in rows_of if "error" not in row}
        assert {f"good{n}" for n in range(4)} <= kept
        numbers = {
            int(row["line"].rpartition(" ")[2])
            for row in rows_of
            if row["id"].startswith("good") and "error" not in row
        }
        assert numbers == {n for n, row in enumerate(rows, 1) if row in good}
        for row in rows_of:
            if "number" in row:
                user._source(row, read)
                json.dumps(row, ensure_ascii=False).encode()
                try:
                    read.example(row["number"])
                except BadRecord as problem:
                    seen.add(str(problem)[-12:])
            else:
                seen.add(row["error"][:12])
    assert len(seen) > 8  # many kinds of harm were met


def test_one_clip_is_kept(folder, capsys):
    done = take_in(folder, lines_of(GOOD[0])[0])
    assert (done.recordings, done.held_out) == (1, 0)
    root = folder / "root"
    recordings_from_raw(root, "own")
    assert len(speech(root, ("own",), "train")) == 1  # what there is is trained on
    assert len(speech(root, ("own",), "test", may_be_empty=True)) == 0
    with pytest.raises(UserError, match='"split": "test"'):
        speech(root, ("own",), "test")


# ---- An earlier import outlives what goes wrong -------------------------------------------------


def earlier(folder):
    take_in(folder, b"\n".join(lines_of(*GOOD)))
    return folder / "root" / "raw" / "own"


def mismatched(folder):
    return take_in(
        folder,
        b"\n".join(lines_of(*({**row, "text": "Something else."} for row in GOOD))),
        Even(score=user.MATCHES - 1),
    )


WRONG = {
    "of other recordings": lambda folder: take_in(folder,
        b"\n".join(lines_of(*({**row, "id": f"other{n}"} for n, row in enumerate(GOOD))))),
    "no good line": lambda folder: take_in(folder, b'{"audio": 1}\n{}\n'),
    "no file of it is there": lambda folder: take_in(folder,
        b"\n".join(lines_of(*({**row, "audio": "x" + row["audio"]} for row in GOOD)))),
    "texts that were not said": mismatched,
    "an empty file": lambda folder: take_in(folder, b""),
    "a table": lambda folder: take_in(folder, b"a,b\n"),
    "no manifest": lambda folder: user.import_own(folder / "no.jsonl",
        folder / "root" / "raw" / "own", Even(), pronounce_text),
    "an aligner that is not installed": lambda folder: user.import_own(
        _changed(folder), folder / "root" / "raw" / "own",
        lambda: (_ for _ in ()).throw(UserError("not installed")), pronounce_text
    ),
}  # fmt: skip


def _changed(folder):
    (folder / "m.jsonl").write_bytes(
        b"\n".join(lines_of(*({**row, "text": "Another text."} for row in GOOD)))
    )
    return folder / "m.jsonl"


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_manifest_leaves_the_earlier_import_as_it_was(wrong, folder):
    raw = earlier(folder)
    before = content(raw)
    with pytest.raises(UserError):
        WRONG[wrong](folder)
    assert content(raw) == before and [path.name for path in raw.parent.iterdir()] == ["own"]


def test_a_full_disk_is_said_and_leaves_no_cut_file(folder, monkeypatch):
    raw = earlier(folder)
    before = content(raw)
    real = pathlib.Path.write_text

    def full(path, *args, **kwargs):
        if ".jsonl" in path.name:
            real(path, "{", encoding="utf-8")  # some of it still fitted
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    rows = lines_of(*({**row, "text": "This is a changed text."} for row in GOOD))
    with pytest.raises(
        UserError, match=r"no space left on device; make room, or set \$MDMSPEECH_HOME"
    ):
        take_in(folder, b"\n".join(rows))
    assert content(raw) == before
    assert not [path for path in (folder / "root").rglob("*") if "part" in path.name]
    monkeypatch.setattr(pathlib.Path, "write_text", real)
    assert take_in(folder, b"\n".join(rows)).recordings == 4
    assert [path.name for path in raw.parent.iterdir()] == ["own"]


def test_a_root_below_a_file(folder):
    (folder / "file").write_text("x")
    (folder / "m.jsonl").write_bytes(b"\n".join(lines_of(*GOOD)))
    with pytest.raises(UserError, match="file is a file, not a folder"):
        user.import_own(folder / "m.jsonl", folder / "file" / "raw" / "own", Even(), pronounce_text)


def test_a_new_import_that_shares_lines_takes_them_over(folder):
    raw = earlier(folder)
    take_in(folder, b"\n".join(lines_of(*GOOD[:3])))
    assert len(record_store.RecordStore(raw)) == 3 and [
        path.name for path in raw.parent.iterdir()
    ] == ["own"]


@pytest.mark.parametrize(
    "moment", ["before the new one takes the name", "before the old one is removed"]
)
def test_a_kill_between_the_renames_is_mended(moment, folder):
    raw = earlier(folder)
    before = {name: data for name, (data, _) in content(raw).items()}
    if moment.startswith("before the new"):
        os.replace(raw, raw.with_name(".own.old"))
    else:
        (raw.parent / ".own.old").mkdir()
    record_store.StagedPart(raw).recover()
    assert {name: data for name, (data, _) in content(raw).items()} == before and not (
        raw.parent / ".own.old"
    ).exists()


def test_what_is_stored_is_read_back(tmp_path):
    records = [
        {"id": "a\u2028b", "text": "x\x85y\x0bz", "rate": 8000},
        {"id": "b", "text": "\r\n", "rate": 8000},
    ]
    record_store.write_shard(
        tmp_path / "raw", "00000-x", [(record, np.arange(3, dtype=np.int16)) for record in records]
    )
    assert [record["text"] for record in record_store.RecordStore(tmp_path / "raw")] == [
        "x\x85y\x0bz",
        "\r\n",
    ]
