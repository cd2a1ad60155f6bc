"""Corpora of other people, from small ones laid out like the real ones: what comes out, what is
refused and how it is said, and that neither shards nor disks decide the order.
"""

import io
import json
import os
import random
from multiprocessing.reduction import ForkingPickler

import corpora
import numpy as np
import pytest
from corpora import TEXTS, encoded, put, sample, shard, tone

from mdmspeech import remote
from mdmspeech.data.importers import BadItem, Item, open_corpus, tables
from mdmspeech.data.importers.corpus import Seen, split_of
from mdmspeech.data.importers.registry import FORMATS
from mdmspeech.errors import UserError


def read(folder, **options):
    """(good, bad) records of all that is in the folder."""
    found = list(open_corpus(str(folder), **options).items())
    good = [item for item in found if isinstance(item, Item)]
    return good, [problem for problem in found if isinstance(problem, BadItem)]


# Format: good and bad records, and one of them: its number, fields, tone and rate.
SAMPLES = {
    "manifest": (3, 0, 1, {
        "id": "one", "text": TEXTS[1], "answer": "Yes.", "question": TEXTS[1], "speaker": "bob",
        "split": "train", "where": "manifest.jsonl, line 2"}, 1, 16_000),
    "vocalnet": (3, 0, 2, {
        "id": "19092", "text": TEXTS[2], "answer": "It depends on the laws of 2 places.",
        "split": "train", "where": "VoiceAssistant-430K.json, entry 3"}, 2, 16_000),
    "ljspeech": (3, 0, 1, {
        "id": "LJ001-0001", "text": f"{TEXTS[1]} 1", "speaker": "", "split": "train",
        "licence": "Public Domain", "where": "metadata.csv, line 2",
        "fields": {"written": f'"{TEXTS[1]}" in 1410'}}, 1, 22_050),
    "librispeech": (6, 0, 1, {
        "id": "84-121-0001", "text": "MODERN AS IT IS, IT DIFFERS 1", "speaker": "84",
        "split": "val", "language": "en", "licence": "CC BY 4.0",
        "where": "dev-clean/84/121/84-121.trans.txt, line 2",
        "fields": {"gender": "F", "name": "Christie Nowak"}}, 3, 16_000),
    "libritts": (4, 0, 3, {
        "id": "103_1240_000000_000001", "text": f"{TEXTS[1]} Number 0.", "speaker": "103",
        "split": "train", "fields": {"gender": "F", "name": "Karen Savage"}}, 1, 24_000),
    "vctk": (3, 1, 0, {
        "id": "p225_001", "text": TEXTS[0], "speaker": "p225", "split": "train", "language": "en",
        "fields": {"age": "23", "gender": "F", "accent": "English"}}, 0, 48_000),
    "common_voice": (4, 0, 2, {
        "id": "common_voice_en_2", "text": f'"{TEXTS[2]}', "speaker": "c2aa", "split": "val",
        "language": "en", "licence": "CC0-1.0", "where": "en/dev.tsv, line 2"}, 2, 32_000),
    "parquet": (4, 0, 3, {
        "id": "clip3", "text": TEXTS[3], "speaker": "13", "split": "val", "licence": "cc-by-4.0",
        "where": "data/validation-00000-of-00002.parquet, row 1",
        "fields": {"gender": "female"}}, 3, 16_000),
    "voice_assistant": (3, 0, 1, {
        "id": "trivia_multi_choice-1-1", "text": TEXTS[1], "answer": "The answer is 1.",
        "split": "train", "licence": "apache-2.0"}, 1, 22_050),
    "webdataset": (4, 0, 3, {
        "id": "a/0002", "text": TEXTS[2], "speaker": "s2", "language": "de", "split": "train",
        "where": "train-000001.tar, a/0002"}, 2, 16_000),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_in_its_records_out(name, tmp_path):
    getattr(corpora, name)(tmp_path)
    good, bad, number, fields, pitch, rate = SAMPLES[name]
    corpus = open_corpus(str(tmp_path))
    assert corpus.format == name
    found = list(corpus.items())
    items = [item for item in found if isinstance(item, Item)]
    assert (len(items), len(found) - len(items)) == (good, bad)
    assert {field: getattr(items[number], field) for field in fields} == fields
    wave, its_rate = items[number].load()
    assert its_rate == rate and wave.dtype == np.float32
    should = tone(pitch, rate) / np.float32(32768)
    assert len(wave) == len(should)
    tolerance = 0.05 if name == "common_voice" else 0  # MP3 loses some
    assert np.sqrt(np.mean((wave - should) ** 2)) <= tolerance
    assert items[number].raw()[0][:4] in (b"RIFF", b"fLaC", b"ID3\x04", b"\xff\xfb\x14\xc4") or (
        name == "common_voice"
    )


def test_there_is_a_sample_of_every_format():
    assert set(SAMPLES) == set(FORMATS)


@pytest.mark.parametrize(
    ("name", "number", "codec", "tokens"),
    [
        ("vocalnet", 2, "cosyvoice2", [5, 6, 9]),
        ("voice_assistant", 1, "snac", [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14]]),
    ],
)
def test_the_tokens_of_an_answer(name, number, codec, tokens, tmp_path):
    getattr(corpora, name)(tmp_path)
    item = list(open_corpus(str(tmp_path)).items())[number]
    assert item.units.codec == codec and item.units.load().tolist() == tokens


