"""A dataset made unit by unit, without Beam: exact counts, dead letters, one set of bytes, what is done
is not made again.
"""

import hashlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from plainly import gather, make, prepare, target
from planted_corpus import plant

from mdmspeech.cli.prepare import open_pronouncer
from mdmspeech.data.beam import parts, records, sources, stages
from mdmspeech.data.beam.finish import DEAD_LETTERS, finish
from mdmspeech.data.datasets import corpus
from mdmspeech.data.datasets.features import KINDS, ExampleFormat
from mdmspeech.data.importers import Item
from mdmspeech.data.importers.records import Clip
from mdmspeech.data.storage.splits import validation
from mdmspeech.errors import UserError

GOOD, BAD = 96, 32
STAGES = (stages.Clean(open_pronouncer, carve=True),)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "corpus"
    return sources.Source(str(folder)), plant(folder, GOOD, BAD)


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory):
    where = target(tmp_path_factory.mktemp("made"), STAGES)
    return where, prepare(planted[0], where, STAGES)[1]


def sums(root) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


def test_every_bad_one_has_its_reason_and_the_counts_are_exact(planted, made):
    (_, bad), (where, told) = planted, made
    letters = [
        json.loads(line)
        for line in Path(where.folder("recordings"), DEAD_LETTERS).read_text().splitlines()
    ]
    assert {x["where"]: (x["stage"], x["kind"]) for x in letters} == bad
    assert len(letters) == len(bad) == BAD and all(x["reason"] for x in letters)
    at_import = sum(stage == "import" for stage, _ in bad.values())
    assert told["stages"] == {
        "import": {"in": GOOD + BAD, "out": GOOD + BAD - at_import, "rejected": at_import},
        "clean": {"in": GOOD + BAD - at_import, "out": GOOD, "rejected": BAD - at_import},
    }
    assert told["records"] == GOOD == sum(s["records"] for s in told["splits"].values())
    assert told["hours"] == pytest.approx(GOOD * 0.4 / 3600, abs=1e-5)
    assert max(s["speakers"] for s in told["splits"].values()) == 7


def test_it_is_a_dataset_for_training_and_for_tfds(made):
    import tensorflow_datasets as tfds

    where, told = made
    builder = tfds.builder_from_directory(where.folder("recordings"))
    for split in told["splits"]:
        ours = corpus.speech(where.root, ("mine",), split)
        theirs = builder.as_data_source(split=split)
        assert len(ours) == len(theirs) == told["splits"][split]["records"]
        for i in range(len(ours)):
            record = ours[i]
            assert record["id"].encode() == theirs[i]["id"]
            assert {n: record.get(n, "") for n in ("id", "text", "voice")}.items() <= (
                ours.fields(i).items()
            )
            assert len(record["audio"]) == ours.counts("samples")[i] == 9600
            assert record["text"].startswith("tone number ") and len(record["symbols"]) > 10
    assert ours.about("made_from") == {parts.made_from_of(where.folder("recordings"))}


@pytest.mark.parametrize("shuffled", [1, 2])
def test_the_order_in_which_entries_come_changes_no_byte(planted, made, shuffled, tmp_path):
    where = target(tmp_path, STAGES)
    gathered = gather(planted[0], where.units, shuffled)
    numbers = list(gathered)
    random.Random(shuffled).shuffle(numbers)
    make(where, STAGES, {number: gathered[number] for number in numbers})
    finish(where, ["clean"], GOOD + BAD)
    assert sums(tmp_path) == sums(made[0].root)


@pytest.mark.parametrize(
    ("name", "unit"),
    # the last three bits of the eighth byte of `printf %s NAME | sha256sum`
    [("a", 2), ("00001.wav", 5), ("LJ001-0001", 7), ("p225_001", 0), ("ü", 4), ("x" * 900, 3),
     ("a b", 2), ("A", 1)],
)  # fmt: skip
def test_the_unit_of_an_id_is_the_same_everywhere(name, unit):
    entry = records.Entry("a.jsonl", 1, Item(name, "text", "line 1", Clip("x", "y")))
    assert records.unit_of(entry, 8) == unit
    assert records.unit_of(records.Entry("b.jsonl", 9, entry.found), 8) == unit


