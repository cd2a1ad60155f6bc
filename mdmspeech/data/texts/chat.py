"""Small talk (chatterbot-corpus, BSD) and sentences to repeat (WordNet examples that the open part
of the corpus does not use).
"""

import pathlib
import random
import re

from mdmspeech.data.storage.splits import words_of
from mdmspeech.data.texts.family import Family, Question
from mdmspeech.data.texts.open_sentences import MARKED, open_sentences
from mdmspeech.errors import UserError
from mdmspeech.text.normalise import is_speakable_whole, normalise, sentence

TOPICS = (
    "ai", "botprofile", "conversations", "emotion", "food", "gossip", "greetings", "history",
    "literature", "money", "movies", "science", "sports", "trivia",
)  # fmt: skip
LONGEST_QUESTION, LONGEST_ANSWER = 14, 22  # words
# open sentences before this one are spoken as open sentences; later ones are for repeating
REPEAT_FROM = 18_000
REPEATS = 3_000
LONGEST_REPEAT = 10  # words
# Small talk has no facts to reword, so its test questions are typed here: everyday wordings,
# checked by hand not to be in the corpus.
TEST_TALK = (
    ("Hi there, how's your day going?", "It is going well, thank you."),
    ("Good evening to you.", "Good evening! How can I help you?"),
    ("Would you say you are a person or a program?", "I am a computer program."),
    ("Thanks a lot for your help today.", "You're welcome!"),
    (
        "What sort of things do you like to talk about?",
        "I am interested in all kinds of things. We can talk about anything!",
    ),
    ("Do you ever get hungry?", "I'm a computer, I can't eat or drink."),
    ("May I ask you something?", "Of course, please ask."),
    ("It was lovely meeting you.", "It was nice to meet you too."),
    ("I'm feeling rather sad this morning.", "I am sorry to hear that."),
    ("Well then, goodbye for now.", "Goodbye!"),
)


def short_sentences(split: str, first: int = 0) -> list[str]:
    """Open sentences of a split that can be repeated in one breath, from the `first` of all on."""
    return [
        found["text"]
        for found in open_sentences()[first:]
        if found["split"] == split and len(found["text"].split()) <= LONGEST_REPEAT
    ]


def repeat_family() -> Family:
    """ "Repeat after me": the answer is the sentence. Its test sentences are new to every part of
    the corpus.
    """
    spare = [
        s
        for s in open_sentences()[REPEAT_FROM:]
        if len(words_of(s["text"])) <= LONGEST_REPEAT and not s["text"].endswith("?")
    ]
    trained = [{"sentence": s["text"]} for s in spare if s["split"] == "train"]
    tested = [{"sentence": s["text"]} for s in spare if s["split"] == "repeat"]
    return Family(
        "repeat",
        "after",
        "WordNet 3.0 (WordNet licence)",
        [
            "Repeat after me: {sentence}",
            "Please repeat: {sentence}",
            "Say after me: {sentence}",
            "Can you say this? {sentence}",
            "Repeat this sentence: {sentence}",
        ],
        ["Say the following back to me: {sentence}", "Now repeat what I say: {sentence}"],
        ["{sentence}"],
        trained[:REPEATS],
        tested,
        per_fact=1,
        test_count=len(tested),
    )


def small_talk() -> list[Question]:
    """One answer for each question of the small-talk corpus, the shortest it offers, and
    `TEST_TALK` for testing.
    """
    answers: dict[str, list[str]] = {}
    for conversation in _conversations():
        asked, *replies = (clean(str(turn)) for turn in conversation[:2])
        if (
            asked
            and replies
            and replies[0]
            and len(words_of(asked)) <= LONGEST_QUESTION
            and len(words_of(replies[0])) <= LONGEST_ANSWER
        ):
            answers.setdefault(asked, []).append(replies[0])
    test_words = {words_of(q) for q, _ in TEST_TALK}
    rng = random.Random(0)
    found = [
        Question(
            asked,
            max(replies, key=lambda r: (len(words_of(r)) > 2, -len(r))),
            "small talk",
            f"small talk/{n}",
            asked,
            "val" if rng.random() < 0.02 else "train",
        )
        for n, (asked, replies) in enumerate(sorted(answers.items()))
        if words_of(asked) not in test_words
    ]
    return found + [
        Question(q, a, "small talk", f"small talk/test{n}", q, "test")
        for n, (q, a) in enumerate(TEST_TALK)
    ]


def clean(text: str) -> str | None:
    """One turn as a sentence to be said; None when it holds what cannot be read aloud."""
    if MARKED.search(text) or not is_speakable_whole(text):
        return None
    said = sentence(normalise(text))
    said = re.sub(r"\bi\b", "I", re.sub(r"\bi'm\b", "I'm", said))
    return said if re.fullmatch(r"[A-Za-z ,.;:'?!-]+", said) else None


def _conversations() -> list[list[str]]:
    import yaml

    try:
        import chatterbot_corpus
    except ImportError as error:
        raise UserError(
            "the small-talk corpus is missing: pip install chatterbot-corpus"
        ) from error
    folder = pathlib.Path(chatterbot_corpus.__file__).parent / "data" / "english"
    loaded = [
        yaml.safe_load((folder / f"{topic}.yml").read_text(encoding="utf-8")) for topic in TOPICS
    ]
    return [
        turns
        for topic in loaded
        for turns in topic["conversations"]
        if isinstance(turns, list) and len(turns) >= 2
    ]