# ---- Neither shards nor the disk decide ----------------------------------------------------------


def told(items):
    """What a record says, wherever it lies."""
    return [
        (i.id, i.text, i.answer, i.speaker, i.language, i.split, i.fields, i.raw()[0])
        if isinstance(i, Item)
        else i.kind
        for i in items
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_order_of_a_disk_changes_nothing(name, tmp_path, monkeypatch):
    getattr(corpora, name)(tmp_path)
    before = told(open_corpus(str(tmp_path)).items())
    scandir, rng = os.scandir, random.Random(4)

    class Shuffled:
        def __init__(self, folder):
            with scandir(folder) as entries:
                self.entries = list(entries)
            rng.shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    for _ in range(3):
        assert told(open_corpus(str(tmp_path)).items()) == before


def webdataset_shards(folder, numbers):
    for n, part in enumerate(numbers):
        put(folder, f"{n:03d}.tar", shard([m for k in part for m in sample(k)]))


def manifest_shards(folder, numbers):
    for n, part in enumerate(numbers):
        lines = []
        for k in part:
            put(folder, f"{k}.wav", encoded(k))
            lines.append(json.dumps({"audio": f"{k}.wav", "text": TEXTS[k % 4]}))
        put(folder, f"{n:03d}.jsonl", "\n".join(lines))


def parquet_shards(folder, numbers):
    import pyarrow as pa
    from pyarrow import parquet as pq

    for n, part in enumerate(numbers):
        rows = [{"audio": {"bytes": encoded(k), "path": None}, "text": TEXTS[k % 4]} for k in part]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{n:03d}.parquet", row_group_size=2)


@pytest.mark.parametrize("write", [webdataset_shards, manifest_shards, parquet_shards])
def test_shards_put_together_change_nothing(write, tmp_path):
    seen = []
    for k, cuts in enumerate(((7,), (1, 7), (3, 4, 7), (2, 3, 5, 7))):
        folder = tmp_path / str(k)
        folder.mkdir()
        write(folder, [range(a, b) for a, b in zip((0, *cuts), cuts, strict=False)])
        corpus = open_corpus(str(folder))
        assert len(corpus.parts()) == len(cuts)
        seen.append(told(corpus.items()))
    assert len(seen[0]) == 7 and all(found == seen[0] for found in seen)


@pytest.mark.parametrize("name", ["manifest", "webdataset"])
def test_the_first_record_comes_before_the_rest_is_read(name, tmp_path, monkeypatch):
    from mdmspeech.data.importers import webdataset

    taken = []

    class Counted(io.FileIO):
        def read(self, size=-1):
            taken.append(super().read(size))
            return taken[-1]

    for module in (tables, webdataset):
        monkeypatch.setattr(module, "open_file", lambda path: Counted(path))
    if name == "manifest":
        put(tmp_path, "a.wav", encoded(0))
        line = json.dumps({"audio": "a.wav", "text": "A word.", "note": "x" * 1000, "id": 1000000})
        lines = (line.replace("1000000", str(n)) for n in range(8000))
        size = put(tmp_path, "all.jsonl", "\n".join(lines)).stat().st_size
    else:
        members = [(f"{n:04d}.{end}", encoded(0, seconds=2) if end == "wav" else "A word.")
            for n in range(130) for end in ("txt", "wav")]  # fmt: skip
        size = put(tmp_path, "all.tar", shard(members)).stat().st_size
    items = open_corpus(str(tmp_path)).items()
    assert next(items).text == "A word."
    assert size > 8e6 and sum(map(len, taken)) < 0.6 * size


def test_ids_are_remembered_in_few_bytes():
    rng = random.Random(5)
    seen, known = Seen(), set()
    for _ in range(20_000):
        name = f"id{rng.randrange(12_000)}"
        assert seen.add(name) == (name in known)
        known.add(name)
    assert len(seen._table) * 8 <= 32 * len(known)


@pytest.mark.parametrize("name", SAMPLES)
def test_parts_read_by_workers_are_the_whole(name, tmp_path):
    """Corpora, parts and records go to other processes, bad ones too."""
    getattr(corpora, name)(tmp_path)
    corpus = open_corpus(str(tmp_path))
    before = told(corpus.items())
    sent = ForkingPickler.loads(ForkingPickler.dumps(corpus))
    found = [list(sent.items(parts=[part])) for part in sent.parts()]
    back = ForkingPickler.loads(ForkingPickler.dumps(found))
    assert told(item for part in back for item in part) == before
    assert [str(item) for part in back for item in part] == [str(item) for item in corpus.items()]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_bucket_is_read_as_a_disk_is(name, tmp_path):
    getattr(corpora, name)(tmp_path)
    bucket = f"memory://b/{tmp_path.name}"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            remote.write_bytes(f"{bucket}/{path.relative_to(tmp_path)}", path.read_bytes())
    here, there = open_corpus(str(tmp_path)), open_corpus(bucket)
    assert told(there.items()) == told(here.items()) and there.licence == here.licence
    assert [item.where for item in there.items()] == [item.where for item in here.items()]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_bucket_that_does_not_answer_is_no_fault_of_a_record(name, tmp_path, monkeypatch):
    """Whichever request fails: an error, and no record is left out for it."""
    getattr(corpora, name)(tmp_path)
    bucket = f"memory://b/{tmp_path.name}"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            remote.write_bytes(f"{bucket}/{path.relative_to(tmp_path)}", path.read_bytes())
    asked, fails = [], None

    def unsteady(request):
        def ask(*args, **options):
            asked.append(args)
            if len(asked) == fails:
                raise UserError("cannot reach the bucket")
            return request(*args, **options)

        return ask

    for request in ("size", "read_range", "list_names", "is_dir"):
        monkeypatch.setattr(remote, request, unsteady(getattr(remote, request)))
    whole = told(open_corpus(bucket).items())
    requests = len(asked)
    for failing in random.Random(3).sample(range(1, requests + 1), min(requests, 6)):
        fails = failing
        asked.clear()
        with pytest.raises(UserError, match="cannot reach the bucket"):
            told(open_corpus(bucket).items())
    fails = None
    assert told(open_corpus(bucket).items()) == whole


# ---- Which format -------------------------------------------------------------------------------


def test_a_folder_of_no_format_says_what_is_there_and_what_was_looked_for(tmp_path):
    put(tmp_path, "notes.txt", "hello")
    put(tmp_path, "songs/a.wav", encoded(0))
    with pytest.raises(UserError) as refused:
        open_corpus(str(tmp_path))
    for word in ("notes.txt", "songs/", "--format NAME", *FORMATS):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("manifest", "ljspeech"),
        ("ljspeech", "vctk"),
        ("manifest", "webdataset"),
        ("manifest", "common_voice"),
        ("ljspeech", "librispeech"),
        ("vocalnet", "webdataset"),
    ],
)
def test_a_folder_of_two_formats_wants_to_be_told(first, second, tmp_path):
    for name in (first, second):
        getattr(corpora, name)(tmp_path)
    inner = {"librispeech": "LibriSpeech", "vocalnet": "VoiceAssistant-430K-vocalnet",
        "common_voice": "cv-corpus-17.0/en"}  # fmt: skip
    for folder in filter(None, map(inner.get, (first, second))):
        for path in (tmp_path / folder).iterdir():  # so that both lie in one place
            path.rename(tmp_path / path.name)
    with pytest.raises(UserError, match=f"{first} .* or {second} .*--format {first}") as refused:
        open_corpus(str(tmp_path))
    assert open_corpus(str(tmp_path), str(refused.value).split()[-1]).format == first
    assert open_corpus(str(tmp_path), second).format == second


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("nowhere", {}, "does not exist"),
        ("", {"format": "tfrecord"}, "the formats are manifest, vocalnet"),
        ("", {"format": "vctk"}, "is no vctk corpus: it has .*LJ001|is no vctk corpus: it has"),
        ("", {"mic": "mic2"}, "ljspeech has no option mic; its options are speaker"),
        ("", {"speaker": "ann"}, "nothing by a speaker called 'ann'"),
        ("wavs/LJ001-0000.wav", {}, "is no corpus of a known format: it has LJ001-0000.wav"),
        ("a\0b", {}, "does not exist"),
    ],
)
def test_what_cannot_be_opened(path, options, told, tmp_path):
    corpora.ljspeech(tmp_path)
    with pytest.raises(UserError, match=told):
        list(open_corpus(f"{tmp_path}/{path}", **options).items())


