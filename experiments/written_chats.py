"""Conversations written by hand or from templates, for `experiments.thinker_chats`: everyday
questions, questions that nobody here can answer, sentences to repeat.

Command:  python -m experiments.thinker_chats everyday
          (and unknown, repeat)

Each function gives {"messages", "family"} a conversation, always the same and in the same order.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from mdmspeech.data.texts import chat as small_talk
from mdmspeech.text.normalise import sentence

EVERYDAY = Path(__file__).with_name("everyday.tsv")
UNKNOWN = "I don't know."
_REPEATED = 2_400
_SENTENCES, _QUESTIONS = 0.6, 0.25  # of what is to be repeated; the others are two sentences

# How people begin a question; it follows as it is, or with a small letter after a comma.
_BEGUN = ("Tell me, {}", "Okay, {}", "I have a question. {}", "Hey, {}", "So, {}", "Please, {}")

# What cannot be known: (templates, what they are filled with).
_THINGS = (
    "birthday", "shoe size", "favorite color", "favorite song", "middle name", "phone number",
    "address", "password", "bank balance", "doctor's name", "neighbor's name", "boss's name",
    "dog's name", "bus number", "seat number", "blood type", "height", "age", "license plate",
    "mother's maiden name",
)  # fmt: skip
_PEOPLE = (
    "my brother", "my sister", "my neighbor", "Mrs. Miller", "Mr. Brown", "my boss", "my teacher",
    "aunt Mary", "uncle Tom", "my cousin", "Peter", "Anna", "the man next door", "my grandmother",
)  # fmt: skip
_PAST = ("last night", "yesterday", "this morning", "last weekend", "on Tuesday")
_PLACES = ("here", "outside", "in Boston", "in Berlin", "in our town", "at the beach", "in Tokyo")
_FUTURE = ("tomorrow", "next week", "this weekend", "next year", "tonight")
_GAMES = ("football", "basketball", "baseball", "hockey", "tennis", "soccer")
_UNKNOWABLE: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = (
    (("What is my {}?", "Can you tell me my {}?", "Do you remember my {}?"), (_THINGS,)),
    (
        (
            "What did {} eat {}?", "Where was {} {}?", "Who did {} meet {}?", "What did {} buy {}?",
            "What did {} say {}?",
        ),
        (_PEOPLE, _PAST),
    ),
    (
        (
            "What is {} doing right now?", "Where does {} live?", "How old is {}?",
            "What is {} thinking about?", "How much money does {} have?", "Where did {} park?",
        ),
        (_PEOPLE,),
    ),
    (
        (
            "What is the weather like {}?", "Is it raining {} right now?", "How warm is it {} now?",
            "How many people are {} at the moment?", "Is it dark {}?",
        ),
        (_PLACES,),
    ),
    (
        ("Who will win the {} game {}?", "What will the score of the {} game be {}?"),
        (_GAMES, _FUTURE),
    ),
    (
        (
            "Will it rain {}?", "Will the train be late {}?", "Will I be happy {}?",
            "What will the lottery numbers be {}?", "What will bread cost {}?",
            "Who will call me {}?", "Will I pass the exam {}?",
        ),
        (_FUTURE,),
    ),
    (
        ("Where did I leave my {}?", "Who has taken my {}?", "What did my {} cost?"),
        (("car", "coat", "umbrella", "bicycle", "book"),),
    ),
    (
        (
            "What time is it?", "What is today's date?", "What day is it today?", "Who am I?",
            "What am I holding?", "What am I wearing?", "What is in my bag?", "Where am I?",
            "Who is at the door?", "What was in the news today?", "Who is calling me?",
            "How many steps did I take?", "What is on television tonight?",
        ),
        (),
    ),
)  # fmt: skip

# How recognisers write down what the corpus has with a colon.
_REPEAT_AS = (
    "Repeat after me: {}", "Repeat after me. {}", "Repeat after me, {}", "Please repeat: {}",
    "Please repeat. {}", "Say after me: {}", "Say after me. {}", "Say after me, {}",
    "Can you say this? {}", "Can you say, {}", "Repeat this sentence: {}", "Repeat this sentence. {}",
    "Please say this: {}", "Please say this. {}", "Repeat: {}", "Repeat. {}", "Say this. {}",
    *(
        wording + end
        for wording in (
            "Echo these words", "Speak this sentence aloud", "Could you say these words for me",
            "I would like to hear you say", "Read this out", "Tell me exactly this", "Please echo this",
            "Use your voice for these words", "Copy my words", "Give me this sentence once more",
            "I say a sentence and you say it again", "Your words are",
        )
        for end in (": {}", ". {}", ", {}")
    ),
)  # fmt: skip


def everyday() -> Iterator[dict]:
    """Every question of everyday.tsv as it is, and once begun like a sentence that is spoken."""
    rng = random.Random(0)
    for asked, answered in questions():
        yield as_chat(asked, answered, "everyday")
        begun = rng.choice(_BEGUN)
        small = begun.endswith(", {}") and asked.split()[0] not in ("I", "Tell", "Name", "Give")
        yield as_chat(
            begun.format(asked[0].lower() + asked[1:] if small else asked), answered, "everyday"
        )


def questions() -> list[tuple[str, str]]:
    """(question, answer) of everyday.tsv."""
    lines = EVERYDAY.read_text("utf-8").splitlines()
    return [(asked, answered) for asked, answered in (line.split("\t") for line in lines)]


def unknown() -> Iterator[dict]:
    """Questions about the user, the present, the future and strangers: the answer is that it is not
    known.
    """
    for templates, fillings in _UNKNOWABLE:
        for template, filling in itertools.product(templates, itertools.product(*fillings)):
            yield as_chat(template.format(*filling), UNKNOWN, "unknown")


def repeat() -> Iterator[dict]:
    """Sentences to repeat as a recogniser may write them: a full stop or a comma for the colon. Some
    are questions or two sentences, so that what is to be repeated is not answered instead.
    """
    rng = random.Random(1)
    spare = small_talk.short_sentences("train", small_talk.REPEAT_FROM)
    asked = [question for question, _ in questions()]
    for _ in range(_REPEATED):
        said = _to_repeat(rng, spare, asked)
        yield as_chat(rng.choice(_REPEAT_AS).format(said), said, "repeat")


def _to_repeat(rng: random.Random, spare: Sequence[str], asked: Sequence[str]) -> str:
    kind = rng.random()
    if kind < _SENTENCES:
        return sentence(rng.choice(spare))
    if kind < _SENTENCES + _QUESTIONS:
        return rng.choice(asked)
    return " ".join(sentence(one) for one in rng.sample(spare, 2))


def as_chat(asked: str, answered: str, family: str) -> dict:
    """One turn of each."""
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return {"messages": messages, "family": family}
