"""Conversations that the compact Thinker is fine-tuned on, beside the corpus' own questions.

Command:  python -m experiments.thinker_chats everyday
          python -m experiments.thinker_chats unknown
          python -m experiments.thinker_chats repeat
          python -m experiments.thinker_chats general
          python -m experiments.thinker_chats heard
          (to chats/KIND.jsonl in the corpus folder; -o FILE: elsewhere; --model: the release that answers or hears)
Needs:    for `heard`, spoken questions: mdmspeech data --parts questions

everyday, unknown, repeat: written by hand or from templates, see `experiments.written_chats`.
general: prompts about words and everyday things, answered by the Thinker as it is before, with all
  examples of its prompt: what it could say it should still say, and without the examples (context
  distillation, Askell et al. 2021, arXiv 2112.00861).
heard: training questions as the shipped ear writes them down, errors included, with the corpus'
  answers.
Lines are {"messages": [...], "family": ...}; `--count` makes fewer (of general and heard also more).
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from experiments import written_chats
from experiments.written_chats import as_chat
from mdmspeech.data.storage.record_store import data_root
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, written_whole

GENERAL, HEARD = 800, 2_600  # asked of a release, unless --count says another number
_ABOUT = (
    "Tell me about {}.", "What can you tell me about {}?", "What is interesting about {}?",
    "Why do people like {}?", "Give me a tip about {}.", "Say something nice about {}.",
    "What should I know about {}?", "Can you explain {} to me?", "What do you think of {}?",
    "Where can I find {}?", "How does one begin with {}?", "What is {} good for?",
)  # fmt: skip
_SUBJECTS = (
    "cooking", "music", "the moon", "gardens", "winter", "summer", "reading", "football", "chess",
    "coffee", "tea", "bread", "the sea", "mountains", "dogs", "cats", "horses", "birds", "sleep",
    "exercise", "walking", "swimming", "painting", "history", "science", "mathematics", "computers",
    "the weather", "rain", "snow", "trees", "flowers", "travelling", "trains", "airplanes", "cars",
    "bicycles", "cities", "villages", "schools", "friends", "families", "birthdays", "holidays",
    "movies", "stories", "poems", "languages", "dreams", "health", "water", "the sun", "stars",
    "space", "robots", "the internet", "telephones", "photography", "dancing", "singing", "money",
    "work", "time", "happiness", "fruit", "vegetables", "cheese", "chocolate", "breakfast", "dinner",
    "fishing", "camping", "rivers", "lakes", "forests", "deserts", "islands", "bridges", "houses",
    "furniture", "clothes", "shoes", "hats", "games", "puzzles", "jokes", "news", "art", "museums",
    "libraries", "doctors", "teachers", "farmers", "kings", "dinosaurs", "volcanoes", "electricity",
    "magnets", "energy", "recycling", "bees", "butterflies", "whales", "elephants",
)  # fmt: skip
_BATCH = 16
_WORDS = range(2, 31)  # that an answer may have


def general(count: int | None, release: str) -> Iterator[dict]:
    """Prompts with the Thinker's own answers, without those that repeat themselves or do not end."""
    import mdmspeech

    prompts = [about.format(subject) for about in _ABOUT for subject in _SUBJECTS]
    random.Random(0).shuffle(prompts)
    model = mdmspeech.load(release)
    count = count or GENERAL
    for first in tqdm(range(0, min(count, len(prompts)), _BATCH), "answers", unit="batch"):
        asked = prompts[first : min(first + _BATCH, count)]
        for prompt, answer in zip(asked, model.answer_many(asked), strict=True):
            if len(answer.split()) in _WORDS and answer.rstrip().endswith((".", "!", "?")):
                yield as_chat(prompt, answer, "general")


def heard(count: int | None, release: str) -> Iterator[dict]:
    """Training questions as they were heard, where anything was, with their answers."""
    import mdmspeech
    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.texts import chats, questions
    from mdmspeech.evaluation.testset import wave_of

    families = questions.families()
    asked = chats.question_chats(questions.questions(), families, "train").values()
    seen = {chat["turns"][0] for chat in itertools.chain(*asked)}  # without what is held out
    source = corpus.questions(None, "train", parts=("questions",))
    model = mdmspeech.load(release)
    total = min(count or HEARD, len(source))
    for first in tqdm(range(0, total, _BATCH), "questions heard", unit="batch"):
        records = [source[i] for i in range(first, min(first + _BATCH, total))]
        waves = [(wave_of(record), 16_000) for record in records]
        for record, text in zip(records, model.transcripts(waves, unheard=""), strict=True):
            if text and (record["text"], record["answer"]) in seen:
                yield as_chat(text, record["answer"], record["family"])


_MADE: dict[str, Callable[[int | None, str], Iterator[dict]]] = {
    "everyday": lambda count, _: itertools.islice(written_chats.everyday(), count),
    "unknown": lambda count, _: itertools.islice(written_chats.unknown(), count),
    "repeat": lambda count, _: itertools.islice(written_chats.repeat(), count),
    "general": general,
    "heard": heard,
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=_MADE)
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="a JSONL file")
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="make at most so many (general: 800, heard: 2,600, the others all)",
    )
    parser.add_argument("--model", default="compact", help="of `general` and `heard`: the release")
    args = parser.parse_args()
    if args.count is not None and args.count < 1:
        raise UserError(f"--count {args.count}: give 1 or more")
    out = args.out or data_root() / "chats" / f"{args.kind}.jsonl"
    check_writable(str(out.parent), "name another file with -o", folder=True)
    made = _MADE[args.kind](args.count, args.model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out) as part, open(part, "w", encoding="utf-8") as file:
        number = 0
        for chat in made:
            number += 1
            file.write(json.dumps(chat, ensure_ascii=False) + "\n")
    print(f"{out}: {number} conversations")


if __name__ == "__main__":
    main()
