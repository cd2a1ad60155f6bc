"""The one source of training: what is written comes back record by record, from a disk and from a
bucket, to us and to TFDS; what is damaged, missing or of another codec is told by name.
"""

import concurrent.futures
import json
import pickle
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from mdmspeech import remote
from mdmspeech.data.datasets import corpus, lengths, make, upgrade
from mdmspeech.data.datasets.features import KINDS, ExampleFormat
from mdmspeech.data.datasets.reader import Dataset, Subset
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.packing.position import digest_of
from mdmspeech.data.storage import record_store
from mdmspeech.errors import UserError

RNG = np.random.default_rng(0)


def spoken(n: int, **fields):
    """A recording that has every field, of its own length."""
    audio = RNG.integers(-(2**15), 2**15, 50 + 7 * n).astype(np.int16)
    return {
        "id": f"r{n}",
        "text": f"Café number {n}.",
        "answer": "Oui.",
        "question": "Où ?",
        "voice": "v",
        "rate": 24_000,
        "audio": audio,
        "symbols": np.arange(n + 1, dtype=np.int32),
        "frames": np.arange(n + 1, dtype=np.float32) + 0.5,
        "f0": np.linspace(0, 200, 11, dtype=np.float32),
        "tokens": np.array([6560, n], np.int32),
        **fields,
    }


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
        assert getattr(value, "dtype", type(value)) == getattr(
            other[name], "dtype", type(other[name])
        )


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path, monkeypatch):
    """Where datasets are: a folder, or a bucket in memory."""
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "copies"))
    places = {"disk": str(tmp_path), "bucket": f"memory://bucket-{tmp_path.name}"}
    return f"{places[request.param]}/corpus"


def test_what_was_written_comes_back(place):
    rows = [spoken(n) for n in range(9)]
    folder = corpus.folder_of(place, "recordings", "mine")
    counts = write_dataset(
        folder, "recordings", {"train": rows[:6], "val": iter(()), "test": rows[6:]}
    )
    assert counts == {"train": 6, "test": 3}
    assert corpus.splits_of(place, "recordings", "mine") == ("train", "test")
    read = corpus.speech(place, ("mine",), "train")
    empty = dict.fromkeys(
        ("family", "phrasing", "split", "engine", "language", "licence", "source"), ""
    )
    for i in range(6):
        same(read[i], {**empty, **rows[i]})
    assert read.counts("samples").tolist() == [len(row["audio"]) for row in rows[:6]]
    assert read.fields(4)["text"] == "Café number 4." and read.fields(4)["samples"] == 78


def test_what_a_record_lacks_is_empty_or_absent(tmp_path):
    write_dataset(tmp_path / "d", "recordings", {"train": [{"id": "a", "rate": 16_000}]})
    record = Dataset(tmp_path / "d", "train")[0]
    assert record["text"] == "" and len(record["audio"]) == 0
    assert not {"symbols", "frames", "f0", "tokens", "units"} & record.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_and_its_columns(kind, tmp_path):
    rows = [
        {
            "id": f"r{n}",
            "text": "x" * n,
            "rate": 24_000,
            "audio": np.zeros(n, np.int16),
            "tokens": np.arange(n, dtype=np.int16),
            "symbols": np.arange(2 * n, dtype=np.int16),
            "frames": np.arange(2 * n, dtype=np.int16),
            "states": np.ones((n, 3), np.float16) * n,
        }
        for n in range(1, 5)
    ]
    write_dataset(tmp_path / "d", kind, {"train": rows}, width=3)
    read = Dataset(tmp_path / "d", "train")
    name, field = {
        "recordings": ("samples", "audio"),
        "tokens": ("tokens", "tokens"),
        "states": ("states", "states"),
    }[kind]
    assert read.counts(name).tolist() == [len(read[i][field]) for i in range(4)] == [1, 2, 3, 4]
    assert read[2][field].dtype == rows[2][field].dtype
    assert [read.fields(i)["text"] for i in range(4)] == [row["text"] for row in rows]


def test_many_shards_are_one_sequence(place, monkeypatch):
    rows = [spoken(n) for n in range(12)]
    folder = corpus.folder_of(place, "recordings", "mine")
    write_dataset(folder, "recordings", {"train": rows}, shard_bytes=700)
    read = Dataset(folder, "train")
    assert len(read.about["shards"]) > 3
    order = RNG.permutation(12).tolist()
    assert [r["id"] for r in read.__getitems__(order)] == [f"r{n}" for n in order]
    assert read.__getitems__([]) == []
    for beyond in (12, -1):
        with pytest.raises(IndexError):
            read[beyond]
    again = pickle.loads(pickle.dumps(read))  # noqa: S301
    assert again[5]["id"] == "r5"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [r["id"] for r in pool.map(read.__getitem__, order * 4)] == [
            f"r{n}" for n in order * 4
        ]