@pytest.mark.parametrize("kind", KINDS)
def test_the_fields_of_a_record_stand_in_one_order(kind):
    """A map of protobuf has another order in each process, unless it is sorted."""
    example = ExampleFormat(kind, 2)
    data = example.encode({"id": "x", "rate": 1, "audio": [1], "tokens": [2]})
    places = [data.index(b"\n" + bytes([len(n)]) + n.encode()) for n in sorted(KINDS[kind])]
    assert places == sorted(places)


def changed(folder: Path, how: str) -> None:
    """One recording of a corpus is another now."""
    lines = (folder / "a.jsonl").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"00005.wav"' in line)
    if how == "text":
        lines[at] = lines[at].replace("tone", "another tone")
    elif how == "gone":
        del lines[at]
    elif how == "audio":
        (folder / "00005.wav").write_bytes((folder / "00006.wav").read_bytes())
    elif how == "touched":
        os.utime(folder / "00005.wav", (1, 1))
    elif how == "voice":
        lines[at] = lines[at].replace('"speaker": "s5"', '"speaker": "s6"')
    if how == "gone":
        lines.insert(at, "")  # what follows has the lines that it had
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("how", "finished"),
    [("text", True), ("gone", True), ("audio", True), ("touched", False), ("voice", False),
     ("text", False)],
)  # fmt: skip
def test_only_what_has_changed_is_made_again(how, finished, tmp_path):
    plant(tmp_path / "corpus", 24, 8)
    source, where = sources.Source(str(tmp_path / "corpus")), target(tmp_path / "out", STAGES, 6)
    if finished:
        assert prepare(source, where, STAGES)[0] == list(range(6))
        assert prepare(source, where, STAGES)[0] == []
    else:
        assert make(where, STAGES, gather(source, 6)) == list(range(6))
    entry = records.Entry("a.jsonl", 1, Item("00005.wav", "t", "w", Clip("x", "y")))
    changed(tmp_path / "corpus", how)
    assert prepare(source, where, STAGES)[0] == [records.unit_of(entry, 6)]
    fresh = target(tmp_path / "fresh", STAGES, 6)
    prepare(source, fresh, STAGES)
    assert sums(where.folder("recordings")) == sums(fresh.folder("recordings"))


def test_other_settings_make_all_again_and_another_name_keeps_its_own(planted, tmp_path):
    where = target(tmp_path, STAGES)
    prepare(planted[0], where, STAGES)
    for other in (
        (stages.Clean(None, carve=True),),
        (stages.Clean(open_pronouncer),),
        (stages.Clean(open_pronouncer, carve=True, max_seconds=20.0),),
    ):
        gathered = gather(planted[0], 4)
        assert make(target(tmp_path, other), other, gathered) == [0, 1, 2, 3]


@pytest.mark.parametrize("units", [1, 3, 9])
def test_another_number_of_shards_makes_all_again(units, tmp_path):
    plant(tmp_path / "corpus", 12, 1)
    source = sources.Source(str(tmp_path / "corpus"))
    prepare(source, target(tmp_path / "out", STAGES, 5), STAGES)
    where, fresh = (target(tmp_path / name, STAGES, units) for name in ("out", "fresh"))
    assert prepare(source, where, STAGES)[0] == list(range(units))
    prepare(source, fresh, STAGES)
    assert sums(where.root) == sums(fresh.root)


