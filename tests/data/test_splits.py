"""The validation split: from the texts alone, the same in recordings and tokens, and never a test
record.
"""

import numpy as np
import pytest

from mdmspeech.data.datasets import corpus
from mdmspeech.data.datasets.make import recordings_from_raw
from mdmspeech.data.pipelines.phone_stretches import STRETCH
from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.data.storage.splits import SHARE, assign, digest, validation
from mdmspeech.data.texts.open_sentences import open_sentences
from mdmspeech.preprocessing import phone_states, precompute

TEXTS = [f"Sentence number {n} is said once." for n in range(4000)]


def test_its_share_is_small_and_right():
    assert len(validation(TEXTS)) / len(TEXTS) == pytest.approx(SHARE, rel=0.25)


@pytest.mark.parametrize(
    ("texts", "held_out"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (9, 2), (40, 2)]
)
def test_a_small_part_has_some_too(texts, held_out):
    rare = [text for text in TEXTS if digest(text) >= SHARE * 2**32][:texts]
    assert len(validation(rare)) == held_out


def test_a_record_that_is_added_moves_no_other():
    before = {TEXTS[n] for n in validation(TEXTS[:3000])}
    assert before == {TEXTS[n] for n in validation(TEXTS)} & set(TEXTS[:3000])


@pytest.mark.parametrize(
    "said_again",
    [
        "sentence number 7, is said once",
        "SENTENCE NUMBER 7 IS SAID ONCE!",
        "Sentence  number 7 is said once.",
    ],
)
def test_a_text_is_on_one_side_however_it_is_written(said_again):
    assert digest(said_again) == digest(TEXTS[7])
    every = assign([*TEXTS, said_again], ["train"] * (len(TEXTS) + 1))
    assert every[-1] == every[7]


@pytest.mark.parametrize("text", ["…", "你好", "\ud800", ""])
def test_texts_without_words(text):
    assert 0 <= digest(text) < 2**32


def test_test_records_stay_what_they_are():
    splits = ["test" if n % 3 == 0 else "train" for n in range(len(TEXTS))]
    found = assign(TEXTS, splits)
    assert [one == "test" for one in found] == [one == "test" for one in splits] and {
        "train",
        "val",
    } < set(found)


@pytest.mark.slow
def test_the_shipped_models_test_sentences_are_no_validation_sentences():
    sentences = open_sentences()[:3000]
    found = assign([s["text"] for s in sentences], [s["split"] for s in sentences])
    by_split = {
        split: {s["id"] for s, one in zip(sentences, found, strict=True) if one == split}
        for split in ("train", "val", "test")
    }
    assert (
        by_split["test"] == {s["id"] for s in sentences if s["split"] == "test"}
        and len(by_split["test"]) == 400
    )
    assert {s["id"] for s in sentences if s["split"] == "val"} < by_split["val"]


@pytest.fixture
def root(tmp_path):
    """Two parts that share sentences; every fifth record is a test record, one part does not say so."""
    for part in ("open", "answers"):
        rows = []
        for n in range(40):
            record = {
                "id": f"{part}-{n}",
                "text": TEXTS[n] if part == "open" else TEXTS[n].upper(),
                "rate": 24_000,
                "symbols": [0, n + 1, 0],
                "frames": [1, 8, 1],
            }
            said = {"split": "test" if n % 5 == 0 else "train"} if part == "open" else {}
            rows.append((record | said, np.full(960, n, np.int16)))
        write_shard(tmp_path / "raw" / part, "00000-0", rows)
        recordings_from_raw(tmp_path, part)
    return tmp_path


class _Codec:
    def encode(self, waves):
        return [np.array([int(wave[0] * 32768)]) for wave in waves]


def ids(source):
    return {source.fields(i)["id"] for i in range(len(source))}


def test_recordings_and_tokens_are_split_alike(root):
    precompute.speech_tokens(root, _Codec(), "x" * 12)
    for part in ("open", "answers"):
        for split in ("train", "val", "test"):
            spoken = ids(corpus.speech(root, (part,), split))
            assert spoken == ids(corpus.tokens(root, (part,), split)) != set()
        held_out = [ids(corpus.tokens(root, (part,), split)) for split in ("train", "val")]
        assert not held_out[0] & held_out[1]


def test_questions_have_theirs_and_those_of_other_people_get_some(root):
    for part, splits in (("questions", ["train"] * 20 + ["val"] * 5), ("mine", ["train"] * 25)):
        rows = [
            (
                {"id": f"{part}-{n}", "text": TEXTS[n], "rate": 16_000, "split": split},
                np.zeros(160, np.int16),
            )
            for n, split in enumerate(splits)
        ]
        write_shard(root / "raw" / part, "00000-0", rows)
        recordings_from_raw(root, part)
    assert ids(corpus.questions(root, "val", parts=("questions",))) == {
        f"questions-{n}" for n in range(20, 25)
    }
    mine = [ids(corpus.questions(root, split, parts=("mine",))) for split in ("train", "val")]
    assert len(mine[1]) == 2 and len(mine[0]) == 23 and not mine[0] & mine[1]


def test_the_aligners_come_from_the_end_of_its_training_states():
    symbols = np.repeat(np.arange(100), STRETCH).astype(np.int16)
    states = np.zeros((len(symbols), 2), np.float16)
    found = phone_states.split_off({"train": ([states], [symbols]), "test": ([states], [symbols])})
    assert {split: sorted({*ids.tolist()}) for split, (_, ids) in found.items()} == {
        "train": list(range(95)),
        "val": list(range(95, 100)),
        "test": list(range(100)),
    }


def test_the_only_text_is_trained_on_whatever_its_digest():
    lowest = min(TEXTS, key=digest)
    assert digest(lowest) < SHARE * 2**32 and validation([lowest] * 3) == set()
    assert len(validation(sorted(TEXTS, key=digest)[:2])) == 1  # both are low