def test_a_host_opens_the_shards_that_it_reads(tmp_path):
    write_dataset(
        tmp_path / "d", "recordings", {"train": [spoken(n) for n in range(12)]}, shard_bytes=700
    )
    read = Dataset(tmp_path / "d", "train")
    read.counts("samples"), read.fields(3)
    assert not read._open
    read[0], read[1]
    assert list(read._open) == [0]


def test_tfds_opens_it(tmp_path):
    rows = [spoken(n) for n in range(5)]
    write_dataset(tmp_path / "d", "recordings", {"train": rows, "test": rows[:2]}, shard_bytes=700)
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(tmp_path / "d")
    source = builder.as_data_source("train")
    assert builder.info.splits["test"].num_examples == 2 and len(source) == 5
    np.testing.assert_array_equal(source[4]["audio"], rows[4]["audio"])
    assert source[4]["text"].decode() == rows[4]["text"]
    assert "tensorflow" not in sys.modules


def test_parts_one_after_another(tmp_path):
    for part, rows in (("a", [spoken(0), spoken(1)]), ("b", [spoken(2)])):
        write_dataset(corpus.folder_of(tmp_path, "recordings", part), "recordings", {"train": rows})
    both = corpus.speech(tmp_path, ("a", "b"), "train")
    assert [both[i]["id"] for i in range(3)] == [both.fields(i)["id"] for i in range(3)]
    assert [r["id"] for r in both.__getitems__([2, 0])] == ["r2", "r0"]
    assert both.counts("samples").tolist() == [50, 57, 64]
    assert len(both.first(2)) == 2 and both.first(2).counts("samples").tolist() == [50, 57]
    with pytest.raises(IndexError):
        both.first(2)[2]
    assert len(Subset([])) == 0
    one_of_each = Subset(both.datasets, of_each=(1, 5))
    assert [r["id"] for r in one_of_each.__getitems__([0, 1])] == ["r0", "r2"]
    assert one_of_each.counts("samples").tolist() == [50, 64]
    assert len(one_of_each.first(1)) == 1 and one_of_each.fields(1)["id"] == "r2"
    assert len({s.fingerprint for s in (both, one_of_each, both.first(2))}) == 3


def test_missing_is_told_with_the_cure(place):
    for ask, cure in (
        (lambda: corpus.speech(place, ("open",), "train"), "mdmspeech data"),
        (lambda: corpus.questions(place, "train"), "--parts datasets"),
        (lambda: corpus.tokens(place, ("mine",), "train"), "mdmspeech data --tokens --parts mine"),
        (lambda: corpus.states(place, "questions", "train"), "mdmspeech data --states"),
    ):
        with pytest.raises(UserError, match=cure) as found:
            ask()
        assert "gs:/b" not in str(found.value)
    write_dataset(
        corpus.folder_of(place, "recordings", "open"), "recordings", {"test": [spoken(0)]}
    )
    with pytest.raises(UserError, match="no train recordings"):
        corpus.speech(place, ("open",), "train")
    assert len(corpus.speech(place, ("open",), "train", may_be_empty=True)) == 0


def test_tokens_of_another_codec_or_without_text(tmp_path):
    rows = [{"id": "a", "tokens": [1, 2], "symbols": [0], "frames": [1]}]
    folder = corpus.folder_of(tmp_path, "tokens", "open")
    write_dataset(folder, "tokens", {"train": rows}, about={"codec": "abc"})
    assert len(corpus.tokens(tmp_path, ("open",), "train", "abc")) == 1
    with pytest.raises(UserError, match="made by codec abc, not xyz"):
        corpus.tokens(tmp_path, ("open",), "train", "xyz")
    with pytest.raises(UserError, match="holds no texts"):
        corpus.tokens(tmp_path, ("open",), "train", needs_text=True)
    with pytest.raises(UserError, match="no val records"):
        corpus.tokens(tmp_path, ("open",), "val")


