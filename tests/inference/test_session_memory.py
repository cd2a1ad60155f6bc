"""What a caller says itself about a conversation: instructions, history, what is taken back, and how
one response differs from the others.
"""

import numpy as np
import pytest
from small_session import asked, events, of, opened, run, silence, work

from mdmspeech.errors import UserError
from mdmspeech.inference.conversation import Conversation
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    ResponseTruncated,
    SessionError,
    SpeechStopped,
    Transcript,
    TurnCommitted,
)
from mdmspeech.text.prompts import Prompt, conversation

QUESTIONS = ["what is it ?", "is a red apple good ?", "yes and no", "what is a very good answer ?"]


@pytest.fixture(scope="module")
def model(talkative):
    return talkative


def said(session):
    """Turn by turn."""
    return [
        (" ".join(str(part) for _, part in turn.asked), turn.answered)
        for turn in session._conversation.turns
    ]


def done(session, *, ref="r", **changes):
    """The events of one response."""
    session.respond(ref, **changes)
    work(session)
    return events(session)


def ask(session, text, **changes):
    session.note(text, "q")
    return done(session, **changes)[1:]


def alone(runner, instructions, turns, question):
    """The greedy answer to a chat that is written down anew."""
    prompt = runner.prompt if instructions is None else Prompt(instructions)
    messages = conversation(question, prompt)
    for one, answer in reversed(turns):
        messages[1:1] = [{"role": "user", "content": one}, {"role": "assistant", "content": answer}]
    ids = runner.tokenizer.chat_prompt(messages)
    state = runner.begin(256)
    state = type(state)(**{**vars(state), "lengths_B": np.zeros(1, np.int32)})
    state = runner.extend(state, runner.embedded(ids))
    return "".join(piece.text for piece in runner.answer(state)).strip()


@pytest.mark.parametrize("instructions", [None, "be a red apple", "no answer", "very " * 40])
def test_instructions_are_the_system_message(model, instructions):
    session = opened(model, instructions=instructions, output="text")
    turns = []
    for question in QUESTIONS[:2]:
        end = ask(session, question)[-1]
        assert end.text == alone(model.thinker, instructions, turns, question)
        turns.append((question, end.text))
    assert said(session) == turns


def test_instructions_change_between_turns_and_for_one_response(model):
    session, turns = opened(model, output="text"), []
    for at, (instructions, own) in enumerate(
        [(None, "be a red apple"), ("no answer", None), ("no answer", "is is is"), (None, None)]
    ):
        session.update(instructions=instructions)
        end = ask(session, QUESTIONS[at], **({"instructions": own} if own else {}))[-1]
        assert end.text == alone(model.thinker, own or instructions, turns, QUESTIONS[at])
        turns.append((QUESTIONS[at], end.text))


def test_instructions_that_leave_no_room_say_so(model):
    session = opened(model, instructions="very " * 250)
    end = ask(session, QUESTIONS[0])[-1]
    assert end.reason == "error" and "its instructions 25" in end.message
    session.update(instructions="no answer")
    assert done(session)[-1].reason == "error"  # what has failed is asked no more
    assert ask(session, QUESTIONS[0])[-1].reason == "completed"


def test_settings_that_follow_each_other_are_all_kept(model):
    """However fast they come."""
    session = opened(model)
    session.update(instructions="no answer")
    session.update(steps=1)
    session.update(turn_detection={"threshold": 0.7})
    session.update(turn_detection={"silence_duration_s": 0.7})
    work(session)
    config = session.config
    assert (config.instructions, config.steps) == ("no answer", 1)
    assert (config.turn_detection.threshold, config.turn_detection.silence_duration_s) == (0.7, 0.7)


def test_text_alone(model):
    session = opened(model)
    spoken = ask(session, QUESTIONS[0])
    other = opened(model)
    written = ask(other, QUESTIONS[0], output="text")
    assert of(spoken, ResponseAudio) and not of(written, ResponseAudio)
    assert [e.text for e in of(written, ResponseText)] == [e.text for e in of(spoken, ResponseText)]
    assert written[-1].text == spoken[-1].text and written[-1].audio_s == 0
    assert (
        written[-1].usage.text_out == spoken[-1].usage.text_out > 0 == written[-1].usage.audio_out
    )
    assert spoken[-1].usage.audio_out == spoken[-1].audio_s * 25
    assert {"thinker_prefill", "thinker_decode", "talker", "codec"} <= set(spoken[-1].timeline)


def test_a_written_answer_that_is_stopped_is_remembered_as_it_was_told(model):
    session = opened(model, output="text")
    session.note(QUESTIONS[0], "q")
    session.respond("r")
    while len(of(list(session.events._events), ResponseText)) < 3:
        session.work()
    session.cancel()
    work(session)
    found = events(session)
    text = "".join(e.text for e in of(found, ResponseText)).strip()
    assert found[-1].reason == "cancelled" and found[-1].text == text and text
    assert said(session) == [(QUESTIONS[0], text)]