def test_what_a_kill_left_is_used_and_what_it_broke_is_made_again(planted, made, tmp_path):
    where = target(tmp_path, STAGES)
    gathered = gather(planted[0], where.units)
    make(where, STAGES, {0: gathered[0], 1: gathered[1], 2: gathered[2]})
    os.truncate(where.shard("recordings", "train", 1), 100)
    os.truncate(where.part(2), 300)
    with pytest.raises(UserError, match=r"part-00002.*damaged|part-00003.*missing"):
        finish(where, ["clean"], GOOD + BAD)
    assert not Path(where.folder("recordings")).exists()
    again, _ = prepare(planted[0], where, STAGES)
    assert again == [1, 2, 3] and sums(tmp_path) == sums(made[0].root)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda c, r: (c["import"].__setitem__(0, 99), r), "99 came"),
        (lambda c, r: (c["clean"].__setitem__(0, c["clean"][0] - 1), r), "went to clean"),
        (lambda c, r: (c["clean"].__setitem__(1, c["clean"][1] - 1), r), "were to be written"),
        (lambda c, r: (c["clean"].__setitem__(2, c["clean"][2] + 1), r), "dead letters"),
        (lambda c, r: (c, r.pop()), "dead letters"),
        (lambda c, r: (c, r.append(r[0])), "dead letters"),
    ],
)
def test_counts_that_do_not_add_up_publish_nothing(planted, broken, told, tmp_path):
    where = target(tmp_path, STAGES, 1)
    make(where, STAGES, gather(planted[0], 1))
    path = Path(where.part(0))
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    about = json.loads(header["__metadata__"]["about"])
    broken(about["counts"], about["rejected"])
    header["__metadata__"]["about"] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + path.read_bytes()[8 + size :])
    with pytest.raises(UserError, match=f"do not add up.*{told}"):
        finish(where, ["clean"], GOOD + BAD)
    assert not Path(where.folder("recordings")).exists()


def test_a_record_that_was_lost_before_it_was_gathered_is_noticed(planted, tmp_path):
    where = target(tmp_path, STAGES, 1)
    make(where, STAGES, gather(planted[0], 1))
    with pytest.raises(UserError, match=f"{GOOD + BAD + 1} went to import, {GOOD + BAD} came"):
        finish(where, ["clean"], GOOD + BAD + 1)


def test_a_stage_that_loses_a_record_ends_the_preparation(planted):
    entries = sorted(gather(planted[0], 1)[0], key=lambda entry: entry.order)
    unit = records.begin(0, "", entries)
    with pytest.raises(RuntimeError, match=r"clean: \d+ records came"):
        unit.passed("clean", list(STAGES[0].run(None, unit.records))[1:])


def test_nothing_that_can_be_used_is_told_with_the_first_reason(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "m.jsonl").write_text('{"audio": "a.wav", "text": "a"}\n' * 2)
    where = target(tmp_path / "out", STAGES, 2)
    with pytest.raises(
        UserError, match=r"none of the 2 records.*m.jsonl, line \d: its audio a.wav"
    ):
        prepare(sources.Source(str(tmp_path / "c")), where, STAGES)


def test_carved_validation_records_are_those_of_every_other_part():
    """As `storage.splits` chooses them in a part that is large enough."""
    texts = [f"sentence number {i} of many" for i in range(800)]
    items = [Item(f"i{i}", text, "w", Clip("", "")) for i, text in enumerate(texts)]
    clean = stages.Clean(carve=True, needs_sound=False)
    found = [r.fields["split"] for r in clean.run(None, [records.Record(i, {}) for i in items])]
    assert {i for i, split in enumerate(found) if split == "val"} == validation(texts)
    assert 5 < found.count("test") < 45 and found.count("train") > 700
    kept = stages.Clean(carve=False, needs_sound=False)
    said = [Item("i", texts[0], "w", Clip("", ""), split=s) for s in ("val", "test", "train")]
    assert [r.fields["split"] for r in kept.run(None, [records.Record(i, {}) for i in said])] == [
        "val", "test", "train",
    ]  # fmt: skip


def test_an_id_in_two_lists_is_kept_where_it_comes_first(tmp_path):
    folder = tmp_path / "c"
    plant(folder, 12, 0 + 1)
    (folder / "z.jsonl").write_text('{"audio": "00003.wav", "text": "another"}\n')
    where = target(tmp_path / "out", STAGES, 3)
    _, told = prepare(sources.Source(str(folder)), where, STAGES)
    assert told["rejected"]["import: id twice"] == 1 and told["records"] == 12
    held = [
        d.fields(i)["text"]
        for d in corpus.whole(where.root, "recordings", "mine").datasets
        for i in range(len(d))
        if d.fields(i)["id"] == "00003.wav"
    ]
    assert held == ["tone number three"]


def test_the_level_of_speech_is_one_and_nothing_clips(made):
    where, _ = made
    ours = corpus.speech(where.root, ("mine",), "train")
    for i in range(0, len(ours), 9):
        wave = ours[i]["audio"].astype(np.float64) / 32768
        assert 20 * np.log10(np.sqrt(np.mean(wave**2))) == pytest.approx(-24.5, abs=0.3)
