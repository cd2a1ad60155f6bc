"""`python -m experiments.thinker_chats`: what is kept of a Thinker's answers, and of what is heard."""

import json
import sys
from types import SimpleNamespace

import pytest

import mdmspeech
from experiments import thinker_chats
from mdmspeech.data.datasets import corpus
from mdmspeech.data.texts import chats, questions
from mdmspeech.data.texts.chat import repeat_family


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs it with a model that answers, or hears, by a function; returns the conversations."""

    def one(kind, *options, release="compact", **model):
        monkeypatch.setattr(mdmspeech, "load", {release: SimpleNamespace(**model)}.__getitem__)
        monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["thinker_chats", kind, *options])
        thinker_chats.main()
        lines = (tmp_path / "chats" / f"{kind}.jsonl").read_text().splitlines()
        return [[m["content"] for m in json.loads(line)["messages"]] for line in lines]

    return one


def test_answers_that_end_and_are_short(run):
    said = ["It is fine.", "It goes on and on", "Yes.", "So it is " * 20 + ".", "Is it so?", "No!"]

    def answer_many(prompts):
        return [said[n % len(said)] for n, _ in enumerate(prompts)]

    found = run("general", "--count", "20", answer_many=answer_many)
    assert {answer for _, answer in found} == {"It is fine.", "Is it so?"}
    former = run(
        "general", "--count", "20", "--model", "former", release="former", answer_many=answer_many
    )
    assert former == found
    prompts = [prompt for prompt, _ in found]
    assert len(set(prompts)) == len(prompts) > 4 and len(found) <= 20
    assert not [p for p in prompts if "{" in p]


@pytest.mark.slow
def test_what_was_heard_with_the_answers_of_what_was_asked(run, tmp_path, monkeypatch):
    families = questions.families()
    hidden = chats.held_out_questions(families)
    asked = [q for q in questions.questions() if q.split == "train"]
    known = {q.fact for q in hidden}
    held_out = next(q for q in asked if q.fact in known and q.family == "capitals")
    told = [q for q in asked if q.fact not in known][:3]
    records = [
        {"text": q.text, "answer": q.answer, "family": q.family, "audio": [0], "rate": 16000}
        for q in (*told, held_out)
    ]
    monkeypatch.setattr(corpus, "questions", lambda *where, **parts: records)

    def transcripts(waves, unheard):
        return ["hear a", unheard, "hear c", "hear d"][: len(waves)]

    found = run("heard", transcripts=transcripts)
    assert found == [["hear a", told[0].answer], ["hear c", told[2].answer]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["everyday", "unknown", "repeat"])
def test_written_conversations_are_chats_and_the_same_every_time(run, tmp_path, kind):
    found = run(kind)
    assert found == run(kind) and len(found) > 600
    read = chats.read_chats(tmp_path / "chats" / f"{kind}.jsonl", "train")
    assert len(read) > 0.9 * len(found) and {chat["family"] for chat in read} == {kind}
    assert run(kind, "--count", "7") == found[:7]


def test_what_is_written(run):
    everyday = run("everyday")
    assert ["What do birds build?", "Birds build nests."] in everyday
    answers = dict(everyday)
    begun = [asked for asked in answers if asked.endswith("what do birds build?")]
    assert all(answers[asked] == "Birds build nests." for asked in begun)
    assert {answer for _, answer in run("unknown")} == {"I don't know."}
    repeated = run("repeat")
    assert all(asked.endswith(answer) and asked != answer for asked, answer in repeated)
    before = {asked.removesuffix(answer) for asked, answer in repeated}
    assert {"Repeat after me: ", "Repeat after me. ", "Say after me, "} <= before
    # questions, too, and what test questions say before them is not among it
    assert any(answer.endswith("?") for _, answer in repeated)
    tested = {ask.removesuffix("{sentence}") for ask in repeat_family().test_asks}
    assert len(tested) == 2 and not tested & before


def test_wrong_counts_and_places(run, tmp_path):
    with pytest.raises(mdmspeech.errors.UserError, match="--count 0"):
        run("general", "--count", "0")