@pytest.mark.parametrize(
    ("name", "inner", "count"),
    [
        ("librispeech", "LibriSpeech/dev-clean", 2),
        ("libritts", "LibriTTS", 4),
        ("common_voice", "cv-corpus-17.0/en", 4),
        ("common_voice", ".", 4),
        ("parquet", "data", 4),
        ("parquet", "data/train-00001-of-00002.parquet", 1),
        ("webdataset", "train-000000.tar", 2),
        ("manifest", "manifest.jsonl", 3),
        ("vocalnet", "VoiceAssistant-430K-vocalnet/VoiceAssistant-430K.json", 3),
        ("ljspeech", "metadata.csv", 3),
    ],
)
def test_a_folder_inside_or_above_and_a_single_file(name, inner, count, tmp_path):
    getattr(corpora, name)(tmp_path)
    corpus = open_corpus(str(tmp_path / inner))
    assert corpus.format == name
    assert [isinstance(item, Item) for item in corpus.items()] == [True] * count


def test_one_speaker_one_split_and_what_the_corpus_does_not_say(tmp_path):
    for name in ("librispeech", "webdataset"):
        (tmp_path / name).mkdir()
        getattr(corpora, name)(tmp_path / name)
    good, _ = read(tmp_path / "librispeech", speaker="103")
    assert {item.id for item in good} == {"103-120-0000", "103-120-0001"}
    corpus = open_corpus(str(tmp_path / "librispeech"))
    assert [item.speaker for item in corpus.items("test")] == ["367", "367"]
    assert corpus.splits == ("train", "val", "test")
    good, _ = read(tmp_path / "webdataset", language="fr", licence="mit")
    assert [item.language for item in good] == ["fr", "de", "fr", "de"]
    assert {item.licence for item in good} == {"mit"}


