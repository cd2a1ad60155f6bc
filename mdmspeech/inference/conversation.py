"""A conversation of many turns with one Thinker: what it has read stays in its K/V cache, and each
turn reads what is new.

The chat as the template writes it is the truth, the cache only a help: before every answer both are
compared, the cache is cut back to where they part, and the rest is read. So an answer that was cut
off, a thought that is no longer shown, or a question that is taken back need no care of their own.
Cutting back is free: columns behind the length are masked and written over.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.thinker_runner import PROMPTS, Answer, TextDelta, ThinkerRunner
from mdmspeech.models import generation
from mdmspeech.text.prompts import Prompt, conversation
from mdmspeech.text.tokenizer import SPEECH, Message

CONTEXT = 1024  # columns of the cache: with the shipped beginning and answers, 20 to 30 turns

# of a question: a text, or input vectors [N, D] of what was heard
Part = str | np.ndarray
# of a position in the cache: the id of a token, or (number of a question's vectors, row)
_Key = int | tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One turn of both: what was asked, with a number for each part, and what was answered.
    response: the caller's number of the answer.
    """

    asked: tuple[tuple[int, Part], ...]
    answered: str
    response: int = 0


class Conversation:
    """Ask, iterate over the answer, then `settle` what is remembered of it, or `discard` both.

    Attributes:
      turns: the exchanges that are remembered, oldest first. asked: what was asked last.
      dropped: how many turns were forgotten because the context was full. read: of the last answer,
        tokens before it as (texts, vectors), and how many of both were read before.

    Args:
      runner: the Thinker. context: columns of its cache, all of which are taken at once; no more
        than it was made for.
    """

    def __init__(self, runner: ThinkerRunner, context: int = CONTEXT) -> None:
        self.turns: list[Exchange] = []
        self.dropped = 0
        self.read = (0, 0, 0)
        self._begin, self._questions = 0, dict[int, int]()
        self._runner, self._columns, self._cure = runner, -(-context // 64) * 64, ""
        if runner.context is None or self._columns < runner.context:
            self._cure = ", or give a larger context"
        else:
            self._columns = runner.context
        self._state: generation.ThinkerState | None = None
        self._keys: list[_Key] = []  # of the positions that the state has read
        self.asked: tuple[tuple[int, Part], ...] = ()
        self._unanswered: tuple[tuple[int, Part], ...] = ()  # asked again with the next question
        self._answer: Answer | None = None
        self._count = 0  # of parts so far
        # what a discarded question leaves behind
        self._mark, self._before = 0, (self.turns, self.dropped)

    def ask(
        self,
        *question: Part,
        states: bool = False,
        instructions: str | None = None,
        numbers: Sequence[int] = (),
    ) -> Iterator[TextDelta]:
        """Reads a question, of one part or several; its answer, see `ThinkerRunner.answer`. One that
        still waits for its `settle` is discarded.

        instructions: the system message (None: the runner's). numbers: the caller's own of the
        parts, for `forget`.

        What there is no room for is forgotten, oldest first: turns, then parts of the question but the
        last.

        UserError: that one alone is more than there is room for; then nothing has changed.
        """
        self.discard()
        parts = (*self._unanswered, *self._numbered(question, numbers))
        asked, turns = parts, list(self.turns)
        prompt = self._runner.prompt
        if instructions is not None:
            prompt = dataclasses.replace(prompt, system=instructions.replace(SPEECH, ""))
        keys = self._wanted(turns, asked, prompt)
        if not self._fits(keys):  # room for some turns to come, too
            while turns and len(keys) > self._columns // 2:
                keys = self._wanted(turns := turns[1:], asked, prompt)
            while not self._fits(keys):
                if len(asked) == 1:
                    told = "" if instructions is None else f", its instructions {self._begin}"
                    raise UserError(
                        f"the question has {len(keys) - self._begin} tokens{told}, more "
                        f"than there is room for in a conversation of {self._columns} with its "
                        f"answer; ask something shorter{self._cure}"
                    )
                keys = self._wanted(turns, asked := asked[1:], prompt)
        self._before = self.turns, self.dropped
        self.dropped += len(self.turns) - len(turns) + len(parts) - len(asked)
        self.turns, self.asked = turns, asked
        said = [key for key in keys[self._begin :] if isinstance(key, int)]
        self._answer = self._runner.answer(self._read(keys), states, said)
        return self._answer

    def settle(self, answer: str, response: int = 0) -> None:
        """The question that was asked last, and this as its answer, are remembered; without words,
        the question goes with the next one. response: the caller's own number of it.
        """
        if self._answer is not None:
            self._take_back(self._answer.read)
            self._unanswered = ()
            self._remember(self.asked, answer, response)

    def insert(
        self, answer: str, *question: Part, numbers: Sequence[int] = (), response: int = 0
    ) -> None:
        """A turn as if it had been asked and answered here. What waits to be settled is discarded."""
        self.discard()
        asked, self._unanswered = (*self._unanswered, *self._numbered(question, numbers)), ()
        self._remember(asked, answer, response)

    def forget(self, question: int | None = None, response: int | None = None) -> None:
        """What the caller's number of a question, or of a response, names was never said. Of an answer
        that is forgotten the question goes with the next one.
        """

        def kept(asked: Sequence[tuple[int, Part]]) -> tuple[tuple[int, Part], ...]:
            return tuple(
                part
                for part in asked
                if question is None or self._questions.get(part[0]) != question
            )

        def without(
            turns: Sequence[Exchange],
        ) -> tuple[list[Exchange], tuple[tuple[int, Part], ...]]:
            left, open_ = list[Exchange](), tuple[tuple[int, Part], ...]()
            for turn in turns:
                asked = (*open_, *kept(turn.asked))
                if response is not None and turn.response == response:
                    open_ = asked
                else:
                    left.append(dataclasses.replace(turn, asked=asked))
                    open_ = ()
            return left, open_

        self._before = without(self._before[0])[0], self._before[1]
        self.turns, last = without(self.turns)
        self._unanswered = (*last, *kept(self._unanswered))
        self.asked = (*last, *kept(self.asked))

    def discard(self) -> None:
        """The question that was asked last was never asked."""
        if self._answer is not None:
            self._take_back([])
            self._keys = self._keys[: self._mark]
            self.turns, self.dropped = self._before

    def amend(self, answer: str, response: int | None = None) -> None:
        """The last answer that is remembered was this. Without words, its question goes with the
        next one. A question that waits to be settled is asked as before. response: only if that is
        the number of it.
        """
        if self.turns and response in (None, self.turns[-1].response):
            *self.turns, last = self.turns
            self._remember(last.asked, answer, last.response)

    def warm_up(self, *, all: bool = False) -> None:
        """Compiles what questions of usual lengths need; all: of any length, with any instructions and
        any number of turns before them.
        """
        room = self._columns - len(self._runner.before) - self._runner.max_new
        widths = [width for width in PROMPTS[:4] if width <= room]
        if all:
            widths = sorted({min(width, self._columns) for width in PROMPTS})
            for length in range(1, self._columns + 1, PROMPTS[-1]):  # read in several goes
                self._runner.embedded([0] * length)
        for number, width in enumerate(widths):
            state = self._runner.begin(self._columns)
            state = self._runner.extend(state, self._runner.embedded([0] * width))
            if number == 0:
                self._runner.rehearse(state)

    def _numbered(
        self, question: Sequence[Part], numbers: Sequence[int]
    ) -> tuple[tuple[int, Part], ...]:
        new = tuple(enumerate(question, self._count + 1))
        self._count += len(new)
        self._questions.update(zip((number for number, _ in new), numbers, strict=False))
        return new

    def _remember(
        self, asked: tuple[tuple[int, Part], ...], answer: str, response: int = 0
    ) -> None:
        if answer := answer.replace(SPEECH, "").strip():
            self.turns = [*self.turns, Exchange(asked, answer, response)]
        else:
            self._unanswered = (*asked, *self._unanswered)

    def _take_back(self, read: Sequence[int]) -> None:
        """The state, out of the answer that used it, with the tokens it has read."""
        assert self._answer is not None
        state, self._answer = self._answer.state, None
        self._keys = [*self._keys, *read]
        if generation.columns(state) != self._columns or state.lengths_B.is_deleted():
            self._state, self._keys = None, []  # grown by a thought, or lost in an error
        else:
            self._state = state

    def _wanted(
        self, turns: Sequence[Exchange], asked: Sequence[tuple[int, Part]], prompt: Prompt
    ) -> list[_Key]:
        """The whole chat up to where the answer begins."""
        messages: list[Message] = list(conversation(SPEECH, prompt)[:-1])
        for turn in turns:
            messages += [
                {"role": "user", "content": SPEECH},
                {"role": "assistant", "content": turn.answered},
            ]
        messages.append({"role": "user", "content": SPEECH})
        first, *after = self._runner.tokenizer.speech_prompts(messages)
        self._begin, keys = len(first), list[_Key](first)
        for parts, ids in zip([*(turn.asked for turn in turns), asked], after, strict=True):
            keys += [*self._keys_of(parts), *ids]
        return keys

    def _keys_of(self, parts: Sequence[tuple[int, Part]]) -> list[_Key]:
        """Of a question; texts that follow each other are one."""
        keys: list[_Key] = []
        for is_text, group in itertools.groupby(parts, lambda part: isinstance(part[1], str)):
            if is_text:
                keys += self._runner.tokenizer.encode(" ".join(str(text) for _, text in group))
            else:
                keys += [(number, row) for number, part in group for row in range(len(part))]
        return keys

    def _shared(self, keys: Sequence[_Key]) -> int:
        """How many positions of the cache can stay; one at least is read for its logits."""
        have = list(self._runner.before) if self._state is None else self._keys
        pairs = zip(keys[:-1], have, strict=False)
        return next(
            (n for n, (key, read) in enumerate(pairs) if key != read), min(len(keys) - 1, len(have))
        )

    def _fits(self, keys: Sequence[_Key]) -> bool:
        """With a thought, the answer and its end."""
        thought = self._runner.max_thought * bool(self._runner.tokenizer.thought_tags)
        return len(keys) + self._runner.max_new + 1 + thought <= self._columns

    def _read(self, keys: list[_Key]) -> generation.ThinkerState:
        """The state before the answer."""
        kept = self._shared(keys)
        state = self._runner.begin(self._columns) if self._state is None else self._state
        # The state is used up now. If reading fails, the next question begins anew.
        self._state, self._keys, self._mark = None, keys, kept
        texts = sum(isinstance(key, int) for key in keys)
        self.read = texts, len(keys) - texts, kept
        state = dataclasses.replace(state, lengths_B=jax.device_put(np.full(1, kept, np.int32)))
        ids = [key if isinstance(key, int) else 0 for key in keys[kept:]]
        vectors = self._runner.embedded(ids).copy()
        parts = dict(self.asked)
        for turn in self.turns:
            parts.update(turn.asked)
        for at, key in enumerate(keys[kept:]):
            if not isinstance(key, int):
                vectors[at] = parts[key[0]][key[1]]
        for at in range(0, len(vectors), PROMPTS[-1]):
            state = self._runner.extend(state, vectors[at : at + PROMPTS[-1]])
        return state
