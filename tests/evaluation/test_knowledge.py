"""What a Thinker knows: the questions have answers that the judge takes, and it takes no others."""

from collections import Counter
from types import SimpleNamespace

import pytest

from mdmspeech.data.texts import chats
from mdmspeech.data.texts.questions import families, questions
from mdmspeech.evaluation import knowledge
from mdmspeech.evaluation.judging import is_right

QUESTIONS = knowledge.read_questions(knowledge.GENERAL)
EVERYDAY = knowledge.read_questions(knowledge.EVERYDAY)
CHOOSING = knowledge.read_questions(knowledge.GENERAL, "val")
JUDGED = (*QUESTIONS, *EVERYDAY, *CHOOSING)


def right(answer, wanted, question):
    return any(is_right(answer, one, knowledge.GENERAL, question) for one in wanted)


@pytest.mark.parametrize(("question", "wanted"), [asked[:2] for asked in JUDGED])
def test_the_judge_takes_right_answers_and_no_others(question, wanted):
    for one in wanted:
        assert right(f"{one}.", wanted, question) and right(f"It is {one}.", wanted, question)
    others = {other for _, answers, _ in JUDGED for other in answers}
    words = lambda text: set(text.lower().split()) - {"a", "the"}
    for other in others:
        if words(other) & set().union(*map(words, wanted)):
            continue  # George Washington and Washington, two and H two O
        assert not right(f"It is {other}.", wanted, question), other
    for nothing in (question, "I do not know.", f"It is not {wanted[0]}.", ""):
        assert not right(nothing, wanted, question)


@pytest.mark.slow
def test_counts():
    known = {question: f"It is {wanted[0]}." for question, wanted, _ in QUESTIONS[-12:]}
    unknown = {question: "I don't know that." for question, _, _ in QUESTIONS[:3]}
    cannot = knowledge.read_questions(knowledge.UNANSWERABLE)
    unknown |= {question: "Sorry, I do not know." for question, _, _ in cannot[:5]}
    answers = known | unknown

    def answer_many(asked):
        return [answers.get(question, "Bananas are yellow.") for question in asked]

    found = knowledge.evaluate_knowledge(
        SimpleNamespace(answer_many=answer_many), knowledge.question_sets()
    )
    general, held_out = (found["sets"][name] for name in (knowledge.GENERAL, knowledge.HELD_OUT))
    assert (general["questions"], general["right"], general["unknown"]) == (50, 12, 3)
    cannot = found["sets"][knowledge.UNANSWERABLE]
    assert (cannot["questions"], cannot["right"], cannot["unknown"]) == (39, 5, 5)
    assert found["sets"][knowledge.EVERYDAY]["questions"] == len(EVERYDAY) > 50
    low, high = general["right_95"]
    assert low < 12 / 50 < high
    assert held_out["right"] == held_out["unknown"] == 0 and held_out["questions"] > 100
    assert held_out["words"] == 3.0 and found["questions"] == len(found["items"])


@pytest.mark.slow
def test_facts_are_asked_in_words_of_validation():
    """Twelve of each family, which the judge knows: right answers are right, others are not."""
    made, asked = families(), questions()
    given = chats.validation_questions(asked, made, 12)
    by_family = Counter(q.family for q in given)
    assert set(by_family) == {f.name for f in made} - {"repeat"} and min(by_family.values()) == 12
    assert len({q.family for q in given[:12]}) > 4, "a few questions are of few families"
    assert given == chats.validation_questions(asked, made, 12) and len(given) == 12 * len(
        by_family
    )
    trained = chats.question_chats(asked, made, "train", 40)  # in all wordings
    assert not {q.text for q in given} & {
        text for found in trained.values() for chat in found for text, _ in chat["turns"]
    }
    assert {(q.family, q.fact) for q in given} <= {
        (q.family, q.fact) for q in asked if q.split == "train"
    }
    answers = {q.text: q.answer for q in given}
    sets = knowledge.question_sets("val")
    ask = lambda reply: knowledge.evaluate_knowledge(
        SimpleNamespace(answer_many=lambda texts: [reply(text) for text in texts]), sets
    )["sets"][knowledge.REWORDED]
    right = ask(lambda text: answers.get(text, ""))
    assert right["questions"] == len(given) and right["right"] > 0.95 * len(given)
    assert ask(lambda text: "I don't know.")["right"] == 0
    others = dict(zip(answers, [*answers.values()][::-1], strict=True))
    assert ask(lambda text: others.get(text, ""))["right"] < 0.05 * len(given)