def test_tokens_of_two_codecs_are_not_mixed_nor_resumed_on(tmp_path):
    rows = [{"id": "a", "text": "A.", "tokens": [1, 2], "symbols": [0], "frames": [1]}]
    for root, codecs in ((tmp_path / "x", "ab"), (tmp_path / "y", "bb"), (tmp_path / "z", "bb")):
        for part, codec in zip(("open", "mine"), codecs, strict=True):
            folder = corpus.folder_of(root, "tokens", part)
            write_dataset(folder, "tokens", {"train": rows}, about={"codec": codec})
    with pytest.raises(UserError, match=r"tokens of codec a, .* those of codec b: make them all"):
        corpus.tokens(tmp_path / "x", ("open", "mine"), "train")
    one, other = (corpus.tokens(tmp_path / name, ("open",), "train") for name in "xy")
    again = corpus.tokens(tmp_path / "z", ("open",), "train")
    assert other.content == again.content != one.content
    assert digest_of(other, "tokens") == digest_of(again, "tokens") != digest_of(one, "tokens")


def test_the_same_recording_twice_and_none_at_all(tmp_path):
    with pytest.raises(UserError, match="'r0' comes twice"):
        write_dataset(tmp_path / "d", "recordings", {"train": [spoken(0), spoken(0)]})
    with pytest.raises(UserError, match="no record"):
        write_dataset(tmp_path / "d", "recordings", {"train": []})
    assert not list(tmp_path.iterdir())


def test_what_fails_halfway_leaves_the_older_one(place):
    folder = corpus.folder_of(place, "recordings", "mine")
    write_dataset(folder, "recordings", {"train": [spoken(0)]})

    def broken():
        yield spoken(1)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_dataset(folder, "recordings", {"train": broken()})
    assert corpus.speech(place, ("mine",), "train")[0]["id"] == "r0"
    assert sorted(n for n in remote.list_names(folder) if n.startswith(".")) == []


def test_a_dataset_made_anew_leaves_no_shard_of_the_one_before(place):
    folder = corpus.folder_of(place, "recordings", "mine")
    write_dataset(folder, "recordings", {"train": [spoken(n) for n in range(8)]}, shard_bytes=700)
    write_dataset(folder, "recordings", {"train": [spoken(9)]})
    shards = [name for name in remote.list_names(folder) if ".array_record-" in name]
    assert shards == ["mdmspeech_recordings-train.array_record-00000-of-00001"]
    assert corpus.speech(place, ("mine",), "train")[0]["id"] == "r9"


@pytest.mark.parametrize("name", ["index", "texts"])
@pytest.mark.parametrize("damage", ["cut", "empty", "no json", "flipped header"])
def test_damaged_columns_are_named(name, damage, tmp_path):
    write_dataset(tmp_path / "d", "recordings", {"train": [spoken(n) for n in range(3)]})
    path = tmp_path / "d" / f"{name}-train.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[:-3],
            "empty": b"",
            "no json": whole[:8] + b"x" + whole[9:],
            "flipped header": bytes([whole[0] ^ 0x80, *whole[1:7], 0xFF, *whole[8:]]),
        }[damage]
    )
    with pytest.raises(UserError, match=f"{name}-train.safetensors is cut or damaged"):
        Dataset(tmp_path / "d", "train").fields(0)


def test_a_damaged_or_missing_shard_is_named(tmp_path):
    write_dataset(tmp_path / "d", "recordings", {"train": [spoken(n) for n in range(3)]})
    (path,) = (tmp_path / "d").glob("*.array_record*")
    whole = bytearray(path.read_bytes())
    whole[300] ^= 1  # of the first record
    path.write_bytes(whole)
    read = Dataset(tmp_path / "d", "train")
    with pytest.raises(UserError, match="array_record-00000-of-00001"):
        [read[i] for i in range(3)]
    path.unlink()
    with pytest.raises(UserError, match="array_record-00000-of-00001"):
        Dataset(tmp_path / "d", "train")[0]


def test_another_version_of_the_layout_is_refused(tmp_path):
    write_dataset(tmp_path / "d", "recordings", {"train": [spoken(0)]})
    path = tmp_path / "d" / "index-train.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"version\\": \\"2.0.0\\"', b'\\"version\\": \\"9.0.0\\"'))
    with pytest.raises(UserError, match=r"version 9\.0\.0 of the layout, this is 2\.0\.0"):
        Dataset(tmp_path / "d", "train")


def test_an_example_is_the_same_bytes_in_another_process_and_kind_is_checked():
    example = pickle.loads(pickle.dumps(ExampleFormat("states", 4)))  # noqa: S301
    record = {"id": "a", "states": np.ones((2, 4), np.float16)}
    assert example.encode(record) == ExampleFormat("states", 4).encode(record)
    with pytest.raises(UserError, match="no dataset kind 'speech'"):
        ExampleFormat("speech")


