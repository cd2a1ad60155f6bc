"""Conversations for fine-tuning: what is read of files, what is held out, what is packed."""

import difflib
import itertools
import json
import re

import numpy as np
import pytest

from mdmspeech.data.storage.splits import words_of
from mdmspeech.data.texts import chats
from mdmspeech.data.texts.family import Family
from mdmspeech.data.texts.questions import families, questions
from mdmspeech.data.texts.rewordings import rewordings
from mdmspeech.errors import UserError


def line(*said, **more):
    roles = ("user", "assistant") * len(said)
    messages = [{"role": r, "content": text} for r, text in zip(roles, said, strict=False)]
    return {"messages": messages, **more}


def write(path, *lines):
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_conversations_of_a_file(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        line("Who?", "Me. ", split="train"),
        line("One?", "1.", "Two?", "2.", split="train", family="numbers"),
        line("Why?", "So.", split="val"),
    )
    found = chats.read_chats(path, "train")
    assert [one["turns"] for one in found] == [
        [("Who?", "Me.")],
        [("One?", "1."), ("Two?", "2.")],
    ]
    assert [one["family"] for one in found] == ["", "numbers"]
    assert [one["turns"] for one in chats.read_chats(path, "val")] == [[("Why?", "So.")]]


def test_a_fiftieth_is_for_validation_and_no_first_message_is_in_both(tmp_path):
    path = write(tmp_path / "a.jsonl", *(line(f"Question {n // 2}?", "Yes.") for n in range(2000)))
    train, val = (chats.read_chats(path, split) for split in ("train", "val"))
    assert len(train) + len(val) == 2000 and 15 <= len(val) <= 80
    asked = [{one["turns"][0][0] for one in part} for part in (train, val)]
    assert not asked[0] & asked[1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": "Who?"}, "no list of user and assistant"),
        (line("Who?"), "no list of user and assistant"),
        ({"messages": line("Who?", "Me.")["messages"][::-1]}, '"role": "user"'),
        (line("Who?", " "), '"role": "assistant"'),
        (line("Who?", 7), '"role": "assistant"'),
        (line("Who?", "Me.", split="test"), "use train or val"),
    ],
)
def test_a_line_that_is_none_is_told_by_its_number(tmp_path, given, told):
    path = write(tmp_path / "a.jsonl", line("Who?", "Me."), given)
    with pytest.raises(UserError, match=r"1 lines .* are no conversations") as caught:
        chats.read_chats(path, "train")
    assert told in str(caught.value) and "line 2" in str(caught.value).replace(":2", " line 2")


def test_a_file_with_nothing_for_a_split(tmp_path):
    path = write(tmp_path / "a.jsonl", line("Who?", "Me.", split="train"))
    with pytest.raises(UserError, match="no conversation for 'val'"):
        chats.read_chats(path, "val")


@pytest.fixture(scope="module")
def corpus():
    return questions(), families()


@pytest.mark.slow
def test_training_never_sees_what_is_held_out(corpus):
    held_out = chats.held_out_questions(corpus[1])
    seen = {
        (one["family"], text)
        for split in ("train", "val")
        for found in chats.question_chats(*corpus, split).values()
        for one in found
        for text, _ in one["turns"]
    }
    facts = {(q.family, q.fact) for q in held_out}
    assert len(facts) > 100
    about = [q for q in corpus[0] if (q.family, q.fact) in facts]
    assert about and not {(q.family, q.text) for q in about} & seen
    # a country that is held out in one family is held out in all of them
    for country in {q.fact.split("|")[1] for q in held_out if q.family == "capitals"}:
        told = [text for family, text in seen if family in ("languages", "currencies")]
        assert not [text for text in told if f" {country}" in text and country != "Guinea"]


def test_no_test_question_is_held_out(corpus):
    facts = {(q.family, q.fact) for q in chats.held_out_questions(corpus[1])}
    assert not [q for q in corpus[0] if q.split == "test" and (q.family, q.fact) in facts]


def test_all_other_training_questions_are_there(corpus):
    found = chats.question_chats(*corpus, "train")
    wanted = sum(q.split == "train" for q in corpus[0])
    count = sum(map(len, found.values()))
    assert set(found) == {q.family for q in corpus[0]}
    assert 0.9 * wanted < count < wanted
    assert {"repeat", "arithmetic"} <= {f for f in found if len(found[f]) > 1000}


def test_test_facts_of_a_family():
    facts = [{"a": str(n), "b": "x"} for n in range(40)]
    family = Family("f", "k", "", ["{a}?"], ["what of {a}?"], ["{b}."], facts, test_count=5)
    asked = [q.text for q in family.questions() if q.split == "test"]
    told = [family.ask(fact, 0, "test").text for fact in family.test_facts()]
    assert sorted(asked) == sorted(told) and len(asked) == 5
    assert np.unique(told).size == 5


@pytest.mark.slow
def test_other_wordings_of_the_same_facts():
    """Three more of each fact for training, one for validation, in words of its own: nothing of what
    is held out, and no wording of a test question, whatever it asks for.
    """
    asked, made = questions(), families()
    told = {}
    for split in ("train", "val"):
        plain, more = (chats.question_chats(asked, made, split, n) for n in (0, 3))
        assert all(found[: len(plain[name])] == plain[name] for name, found in more.items())
        told[split] = {name: found[len(plain[name]) :] for name, found in more.items()}
    texts = lambda found: {chat["turns"][0][0] for one in found.values() for chat in one}
    assert not texts(told["train"]) & texts(told["val"])
    assert len(told["val"]["alphabet"]) == 2 * 25 and not told["val"]["repeat"]
    told = told["train"]
    assert len(told["alphabet"]) == 3 * 2 * 25 and not told["repeat"]
    assert len(told["languages"]) == 3 * len({q.fact for q in asked if q.family == "languages"
                                              and q.split == "train"} - _hidden_facts(made))  # fmt: skip
    new = [chat["turns"][0][0] for found in told.values() for chat in found]
    assert not {words_of(text) for text in new} & {
        words_of(q.text) for q in asked if q.split == "test"
    }
    for q in chats.held_out_questions(made):
        if q.family == "capitals" and q.fact.startswith("of|"):
            country = q.fact.split("|")[1]
            assert not [t for t in new if t.startswith(f"Capital of {country}?")]


def _hidden_facts(made):
    return {q.fact for q in chats.held_out_questions(made) if q.family == "languages"}


def test_no_other_wording_is_one_of_the_corpus_or_the_test():
    frames = lambda family: {words_of(ask) for ask in (*family.asks, *family.test_asks)}
    kinds = {(family.name, family.kind): family for family in families()}
    train, val = rewordings("train"), rewordings("val")
    assert set(train) == set(val) == set(kinds) - {("repeat", "after")}
    for key, kept in val.items():
        ways = train[key] + kept
        mine = [words_of(way) for way in ways]
        assert len(set(mine)) == len(mine) >= 16 and not set(mine) & frames(kinds[key]), key
        assert len(mine) // 8 == len(kept)
        for way, asked in itertools.product(ways, kinds[key].test_asks):
            like = difflib.SequenceMatcher(None, *map(_spelt_out, (way, asked))).ratio()
            assert like < 0.6, (way, asked)
        for way in ways:
            way.format(**kinds[key].facts[0])  # of its fields and no others


def _spelt_out(wording):
    """Its words, fields among them, without contractions."""
    short = {"i'd": "i would", "i'm": "i am", "it's": "it is", "don't": "do not"}
    words = re.findall(r"[a-z'{}]+", wording.lower())
    return [one for word in words for one in short.get(word, word).split()]