@pytest.mark.slow
def test_no_general_question_is_trained_on():
    """Nor asked in the test set."""
    from mdmspeech.data.storage.splits import words_of

    trained = {words_of(q.text) for q in questions()}
    assert not {words_of(question) for question, _, _ in QUESTIONS} & trained


@pytest.mark.slow
def test_validation_has_sentences_to_repeat_in_words_of_its_own():
    """No training and no test says the words before them, and nobody there has the sentences."""
    from experiments import written_chats

    sets = knowledge.question_sets("val")

    def asked(reply):
        found = knowledge.evaluate_knowledge(
            SimpleNamespace(answer_many=lambda texts: [reply(text) for text in texts]), sets
        )
        return found["sets"][knowledge.REPEATED], [
            item for item in found["items"] if item["set"] == knowledge.REPEATED
        ]

    echoed, items = asked(lambda text: text)
    assert echoed["questions"] == len(items) == 60 and echoed["right"] == 0
    said = {item["question"]: item["expected"][0] for item in items}
    assert asked(lambda text: said.get(text, ""))[0]["right"] == 60
    others = [*said.values()]
    others = dict(zip(said, others[1:] + others[:1], strict=True))
    assert asked(lambda text: others.get(text, ""))[0]["right"] == 0
    before = {text.removesuffix(sentence).strip(" .:,") for text, sentence in said.items()}
    assert len(before) == 5
    trained = [chat["messages"] for chat in written_chats.repeat()]
    trained = [(asked["content"], answer["content"]) for asked, answer in trained]
    trained += [(q.text, q.answer) for q in questions() if q.family == "repeat"]
    assert not {answer for _, answer in trained} & set(said.values())
    assert not [text for text, _ in trained if text.startswith(tuple(before))]


def test_validation_asks_for_no_fact_of_the_test():
    """No answer is one of a general or everyday question that is reported."""
    answers = lambda asked: {one.lower() for _, wanted, _ in asked for one in wanted}
    assert len(CHOOSING) > 80 and not answers(CHOOSING) & answers((*QUESTIONS, *EVERYDAY))


def test_the_training_asks_nothing_of_what_is_asked_here():
    """Of the everyday conversations: neither a general question nor a question that nobody can
    answer, whatever words stand before it; the everyday ones of both share facts, but no wording.
    """
    from experiments import written_chats
    from mdmspeech.data.storage.splits import words_of

    cannot = knowledge.read_questions(knowledge.UNANSWERABLE)
    asked = {words_of(q) for q, _, _ in (*QUESTIONS, *CHOOSING, *cannot)}
    made = [*written_chats.everyday(), *written_chats.unknown()]
    for chat in made:
        words = words_of(chat["messages"][0]["content"])
        assert not any(words[n:] in asked for n in range(len(words))), chat
    trained = {words_of(q) for q, _ in written_chats.questions()}
    assert not {words_of(q) for q, _, _ in EVERYDAY} & trained


def test_the_later_everyday_questions_ask_for_no_general_fact():
    """Whoever wrote them knew none of these, and may have asked for the same: it was taken out."""
    from experiments import written_chats
    from mdmspeech.evaluation.claims import content, tokens

    common = {"many", "call", "people", "name", "tell"}
    about = lambda question: set(content(tokens(question))) - common
    later = written_chats.questions()[449:]
    assert len(later) > 500
    for asked, answer in later:
        for general, wanted, _ in (*QUESTIONS, *CHOOSING):
            same = about(asked) & about(general) and right(answer, wanted, general)
            assert not same, (asked, answer, general)