@pytest.mark.parametrize("most", [1, 2, 5, 11, 12, 500])
def test_an_answer_is_no_longer_than_it_may_be(model, most):
    whole = ask(opened(model), QUESTIONS[0])
    found = ask(opened(model), QUESTIONS[0], max_output_tokens=most)
    if most < whole[-1].usage.text_out:
        assert found[-1].reason == "max_output_tokens" and found[-1].usage.text_out == most
        assert whole[-1].text.startswith(found[-1].text) and len(found[-1].text) < len(
            whole[-1].text
        )
    else:
        assert (found[-1].reason, found[-1].text) == ("completed", whole[-1].text)


def test_tokens_are_counted(model):
    session = opened(model, output="text")
    first, second = (ask(session, question)[-1].usage for question in QUESTIONS[:2])
    assert first.text_in == len(model.thinker.before) + 4 + len(model.thinker._after)
    assert first.cached == len(model.thinker.before) and first.audio_in == 0
    assert first.text_in <= second.cached < second.text_in


def test_commit_and_respond_are_told_by_name(model):
    session = opened(model)
    session.note(QUESTIONS[0], "text")
    found = run(session, silence(1.0), asked()[:30_000])
    session.commit("sound", answer=False)
    work(session)
    found += events(session)
    assert of(found, TurnCommitted) == [TurnCommitted("text", 1), TurnCommitted("sound", 2)]
    assert of(found, SpeechStopped)[0].question is None and len(of(found, Transcript)) == 1
    assert not of(found, ResponseStarted)
    found = done(session, ref="answer")
    assert found[:2] == [TurnCommitted("answer", 3), ResponseStarted(1, 3, "answer")]
    assert said(session)[0][0].startswith(QUESTIONS[0])
    session.commit("nothing")
    assert [e.ref for e in done(session, ref="late") if isinstance(e, SessionError)] == [
        "nothing",
        "late",
    ]


def test_a_turn_that_was_detected_has_its_question(model):
    found = run(opened(model), silence(1.0), asked(), silence(1.0), asked(), silence(1.0))
    assert [e.question for e in of(found, SpeechStopped)] == [1, 2]
    assert [e.question for e in of(found, Transcript)] == [1, 2]


def test_every_respond_is_told_what_became_of_it(model, monkeypatch):
    """Before its response has begun."""
    session = opened(model)
    heard = model.frontend.encode(asked())._replace(transcript="")
    with monkeypatch.context() as patch:
        patch.setattr(model.frontend, "encode", lambda wave, draft=None: heard)
        session.update(create_response=False)
        session.push_audio(np.concatenate([silence(0.5), asked(), silence(1.0)]))
        found = done(session, ref="no words")
        (committed,), (error,) = of(found, TurnCommitted), of(found, SessionError)
        assert (committed.ref, error.ref, error.reason) == ("no words", "no words", "error")
        assert not of(found, ResponseStarted)


def test_a_respond_that_is_stopped_before_it_begins(model):
    session = opened(model, create_response=False)
    run(session, silence(0.5), asked(), silence(1.0))
    session.respond("r")
    while session._current is None:
        session.work()
    session.cancel()
    work(session)
    _, error = events(session)
    assert (error.ref, error.reason) == ("r", "cancelled")
    assert of(done(session, ref="again"), ResponseStarted)  # what was asked is not lost


def test_instructions_are_a_question_where_there_is_none(model):
    found = done(opened(model, output="text"), instructions="what is it ?")
    assert found[-1].text == alone(model.thinker, None, [], "what is it ?")


def test_a_history_that_is_told(model):
    told, lived = opened(model, output="text"), opened(model, output="text")
    for question in QUESTIONS[:2]:
        answer = ask(lived, question)[-1].text
        told.note(question, "q")
        assert told.insert(answer) < 0
    work(told)
    assert said(told) == said(lived)
    assert ask(told, QUESTIONS[2])[-1].text == ask(lived, QUESTIONS[2])[-1].text
    greeted = opened(model, output="text")
    greeted.insert("it is good")
    assert ask(greeted, QUESTIONS[0])[-1].reason == "completed"
    assert said(greeted)[0] == ("", "it is good")
    with pytest.raises(UserError, match="there is no question"):
        greeted.insert("?")


def test_a_history_longer_than_can_wait_is_refused_where_it_is_too_long(model):
    session = opened(model, output="text")
    for _ in range(150):
        session.note("yes", "q")
        session.insert("no")
    work(session)
    found = events(session)
    assert len(of(found, SessionError)) == 44 and len(said(session)) == 128