def test_the_options_of_single_formats(tmp_path):
    for name in ("vctk", "common_voice", "parquet"):
        (tmp_path / name).mkdir()
        getattr(corpora, name)(tmp_path / name)
    good, _ = read(tmp_path / "vctk", mic="mic2")
    assert np.array_equal(np.round(good[0].load()[0] * 32768), tone(1, 48_000))
    assert len(read(tmp_path / "common_voice", tables="validated")[0]) == 4
    with pytest.raises(UserError, match=r"no other\.tsv; it has dev, test, train, validated"):
        read(tmp_path / "common_voice", tables="validated,other")
    good, _ = read(tmp_path / "parquet", text_column="gender")
    assert good[0].text == "female"
    with pytest.raises(UserError, match="no column x; it has audio, transcription"):
        read(tmp_path / "parquet" / "data" / "train-00001-of-00002.parquet", text_column="x")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00005.parquet", "train"),
        ("dev-clean", "val"),
        ("test-other/84", "test"),
        ("validation/0001.tar", "val"),
        ("shard-000001.tar", ""),
        ("eval_set.jsonl", "test"),
        ("testament.tar", ""),
        ("train/dev-01.tar", "val"),
        ("contest/a.tar", ""),
        ("VALID.jsonl", "val"),
    ],
)
def test_splits_that_names_tell(name, split):
    assert split_of(name) == split