def test_lengths_of_texts_are_counted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "copies"))
    monkeypatch.setattr(lengths, "WORTH_KEEPING", 3)
    rows = [{"id": str(n), "text": "x" * n, "question": "y"} for n in range(1, 5)]
    folder = corpus.folder_of(tmp_path, "tokens", "open")
    write_dataset(folder, "tokens", {"train": rows, "test": rows[:2]})
    asked = []

    def count(text, question):
        asked.append(text)
        return len(text), 10 * len(question)

    def ask(split="train", what="a"):
        return lengths.lengths(
            corpus.tokens(tmp_path, ("open",), split), ("text", "question"), what, count
        ).tolist()

    expected = [[n, 10] for n in range(1, 5)]
    assert ask() == expected and len(asked) == 4
    assert ask() == expected and len(asked) == 4, "kept"
    assert ask(what="b") == expected and len(asked) == 8, "another tokenizer"
    assert ask("test") == expected[:2] and ask("test") == expected[:2], "too few to be kept"
    assert len(asked) == 12
    for kept in (tmp_path / "copies" / "lengths").iterdir():
        kept.write_bytes(b"no")
    assert ask() == expected and len(asked) == 16, "damaged"
    write_dataset(folder, "tokens", {"train": rows[::-1]})
    assert ask() == expected[::-1], "the dataset was made anew"


# ---- Made from the raw store, and from files of before ---------------------------------------------


def raw_part(root, rows=12):
    records = [
        (
            {
                "id": f"r{n}",
                "text": f"Word {n}.",
                "engine": "hibari",
                "split": "test" if n == 2 else "train",
                "rate": 24_000,
                "symbols": [0, n + 1, 0],
                "frames": [1, 2, 1],
                "f0": [0, 120],
            },
            np.full(960 + n, n, np.int16),
        )
        for n in range(rows)
    ]
    record_store.write_shard(root / "raw" / "open", "00000-a", records)
    return records


def test_the_raw_store_becomes_a_dataset_in_its_order(tmp_path):
    records = raw_part(tmp_path)
    counts = make.recordings_from_raw(tmp_path, "open", {"hibari": "free"})
    assert sum(counts.values()) == 12 and counts["test"] == 1 and counts["val"] >= 2
    train = corpus.speech(tmp_path, ("open",), "train")
    numbers = [int(train[i]["id"][1:]) for i in range(len(train))]
    assert numbers == sorted(numbers)
    fields, audio = records[numbers[3]]
    found = train[3]
    np.testing.assert_array_equal(found["audio"], audio)
    assert found["symbols"].tolist() == fields["symbols"] and found["licence"] == "free"
    assert found["split"] == "train" and found["language"] == "en"


def test_it_is_made_again_only_if_the_recordings_changed(tmp_path):
    raw_part(tmp_path)
    make.recordings_from_raw(tmp_path, "open")
    folder = corpus.folder_of(tmp_path, "recordings", "open")
    made = (tmp_path / folder / "dataset_info.json").stat().st_mtime_ns
    time.sleep(0.01)
    assert make.recordings_from_raw(tmp_path, "open")["test"] == 1
    assert (tmp_path / folder / "dataset_info.json").stat().st_mtime_ns == made
    fields = {"id": "new", "text": "New.", "rate": 24_000, "split": "test"}
    record_store.write_shard(tmp_path / "raw" / "open", "00001-b", [(fields, np.ones(9, np.int16))])
    assert make.recordings_from_raw(tmp_path, "open")["test"] == 2


class _Codec:
    def __init__(self):
        self.heard = []

    def encode(self, waves):  # one token a 960 samples: the value it hears
        self.heard.append([len(wave) for wave in waves])
        return [np.rint(wave[:960].reshape(-1, 960)[:, 0] * 32768).astype(int) for wave in waves]


def test_tokens_are_those_of_their_recording(tmp_path):
    raw_part(tmp_path)
    make.recordings_from_raw(tmp_path, "open")
    splits = {s: corpus.speech(tmp_path, ("open",), s) for s in ("train", "val", "test")}
    codec = make.fingerprint({"encoder": {"w": np.ones(3)}})
    assert codec != make.fingerprint({"encoder": {"w": np.ones(3) * 2}})
    heard = _Codec()
    folder = corpus.folder_of(tmp_path, "tokens", "open")
    assert make.write_tokens(folder, splits, heard.encode, codec, batch=5) == 12
    assert heard.heard == [[960, 961, 962, 963, 964], [965, 966, 967, 968, 969], [970, 971]]
    for split in splits:
        read = corpus.tokens(tmp_path, ("open",), split, codec)
        assert len(read) == len(splits[split])
        for i in range(len(read)):
            n = int(read[i]["id"][1:])
            assert read[i]["tokens"].tolist() == [n] and read[i]["symbols"].tolist() == [
                0,
                n + 1,
                0,
            ]
            assert read[i]["text"] == f"Word {n}." == read.fields(i)["text"]
    (made_from,) = corpus.whole(tmp_path, "recordings", "open").about("made_from")
    assert corpus.whole(tmp_path, "tokens", "open").about("made_from") == {made_from}