# (deleted, what is left of three turns, what goes with the next question)
DELETED = [
    ({"response": 3}, 2, QUESTIONS[2]),
    ({"response": 1}, 2, ""),
    ({"question": 1}, 3, ""),
    ({"question": 5}, 3, ""),
    ({"question": 99}, 3, ""),
    ({"response": 7}, 3, ""),
]


@pytest.mark.parametrize(("deleted", "turns", "left"), DELETED)
def test_what_is_taken_back_was_never_said(model, deleted, turns, left):
    session = opened(model, output="text")
    answers = [ask(session, question)[-1].text for question in QUESTIONS[:3]]
    before = said(session)
    session.forget(**deleted)
    work(session)
    assert len(said(session)) == turns
    if deleted == {"response": 1}:
        assert said(session)[0] == (f"{QUESTIONS[0]} {QUESTIONS[1]}", answers[1])
    elif "question" in deleted and deleted["question"] < 9:
        at = deleted["question"] // 2
        assert said(session)[at] == ("", answers[at])
    elif not left:
        assert said(session) == before
    kept = said(session)
    end = ask(session, "yes")[-1]
    question = f"{left} yes".strip()
    assert end.text == alone(model.thinker, None, kept, question)
    assert said(session)[-1][0] == question


def test_a_question_is_taken_back_before_and_while_it_is_answered(model):
    session = opened(model, output="text")
    session.note(QUESTIONS[0], "q")
    session.note(QUESTIONS[1], "q")
    session.forget(question=1)
    assert done(session)[2:][-1].text == alone(model.thinker, None, [], QUESTIONS[1])
    session.note(QUESTIONS[2], "q")
    session.respond("r")
    for _ in range(8):
        session.work()
    session.forget(question=4)
    work(session)
    answer = of(events(session), ResponseEnded)[-1].text
    assert said(session)[-1] == ("", answer)


def test_taken_back_in_the_middle_of_an_answer_that_is_discarded(talkative):
    runner = talkative.thinker
    chat = Conversation(runner, 256)
    for number, question in enumerate(QUESTIONS[:2], 1):
        list(chat.ask(question, numbers=[number]))
        chat.settle("yes", number)
    chat.ask("no", numbers=[3])
    chat.forget(response=1)
    chat.discard()
    assert [[part for _, part in turn.asked] for turn in chat.turns] == [QUESTIONS[:2]]


def test_a_truncation_is_told_by_name(model):
    session = opened(model)
    end = ask(session, QUESTIONS[1])[-1]
    second = ask(session, QUESTIONS[0])[-1]
    found = []
    for number, played in ((2, 0.3), (2, 99.0), (2, -1.0), (1, 0.2), (9, 0.2)):
        session.truncate(played, number, "t")
        work(session)
        found += events(session)
    assert [type(e) for e in found] == [ResponseTruncated] * 3 + [SessionError] * 2
    assert [e.played_s for e in found[:3]] == [0.3, pytest.approx(second.audio_s), 0.0]
    assert second.text.startswith(found[0].text) and found[1].text == second.text
    assert found[2].text == "" and said(session) == [(QUESTIONS[1], end.text)]
    assert {e.ref for e in found} == {"t"}


def test_the_answer_before_the_one_that_is_being_made_can_be_truncated(model):
    session = opened(model)
    first = ask(session, QUESTIONS[0])[-1]
    session.note(QUESTIONS[1], "q")
    session.respond("r")
    for _ in range(6):
        session.work()
    session.truncate(0.1, 1, "t")
    work(session)
    found = events(session)
    (cut,) = of(found, ResponseTruncated)
    assert len(cut.text) < len(first.text) and said(session)[0] == (QUESTIONS[0], cut.text)
    assert of(found, ResponseEnded)[0].reason == "completed"


def test_sound_is_cleared_without_what_was_typed(model):
    session = opened(model, turn_detection=None)
    session.note(QUESTIONS[0], "q")
    run(session, asked())
    session.clear(noted=False)
    session.commit("nothing", answer=False)
    found = done(session)
    assert [e.ref for e in of(found, SessionError)] == ["nothing"]
    assert found[-1].text == opened_answer(model)


def opened_answer(model):
    return ask(opened(model), QUESTIONS[0])[-1].text


def test_an_answer_that_was_deleted_is_not_cut(model):
    """While it is still being played; nor is the one before it, in its place."""
    for delete in (True, False):
        session = opened(model)
        first, second = (ask(session, question)[-1] for question in (QUESTIONS[1], QUESTIONS[0]))
        if delete:
            session.forget(response=2)
        else:
            session.note("yes", "q")
            session.insert("no")
        work(session)
        before = said(session)
        assert before[0] == (QUESTIONS[1], first.text) and second.audio_s > 1
        run(session, silence(0.3), asked()[:24_000])  # it speaks into it
        assert said(session) == before
