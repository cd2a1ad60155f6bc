"""Sentences with rare words: what is tested was never trained on, in no form of it."""

import pytest

from mdmspeech.data.synthesis import jobs
from mdmspeech.data.texts.rare_words import has_tested_word, rare_sentences
from mdmspeech.text.normalise import is_speakable_whole


def of(*splits):
    return [sentence for sentence in rare_sentences() if sentence.split in splits]


def test_there_are_enough_of_them():
    counts = {split: len(of(split)) for split in ("train", "val", "test")}
    assert counts["test"] == 200 and counts["val"] >= 100 and counts["train"] >= 900
    assert len({s.text for s in rare_sentences()}) == sum(counts.values())
    assert all(is_speakable_whole(s.text) for s in rare_sentences())
    words = [word for s in of("test") for word in s.words]
    assert len(words) >= 220 and len(set(words)) >= 0.97 * len(words)


def test_no_rare_word_of_the_test_is_trained_on():
    assert all(has_tested_word(word) for s in of("test") for word in s.words if len(word) > 3)
    assert not [s.text for s in of("train", "val") if has_tested_word(s.text)]


@pytest.mark.parametrize(
    ("text", "tested"),
    [
        ("Plants live by photosynthesis.", True),
        ("A PHOTOSYNTHETIC bacterium.", True),  # another form of it
        ("Take a photo of the plants.", False),
        ("The United Nations met in great halls.", False),  # common words of rare names
        ("", False),
    ],
)
def test_other_forms_of_a_rare_word_are_known(text, tested):
    assert has_tested_word(text) == tested


def test_open_sentences_in_many_voices():
    said = jobs.sentence_jobs()
    texts = [job.text for job in said]
    assert len(said) == len(set(texts)) == jobs.SENTENCES
    assert {job.record["split"] for job in said} == {"train", "val"}
    assert len({(job.engine, job.voice) for job in said}) > 300
    assert not {(job.engine, job.voice) for job in said} & set(jobs.TEST_VOICES)
    assert not [text for text in texts if has_tested_word(text)]
    # a smaller corpus is some of the same
    some = jobs.sentence_jobs(hours=0.1)
    assert 100 < len(some) < 180 and {job.text for job in some} <= set(texts)


def test_who_says_them():
    train, test = jobs.rare_jobs(), jobs.rare_test_jobs()
    assert len(train) == jobs.RARE_VOICES * len(of("train", "val")) and len(test) == 200
    assert {(j.engine, j.voice) for j in test} == set(jobs.TEST_VOICES)
    assert not {(j.engine, j.voice) for j in train} & set(jobs.TEST_VOICES)
    assert {j.record["split"] for j in train} == {"train", "val"}
    assert {j.record["split"] for j in test} == {"test"}
    assert len({j.id for j in train + test}) == len(train + test)
    chosen_by = jobs.rare_val_jobs()  # once each, in voices that training has and the test has not
    assert [j.text for j in chosen_by] == [s.text for s in of("val")]
    assert {j.record["split"] for j in chosen_by} == {"val"}
    assert {(j.engine, j.voice) for j in chosen_by} == {
        ("kokoro", voice) for voice in jobs.KOKORO_TRAIN_VOICES
    }
    assert not {j.id for j in chosen_by} & {j.id for j in train + test}
    assert {j.text for j in jobs.rare_val_jobs(hours=0.01)} < {j.text for j in chosen_by}
    voices = {}
    for job in train:
        voices.setdefault(job.text, set()).add((job.engine, job.voice))
    assert sum(len(v) == jobs.RARE_VOICES for v in voices.values()) > 0.9 * len(voices)
    # a smaller corpus is some of the same
    some = jobs.rare_jobs(hours=0.1)
    assert 80 < len(some) < 140 and {j.text for j in some} <= {j.text for j in train}
