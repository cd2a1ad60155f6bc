"""What the Thinker reads before every question, so that a 135 M model answers like a voice: one
short sentence, or your own words back. (The compact model's was fine-tuned to do so without the
examples, `experiments/compact_thinker.py`; what follows is of the model as it was published.)

Chosen by measurement on SmolLM2-135M-Instruct (4-bit copy, greedy; 20 capitals, 40 mixed facts, 40
sentences to repeat, none of them in the examples below; right answers / exact repetitions, words an
answer, answers that ended by themselves within 28 tokens):

    prefix                                   tokens  capitals  facts  repeats  words  ended
    this one                                    174     18/20  31/40    39/40    6.2   100%
    the same system message, 2 examples          88     18/20  28/40    36/40    6.5   100%
    the same system message, 7 examples         221     18/20  29/40    38/40    5.9   100%
    ... and with half the facts and repeats (36 tokens allowed):
    the same system message alone                36     16/20   9/20    10/20   10.1    90%
    the model's default system message           24     17/20   9/20    16/20   16.5    75%

The prefix was chosen on these same questions, which were not kept apart from those that are scored
now, and the rows with examples differ by a few items only: expect a little less on new ones. A
further choice belongs on validation questions (split "val"). The examples are read once and their
keys and values kept (`models.generation.fit_state`), so they cost nothing per question.

A `Prompt` belongs to what was trained after it: an adaptor and a Talker that read a Thinker's
states know these as they are behind one beginning of the conversation. So it is stored with the
weights, and training and answering get their ids from one function, `around_question`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mdmspeech.errors import UserError
from mdmspeech.text.tokenizer import SPEECH, Message

SYSTEM = (
    "You are a helpful voice assistant. Answer in one short sentence. If the "
    "user says repeat after me, say exactly the words that follow."
)

EXAMPLES: tuple[tuple[str, str], ...] = (
    ("Repeat after me: The sun is warm today.", "The sun is warm today."),
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Repeat after me: Where did they find the old map?", "Where did they find the old map?"),
    ("What is the opposite of up?", "The opposite of up is down."),
    ("Repeat after me: Tomorrow my sister plays the piano.", "Tomorrow my sister plays the piano."),
)

REPEAT = "Repeat after me: {}"  # the question of a text that answers none


_SHOWN = 90  # characters of a system message in an error


@dataclasses.dataclass(frozen=True)
class Prompt:
    """How every conversation begins: the system message, and example turns (user, assistant)."""

    system: str = SYSTEM
    examples: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str) -> "Prompt":
        """From a config's or a JSON object's "system" and "examples". UserError, which begins with
        `where`, for something else.
        """
        system, examples = given.get("system"), given.get("examples")
        if not isinstance(system, str):
            raise UserError(
                f"{where}: the prompt's system message is {system!r}; give a text, "
                "which may be empty"
            )
        is_turn = lambda turn: (
            isinstance(turn, list | tuple)
            and len(turn) == 2
            and all(isinstance(text, str) for text in turn)
        )
        if not isinstance(examples, list | tuple) or not all(map(is_turn, examples)):
            raise UserError(
                f"{where}: the prompt's examples are {examples!r}; give pairs of "
                "texts (user, assistant), or none"
            )
        return cls(system, tuple((asked, answered) for asked, answered in examples))

    def __str__(self) -> str:
        text = (
            self.system
            if len(self.system) <= _SHOWN
            else f"{self.system[: _SHOWN // 2]} ... {self.system[-_SHOWN // 2 :]}"
        )
        return (
            f"{text!r} and {len(self.examples) or 'no'} "
            f"example{'s' if len(self.examples) != 1 else ''}"
        )

    def unlike(self, other: "Prompt") -> str:
        """In which way the two differ, for people who see both and find them alike."""
        if self.system == other.system:
            return "other examples"
        at = next(
            (
                n
                for n, pair in enumerate(zip(self.system, other.system, strict=False))
                if pair[0] != pair[1]
            ),
            None,
        )
        at = min(len(self.system), len(other.system)) if at is None else at
        return f"system messages that part at character {at + 1}"


FEW_SHOT = Prompt(SYSTEM, EXAMPLES)  # of SmolLM2 as it was published, which needs the examples
PLAIN = Prompt(
    SYSTEM, ()
)  # no examples: of the compact model, whose Thinker was fine-tuned, and of larger ones


def conversation(question: str, prompt: Prompt) -> list[dict[str, str]]:
    """Messages of a new conversation that ends with the user's `question` (or `tokenizer.SPEECH`)."""
    messages = [{"role": "system", "content": prompt.system}]
    for asked, answered in prompt.examples:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


class _Tokenizer(Protocol):
    def speech_prompt(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]: ...


def around_question(tokenizer: _Tokenizer, prompt: Prompt) -> tuple[list[int], list[int]]:
    """Ids that stand before every question, and between it and the answer. UserError: the chat
    template takes no such conversation.
    """
    return tokenizer.speech_prompt(conversation(SPEECH, prompt))
