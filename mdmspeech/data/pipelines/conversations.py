"""What the Thinker reads in training: the chat prompt around a question, and the answer with the
end of its turn, put together exactly as when it answers.

`inference.thinker_runner` joins the same three parts (fixed beginning, question, end of the user's
turn), each tokenised alone; so does this. The ids around the question come, here and there, from
`text.prompts.around_question`.
"""

import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.text import prompts
from mdmspeech.text.prompts import Prompt
from mdmspeech.text.tokenizer import SPEECH, Message, end_of_turn


class Tokenizer(Protocol):
    """What is needed of `text.tokenizer.ChatTokenizer`."""

    stop_ids: tuple[int, ...]
    fingerprint: str

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        ...

    def speech_prompt(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Ids before and after the place of the speech."""
        ...

    def speech_prompts(self, messages: Sequence[Message]) -> list[list[int]]:
        """Ids before, between and after the places of the speech."""
        ...

    def closing(self, ids: Sequence[int]) -> list[int]:
        """What closes a thought that this end of a prompt has opened; [] if it has opened none."""
        ...


class Conversations:
    """Ids of new conversations with one question and one answer.

    Attributes:
      prompt: how they begin. before, after: int32, what stands before every question, and between
        it and the answer. end: id of the end of the assistant's turn.

    Args:
      prompt: how every conversation begins, a `Prompt` or an experiment's `prompt` section; what is
        trained after it is to be used after it.

    Raises:
      UserError: a section that is no prompt, or one that the chat template refuses.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Prompt | Mapping[str, Any], cache: int = 2**16
    ):
        self.prompt = prompt if isinstance(prompt, Prompt) else Prompt.of(prompt, "config.prompt")
        self._tokenizer = tokenizer
        before, after = prompts.around_question(tokenizer, self.prompt)
        after += tokenizer.closing(after)  # answers of a corpus have no thoughts
        self.before, self.after = np.array(before, np.int32), np.array(after, np.int32)
        self.end = end_of_turn(tokenizer)
        self._encode = functools.lru_cache(cache)(
            lambda text: np.array(tokenizer.encode(text), np.int32)
        )

    @functools.cached_property
    def next_turn(self) -> np.ndarray:
        """Ids between the end of an answer and the next question, int32. UserError: the chat template
        does not end an assistant's turn with its end.
        """
        messages = [{"role": role, "content": SPEECH} for role in ("user", "assistant", "user")]
        first = [{"role": "system", "content": self.prompt.system}]
        _, _, between, _ = self._tokenizer.speech_prompts(first + messages)
        if between[:1] != [self.end]:
            raise UserError(
                "this Thinker's chat template has something between an answer and the end of its "
                "turn, so conversations of several turns cannot be put together: set "
                "data.following=0 and give conversations of one turn"
            )
        return np.array(between[1:], np.int32)

    @property
    def fingerprint(self) -> str:
        """Digest of what lengths of conversations follow from."""
        around = [*self.before.tolist(), -1, *self.after.tolist(), -1, self.end]
        return f"{self._tokenizer.fingerprint} {zlib.crc32(repr(around).encode()):08x}"

    def answer(self, text: str) -> np.ndarray:
        """Ids of the assistant's turn, its end included, int32."""
        return np.append(self._encode(text), np.int32(self.end))

    def encode(self, text: str) -> np.ndarray:
        """Ids of plain text, int32."""
        return self._encode(text)

    def question(self, text: str, answer: str) -> np.ndarray:
        """Ids of the typed question; without one, of the request to say `answer`."""
        return self._encode(text or prompts.REPEAT.format(answer))

    def typed(self, question: str, answer: str) -> tuple[np.ndarray, int]:
        """(ids of the whole conversation int32 [N], index of the answer's first id)."""
        asked = np.concatenate([self.before, self.question(question, answer), self.after])
        return np.concatenate([asked, self.answer(answer)]), len(asked)

    def typed_length(self, question: str, answer: str) -> int:
        """N of `typed`."""
        return (
            len(self.before)
            + len(self.question(question, answer))
            + len(self.after)
            + len(self.answer(answer))
        )
