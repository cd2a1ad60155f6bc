"""The whole evaluation over fakes: parts are kept, re-made when their weights change, and end up in
one table with plots.
"""

import json
from types import SimpleNamespace

import fakes
import numpy as np
import pytest

from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.evaluation import codec, knowledge, run, speaking
from mdmspeech.evaluation.knowledge import (
    EVERYDAY,
    GENERAL,
    HELD_OUT,
    REPEATED,
    REWORDED,
    UNANSWERABLE,
)
from mdmspeech.evaluation.speaking import endings
from mdmspeech.inference.speech import Trace


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A corpus, a release and fakes of whatever is heavy; returns (root, release, output, the
    assistants that were opened).
    """
    fakes.write_corpus(tmp_path / "data")
    fakes.write_release(tmp_path / "release")
    opened = []

    def open_fake(*_):
        opened.append(fakes.FakeAssistant())
        return opened[-1]

    opinion = {"ovrl": 3.0, "sig": 3.1, "bak": 3.9, "p808": 3.5, "clips": 1}
    monkeypatch.setattr(run, "load_release", lambda _: None)
    monkeypatch.setattr(run, "open_assistant", open_fake)
    monkeypatch.setattr(run, "Recogniser", lambda **_: fakes.FakeRecogniser())
    for module in (codec, speaking):
        monkeypatch.setattr(module, "mean_opinion", lambda *_, **__: opinion)
    monkeypatch.setattr(
        speaking, "in_answer_voice", lambda texts, rate: [fakes.tone(2.0)] * len(texts)
    )
    return tmp_path / "data", tmp_path / "release", tmp_path / "results", opened


@pytest.mark.slow
def test_every_part_ends_up_in_the_table_and_is_made_once(place):
    root, release, output, opened = place
    result = run.evaluate(release, root, output, count=3)
    assert set(run.PARTS) <= set(result)
    text = (output / "small.md").read_text()
    for title in (
        "## Speaking", "## Reading", "## Hearing", "## Recognition", "## Knowledge", "## Latency", "## Codec"
    ):  # fmt: skip
        assert title in text
    for picture in ("speaking", "hearing", "latency", "codec"):
        assert (output / "small" / f"{picture}.png").stat().st_size > 1000
        assert f"small/{picture}.png" in text
    assert len(result["speaking"]["rows"]) == 2 * (len(speaking.STEPS) + 1)
    assert result["codec"]["streamed_difference"] < 1e-4
    assert result["codec"]["made"]["cores"] >= 1
    assert json.loads((output / "small.json").read_text()) == result

    run.evaluate(release, root, output, count=3)
    assert not opened[1:] or not opened[1].spoken  # nothing was spoken again


@pytest.mark.parametrize(
    ("talkers", "baselines"),
    [
        (("mdm",), []),
        (("mdm", "ntp"), ["ntp"]),
        (("mdm", "mtp"), ["mtp"]),
        (("mtp", "mtp_verified", "ntp", "mdm"), ["ntp", "mtp", "mtp_verified"]),
    ],
)
def test_each_baseline_of_a_release_has_a_row(talkers, baselines):
    found = speaking.rows(SimpleNamespace(talkers=talkers), (1, 4))
    assert found == [("mdm", 1), ("mdm", 4), *((name, 1) for name in baselines)]


def test_releases_are_chosen_on_validation_data(place):
    root, release, output, _ = place
    result = run.evaluate(release, root, output, split="val", parts=["codec", "recognition"])
    assert set(result) == {"name", "split", "release", "codec", "recognition"}
    assert {name: one["clips"] for name, one in result["recognition"]["sets"].items()} == {
        "val voices": 2
    }
    assert result["codec"]["count"] == len(fakes.OPEN_VAL)
    items = json.loads((output / "small-val" / "recognition.json").read_text())["items"]
    assert [item["text"] for item in items] == [fakes.QUESTIONS[n][0] for n in (1, 2)]
    assert json.loads((output / "small-val.json").read_text()) == result
    assert "`mdmspeech eval --model small --split val`" in (output / "small-val.md").read_text()
    assert not (output / "small").exists() and not (output / "small.json").exists()
    test = run.evaluate(release, root, output, parts=["recognition"])
    assert test["recognition"]["sets"]["test voices"]["clips"] == len(fakes.QUESTIONS)
    with pytest.raises(UserError, match="no part 'hearing' of val; choose from codec, recognition"):
        run.evaluate(release, root, output, split="val", parts=["hearing"])
    with pytest.raises(UserError, match="no split 'train'; choose from test, val"):
        run.evaluate(release, root, output, split="train")


@pytest.mark.slow
def test_what_a_thinker_knows_is_asked_in_the_words_of_the_split(place):
    root, release, output, _ = place
    sets = lambda split: run.evaluate(
        release, root, output, split=split, parts=["knowledge"], count=5
    )["knowledge"]["sets"]
    assert {name: one["questions"] for name, one in sets("val").items()} == {
        REWORDED: 5,
        GENERAL: 5,
        REPEATED: 5,
    }
    told = (output / "small-val.md").read_text()
    assert "facts of fine-tuning in words that it never saw" in told
    assert set(sets("test")) == {GENERAL, EVERYDAY, UNANSWERABLE, HELD_OUT}
    assert "facts of fine-tuning" not in (output / "small.md").read_text()


@pytest.mark.slow
def test_other_questions_are_asked_anew(place, monkeypatch):
    root, release, output, opened = place
    ask = lambda: run.evaluate(release, root, output, split="val", parts=["knowledge"], count=5)
    asked = lambda: json.loads((output / "small-val" / "knowledge.json").read_text())["items"]
    ask()
    before = asked()
    ask()
    assert len(opened) == 1, "the same questions were asked again"
    other = [("What is the moon made of?", ("Rock",), GENERAL)]
    monkeypatch.setattr(knowledge, "read_questions", lambda *_: other)
    ask()
    assert len(opened) == 2 and asked() != before
    assert [one["question"] for one in asked() if one["set"] == GENERAL] == [other[0][0]]


def test_the_command_hands_on_the_split(place, capsys):
    root, release, output, _ = place
    command = ["eval", "--model", str(release), "--data", str(root), "-o", str(output)]
    assert main([*command, "--split", "val", "--parts", "recognition"]) == 0
    assert (output / "small-val.json").is_file() and not (output / "small.json").exists()
    for other in (["--own", "mine"], ["--rejudge"]):
        assert main([*command, "--split", "val", *other]) != 0
        assert f"{other[0]} is of test data" in capsys.readouterr().err


def test_hearing_is_judged_against_typing(place):
    root, release, output, _ = place
    heard = run.evaluate(release, root, output, parts=["hearing"])["hearing"]
    assert heard["questions"] == len(fakes.QUESTIONS)
    assert heard["families"]["arithmetic"] == {
        "questions": 2,
        "typed_right": 2,
        "spoken_right": 1,
        "both_right": 1,
        "share": 0.5,
        "share_95": [0.095, 0.905],
    }
    assert heard["families"]["capitals"]["share"] == 1.0
    assert heard["facts"]["questions"] == 3
    assert heard["repeat"]["spoken"]["wer"] == 0.0
    assert heard["human_repeat"]["clips"] == 1
    assert "items" not in heard
    items = json.loads((output / "small" / "hearing.json").read_text())["items"]
    assert items[1]["spoken"] == "Two plus two is four."
    assert items[0]["transcript"] == fakes.QUESTIONS[0][0].lower()


@pytest.mark.slow
def test_new_weights_make_their_parts_again_and_no_others(place):
    root, release, output, opened = place
    run.evaluate(release, root, output, parts=["speaking", "hearing"], count=2)
    fakes.write_release(release, talker="t2")
    run.evaluate(release, root, output, parts=["speaking", "hearing"], count=2)
    again = {talker for talker, _, _ in opened[1].spoken}
    assert again == {"mdm"}


@pytest.mark.slow
def test_a_new_update_of_the_thinker_has_the_answers_made_again(place):
    root, release, output, opened = place
    parts = ["hearing", "knowledge"]
    run.evaluate(release, root, output, parts=parts, count=2)
    run.evaluate(release, root, output, parts=parts, count=2)
    assert len(opened) == 1
    fakes.write_release(release, thinker_lora="l1")
    run.evaluate(release, root, output, parts=parts, count=2)
    fakes.write_release(release, thinker_lora="l2")
    run.evaluate(release, root, output, parts=["knowledge"], count=2)
    assert len(opened) == 3


def test_forced_parts_are_made_again(place):
    root, release, output, opened = place
    for force in (False, True):
        run.evaluate(release, root, output, parts=["speaking"], count=2, force=force)
    assert len(opened[1].spoken) == len(opened[0].spoken)


def test_an_unknown_part_is_named(place):
    root, release, output, _ = place
    with pytest.raises(UserError, match="'smelling'"):
        run.evaluate(release, root, output, parts=["smelling"])


def test_speech_that_had_to_be_cut_counts_as_a_missed_end():
    found = endings(["length", "eos", "silence", "text", "budget", "budget"])
    assert found["eos_missed"] == 4
    assert found["stop_reasons"]["budget"] == 2


def test_tokens_a_forward():
    """Of three blocks: 16 tokens in 4 forwards, 16 in 6, 3 in 1 (of another text)."""
    trace = lambda starts, steps: Trace(np.array(starts), np.array(steps), None, None)
    two = trace([0, 16], [*([0, 1, 2, 3] * 4), *(n // 3 for n in range(16))])
    assert speaking.tokens_a_forward([two]) == 3.2
    assert speaking.tokens_a_forward([two, trace([0], [0, 0, 0])]) == round(35 / 11, 2)
    assert speaking.tokens_a_forward([trace([0], [])]) == 0


@pytest.mark.slow
def test_verified_multi_token_rows_are_made_again_with_its_talker(place, monkeypatch):
    root, release, output, opened = place
    monkeypatch.setattr(fakes.FakeAssistant, "talkers", ("mdm", "mtp", "mtp_verified"))
    about = json.loads((release / "config.json").read_text())
    for digest in ("m1", "m2"):
        about["parts"]["talker_mtp"] = {"sha256": digest}
        (release / "config.json").write_text(json.dumps(about))
        run.evaluate(release, root, output, parts=["speaking"], count=2)
    assert {talker for talker, _, _ in opened[1].spoken} == {"mtp", "mtp_verified"}
    assert "| answers | MTP verified | - |" in (output / "small.md").read_text()