def test_states_go_with_their_texts(tmp_path):
    rows = [spoken(n, rate=16_000, audio=np.full(320 * (9 - n), n, np.int16)) for n in range(1, 6)]
    write_dataset(
        corpus.folder_of(tmp_path, "recordings", "questions"), "recordings", {"train": rows}
    )

    def encode(waves_BN, samples_B):
        states_BT = waves_BN[:, ::320] * 32768
        valid_BT = np.arange(states_BT.shape[1])[None] < samples_B[:, None] // 320
        return np.repeat(states_BT[..., None], 4, axis=-1), valid_BT

    folder = corpus.folder_of(tmp_path, "states", "questions")
    augment = {"train": lambda wave, index: wave + (index == 0) * 7 / 32768}
    counts = make.write_states(
        folder, {"train": corpus.questions(tmp_path, "train")}, encode, 4, augment=augment, batch=2
    )
    read = corpus.states(tmp_path, "questions", "train")
    assert counts == {"train": int(read.counts("states").sum())} == {"train": 4 + 5 + 6 + 7 + 8}
    assert [read[i]["states"][0, 0] for i in range(5)] == [5 + 7, 4, 3, 2, 1]
    assert [read[i]["text"] for i in range(5)] == [f"Café number {n}." for n in (5, 4, 3, 2, 1)]


def old_tokens(root, **changes):
    texts = ["a", "b", "c", "d", "e"]
    ends = np.arange(1, 6)
    arrays = {
        "tokens": np.arange(10, dtype=np.int16),
        "symbols": np.arange(5, dtype=np.int16),
        "frames": np.arange(5, dtype=np.int16),
        "token_ends": 2 * ends,
        "symbol_ends": ends,
        "test": np.array([0, 0, 1, 0, 0], np.uint8),
        "val": np.array([0, 1, 0, 0, 0], np.uint8),
        **{name: np.frombuffer("".join(texts).encode(), np.uint8) for name in ("id", "text")},
        **{f"{name}_ends": ends for name in ("id", "text")},
    } | changes
    (root / "tokens").mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(
        {name: array for name, array in arrays.items() if array is not None},
        root / "tokens" / "open.safetensors",
        metadata={"codec": "abc"},
    )


def test_tokens_of_before(tmp_path):
    old_tokens(tmp_path)
    assert upgrade.upgrade(tmp_path) == {"tokens/open": {"train": 3, "val": 1, "test": 1}}
    assert upgrade.upgrade(tmp_path) == {}
    train = corpus.tokens(tmp_path, ("open",), "train", "abc")
    assert [train[i]["id"] for i in range(3)] == ["a", "d", "e"]
    assert train[1]["tokens"].tolist() == [6, 7] and train[1]["symbols"].tolist() == [3]


def test_tokens_of_before_there_were_texts_or_validation_records(tmp_path):
    bare = dict.fromkeys(("val", "id", "text", "id_ends", "text_ends"))
    old_tokens(tmp_path, **bare)
    (counts,) = upgrade.upgrade(tmp_path).values()
    assert counts["test"] == 1 and sum(counts.values()) == 5 and counts["val"] >= 1
    assert corpus.tokens(tmp_path, ("open",), "test")[0]["id"] == "open/2"


def test_states_of_before(tmp_path):
    (tmp_path / "states").mkdir()
    rows = np.arange(20, dtype=np.float16).reshape(5, 4)
    about = [{"id": "a", "text": "A.", "answer": "", "states": 2}]
    about += [{"id": "b", "text": "B.", "answer": "", "states": 3}]
    for split in ("train", "val"):
        rows.tofile(tmp_path / "states" / f"questions_{split}.f16")
        (tmp_path / "states" / f"questions_{split}.json").write_text(
            json.dumps({"width": 4, "records": about})
        )
    assert upgrade.upgrade(tmp_path) == {"states/questions": {"train": 2, "val": 2}}
    read = corpus.states(tmp_path, "questions", "val")
    np.testing.assert_array_equal(read[1]["states"], rows[2:])
    assert read[1]["text"] == "B."
    old_tokens(tmp_path / "other")
    (tmp_path / "other" / "tokens" / "open.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"open\.safetensors is cut or damaged"):
        upgrade.upgrade(tmp_path / "other")
