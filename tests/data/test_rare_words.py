"""Sentences with rare words: what is tested was never trained on, in no form of it."""

import re

from mdmspeech.data.synthesis import jobs
from mdmspeech.data.texts.rare_words import rare_sentences
from mdmspeech.text.normalise import is_speakable_whole

_WORD = re.compile(r"[a-z]+")


def stems(words):
    """Beginnings of the words in them, by which other forms of a word are known, too."""
    return {word[:6] for rare in words for word in _WORD.findall(rare.lower()) if len(word) > 3}


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
    trained = stems(sentence.text for sentence in of("train", "val"))
    common = {"united", "republ", "saint", "south", "north", "mount", "river", "great", "queen"}
    tested = stems(word for sentence in of("test") for word in sentence.words) - common
    assert not tested & trained


def test_who_says_them():
    train, test = jobs.rare_jobs(), jobs.rare_test_jobs()
    assert len(train) == jobs.RARE_VOICES * len(of("train", "val")) and len(test) == 200
    assert {(j.engine, j.voice) for j in test} == set(jobs.TEST_VOICES)
    assert not {(j.engine, j.voice) for j in train} & set(jobs.TEST_VOICES)
    assert {j.record["split"] for j in train} == {"train", "val"}
    assert {j.record["split"] for j in test} == {"test"}
    assert len({j.id for j in train + test}) == len(train + test)
    voices = {}
    for job in train:
        voices.setdefault(job.text, set()).add((job.engine, job.voice))
    assert sum(len(v) == jobs.RARE_VOICES for v in voices.values()) > 0.9 * len(voices)
    # a smaller corpus is some of the same
    some = jobs.rare_jobs(hours=0.1)
    assert 80 < len(some) < 140 and {j.text for j in some} <= {j.text for j in train}