LICENCES = [  # files of a folder, and the licence that they tell
    ({"README.md": "---\ntags: [a]\nlicense: cc-by-4.0\n---\n"}, "cc-by-4.0"),
    ({"readme.txt": "Corpus\n\n**License**: 'MIT'\n"}, "MIT"),
    ({"LICENSE": "\n\nApache License\nVersion 2.0\n"}, "Apache License"),
    ({"README": "nothing", "COPYING": "GPL 3\n"}, "GPL 3"),
    ({"README.md": "The licence is below.", "Licence.txt": b"\xff\xfeB\x00"}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("files", "licence"), LICENCES)
def test_the_licence_that_a_folder_tells(files, licence, tmp_path):
    put(tmp_path, "a.tar", shard(sample(0)))
    for name, content in files.items():
        put(tmp_path, name, content)
    assert [item.licence for item in open_corpus(str(tmp_path)).items()] == [licence]


def test_other_hands_write_the_same_layouts(tmp_path):
    """A tab after an id, names that begin with "./", a speaker's number, capital endings."""
    libri = tmp_path / "a/dev-clean/84/121"
    put(libri, "84-121.trans.txt", "84-121-0000\tONE\r\n84-121-0001  TWO WORDS \r\n")
    for n in range(2):
        put(libri, f"84-121-000{n}.flac", encoded(n, "flac"))
    put(
        tmp_path, "b/x.tar", shard([("./._k.wav", "x"), ("./k.WAV", encoded(0)), ("./k.TXT", "A.")])
    )
    put(tmp_path, "c/m.jsonl", '{"audio": "A.WAV", "text": "x", "speaker": 7}')
    put(tmp_path, "c/A.WAV", encoded(0))
    put(tmp_path, "d/metadata.csv", "A.WAV|x|Yes.\n")
    put(tmp_path, "d/wavs/A.WAV", encoded(0))
    put(tmp_path, "e/txt/p1/p1_001.txt", b"\xef\xbb\xbfA line\r\nof two.\r\n")
    put(tmp_path, "e/wav48/p1/p1_001.wav", encoded(0))
    seen = {}
    for name in "abcde":
        good, bad = read(tmp_path / name)
        assert not bad
        seen[name] = [(item.id, item.text, item.speaker) for item in good]
    assert seen == {
        "a": [("84-121-0000", "ONE", "84"), ("84-121-0001", "TWO WORDS", "84")],
        "b": [("k", "A.", "")],
        "c": [("A.WAV", "x", "7")],
        "d": [("A", "Yes.", "")],
        "e": [("p1_001", "A line of two.", "p1")],
    }
