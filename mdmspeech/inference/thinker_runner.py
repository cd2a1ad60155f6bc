"""The Thinker at work: one fixed chat prefix, read once; questions as text or vectors; answers
token by token, or many in a batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding.sampling import GREEDY, sample
from mdmspeech.errors import UserError
from mdmspeech.inference.answer_reader import DRAFTS, AnswerReader
from mdmspeech.models import generation
from mdmspeech.models.prepared_thinker import PreparedThinker
from mdmspeech.models.staged_thinker import staged_extend
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.padding import ROWS, batches, bucket, stack
from mdmspeech.programs import KeptProgram
from mdmspeech.text import prompts
from mdmspeech.text.thinking import CLOSE, OPEN, ThoughtFilter
from mdmspeech.text.tokenizer import BROKEN, ChatTokenizer, StreamDecoder, end_of_turn

# padded lengths of a question with the end of its turn
PROMPTS = (16, 24, 32, 64, 128, 256, 512)
_USUAL = 3  # of these lengths, that of most questions
MAX_NEW = 96  # tokens of an answer
# tokens that a Thinker may write between <think> and </think>, besides; then it is made to answer
MAX_THOUGHT = 256
_LONG_PERIOD = 6  # tokens, see `is_repetition`

Keep = Callable[[Any, Callable[[], dict[str, np.ndarray]]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class TextDelta:
    """One step of an answer: the text it completes (perhaps ""), whether it ended the answer, the
    answer's tokens so far; last: no other follows.

    states: [Emb(y); h] of the tokens that this piece adds, float32 [n, 2D], if they were asked for:
    one; none in a thought; several where text has waited that might have become a tag; at the end
    what is left and the end token, which is an anchor too (docs/method.md, "Fixed anchors"). h is
    the state of the position that has consumed y, as in training. thought: tokens of thoughts so
    far, which are neither text nor states.
    """

    text: str
    stopped: bool
    count: int
    states: np.ndarray | None = None
    last: bool = False
    thought: int = 0


class Answer(Iterator[TextDelta]):
    """An answer being written: iterate for its pieces."""

    def __init__(self, reader: AnswerReader, pieces: Iterator[TextDelta]) -> None:
        self._reader, self._pieces = reader, pieces

    @property
    def state(self) -> generation.ThinkerState:
        """What the Thinker has read: the question, then `read`, and perhaps drafts."""
        return self._reader.state

    @property
    def read(self) -> list[int]:
        """Tokens that it has read since the question, as far as they were given out."""
        return self._reader.ids

    def __next__(self) -> TextDelta:
        return next(self._pieces)


class ThinkerRunner:
    """Answers with one Thinker after one fixed beginning of the conversation; pure of state between
    calls.

    Attributes:
      before: ids of that beginning. prompt: which it is. context: see Args.

    Args:
      config, params, tokenizer: the Thinker, its parameters as trained or prepared
        (`models.prepared_thinker`). prompt: how every conversation begins. max_new:
        longest answer in tokens.
      keep: (what it is, how it is made) -> arrays by name, made or as they were kept: for what the
        Thinker has read of the beginning.
      stop_repetition: end an answer that repeats itself, see `is_repetition`. max_thought: the most
        tokens of thoughts, which are no part of the answer. context: the most tokens of a
        conversation that the Thinker was made for (None: more than any here has).

    Raises:
      UserError: a tokenizer that names no end of an answer; a context that has no room for one.
    """

    def __init__(
        self,
        config: ThinkerConfig,
        params: dict,
        tokenizer: ChatTokenizer,
        prompt: prompts.Prompt,
        max_new: int = MAX_NEW,
        stop_repetition: bool = True,
        max_thought: int = MAX_THOUGHT,
        keep: Keep | None = None,
        context: int | None = None,
    ):
        tokenizer.check_ends()
        self.tokenizer, self.max_new, self.max_thought = tokenizer, max_new, max_thought
        self.prompt = prompt
        self._ended = is_repetition if stop_repetition else lambda ids: False
        self._thinker, params = PreparedThinker.of(config, params)
        self._params = jax.device_put(params)
        # that of the weights is that of the computation and of the cache
        self._dtype = jax.tree.leaves(self._params)[0].dtype
        before, after = prompts.around_question(tokenizer, prompt)
        self.before, self._after = tuple(before), np.array(after, np.int32)
        self.context = context
        if context is not None and len(before) + PROMPTS[0] + max_new > context:
            raise UserError(
                f"this Thinker was made for {context} tokens, the beginning of a conversation, a "
                f"short question and its answer need {len(before) + PROMPTS[0] + max_new}; take "
                "one with a longer context"
            )
        self._opened, self._closing = (
            tokenizer.opens_thought(after),
            np.array(tokenizer.closing(after), np.int32),
        )
        self._thought_end = tokenizer.thought_end()
        program = partial(KeptProgram, "Thinker", about=config)
        self._extend = staged_extend(self._thinker)
        self._advance = program("advance", self._read_token, donate=("state",))
        self._verify = program("verify", self._read_drafts, donate=("state",))
        self._best = program("best", sample)
        self._generate = program(
            "generate",
            partial(generation.generate, self._thinker),
            static=("stop_ids", "max_new", "sampling"),
        )
        self._fit = program(
            "fit",
            generation.fit_state,
            static=("batch", "cache_length"),
        )
        self._embed = program("embed", self._embedded_ids)
        self._prefix, self._prefix_length = self._read_prefix(before, keep), len(before)

    @property
    def params(self) -> dict[str, Any]:
        """Prepared, on the device."""
        return self._params

    @property
    def width(self) -> int:
        """Of the Thinker's states."""
        return self._thinker.config.dim

    @functools.cached_property
    def _end(self) -> int:
        return end_of_turn(self.tokenizer)

    def question(
        self, text: str | None = None, vectors: np.ndarray | None = None, answered: bool = False
    ) -> np.ndarray:
        """What stands between the fixed prefix and the answer: the question's vectors (of typed or
        heard text, or given) and the end of its turn.

        answered: the answer is given and follows at once, without a thought even if the chat
          template opens one.
        """
        ids = (
            np.zeros(0, np.int32)
            if text is None
            else np.array(self.tokenizer.encode(text), np.int32)
        )
        parts = [] if vectors is None else [np.asarray(vectors, np.float32)]
        after = np.concatenate([self._after, self._closing]) if answered else self._after
        embedded = self.embedded(np.concatenate([ids, after]))
        whole = np.concatenate([*parts, embedded])
        most = PROMPTS[-1]
        if self.context is not None:
            most = min(most, self.context - len(self.before) - self.max_new)
        if len(whole) > most:
            raise UserError(
                f"the question has {len(whole)} tokens, the limit is {most}; ask something shorter"
            )
        return whole

    def read(self, questions: Sequence[np.ndarray]) -> generation.ThinkerState:
        """Questions [N, D], one a row -> the state before their answers (rows padded to one of a
        few batch sizes).
        """
        width, count = bucket(max(len(q) for q in questions), PROMPTS), bucket(len(questions), ROWS)
        # Rows that only fill the batch repeat the last question, so that they end when it does.
        vectors, valid = stack(
            [*questions, *[questions[-1]] * (count - len(questions))], width, count
        )
        state = self._fit(self._prefix, batch=count, cache_length=self._room(width))
        x_BTD = vectors.astype(self._dtype)
        _, state = self._extend(
            params=self._params, state=state, x_BTD=x_BTD, new_B=valid.sum(axis=1).astype(np.int32)
        )
        return jax.block_until_ready(state)

    def answer(
        self, state: generation.ThinkerState, states: bool = False, context: Sequence[int] = ()
    ) -> Answer:
        """The answer of a one-row state, greedily, token by token. The state is used up.

        states: with what fixed anchors read of each token. context: ids of what was asked, as far
          as it is text: what the answer repeats of it comes several tokens at once. It does not
          change the answer.

        A thought (`<think>` to `</think>`) comes as pieces without text and states and is no part
        of the answer's `max_new` tokens; after `max_thought` tokens it is closed, and the answer
        follows.
        """
        reader = AnswerReader(
            partial(self._advance, self._params),
            partial(self._verify, self._params),
            self._best,
            state,
            context,
            self.tokenizer.stop_ids,
            states,
        )
        return Answer(reader, self._write(reader, states))

    def _write(self, reader: AnswerReader, states: bool) -> Iterator[TextDelta]:
        stream, thoughts = self.tokenizer.stream(), ThoughtFilter(self._opened)
        answer: list[int] = []  # indices of `ids` that are the answer's, the others are thoughts
        ids, begin = reader.ids, int(reader.state.lengths_B[0])
        forced: list[int] = []
        room, stopped, text = self.max_new, False, ""
        new: list[int] = []
        while len(answer) < self.max_new and len(ids) < room:
            if thoughts.inside and room == self.max_new:
                room += self.max_thought + len(self._thought_end)
                if begin + room > generation.columns(reader.state):
                    more = generation.columns(reader.state) + room - self.max_new
                    reader.state = self._fit(reader.state, batch=1, cache_length=_whole(more))
            if thoughts.inside and not forced and len(ids) - len(answer) >= self.max_thought:
                forced = list(self._thought_end)
            token = forced.pop(0) if forced else reader.best()
            if stopped := token in self.tokenizer.stop_ids:
                break
            # runs on while the caller has the text
            reader.take(token, room - len(ids) - 1)
            text, new = thoughts.push(self._said(stream, token), len(ids) - 1)
            answer += new
            if stopped := bool(new) and self._ended([ids[i] for i in answer]):
                break
            yield TextDelta(
                text, False, len(answer), self._rows(reader, new), thought=len(ids) - len(answer)
            )
            text, new = "", []
        tail, left = thoughts.finish(stream.flush())
        answer += left
        thought, end = len(ids) - len(answer), list[int]()
        if states:
            reader.take(self._end)
            end = [len(ids) - 1]
        read = self._rows(reader, [*new, *left, *end])
        yield TextDelta(text + tail, stopped, len(answer), read, last=True, thought=thought)

    def begin(self, columns: int) -> generation.ThinkerState:
        """The state after the fixed beginning, one row, with room for `columns` positions."""
        return self._fit(self._prefix, batch=1, cache_length=columns)

    def extend(
        self, state: generation.ThinkerState, vectors: np.ndarray
    ) -> generation.ThinkerState:
        """A one-row state that has read input vectors [N, D] besides, N at most `PROMPTS[-1]`. The
        state is used up.
        """
        # a cache is not written more widely than it is
        width = min(bucket(len(vectors), PROMPTS), generation.columns(state))
        padded, _ = stack([vectors], width, 1)
        _, state = self._extend(
            params=self._params,
            state=state,
            x_BTD=padded.astype(self._dtype),
            new_B=np.array([len(vectors)], np.int32),
        )
        return state

    def embedded(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Input vectors of token ids, float32 [N, D]; few lengths are compiled."""
        most = PROMPTS[-1]
        width = bucket(len(ids), PROMPTS) if len(ids) <= most else -(-len(ids) // most) * most
        padded, _ = stack([np.array(ids, np.int32)], width, 1)
        return self._embedded(padded[0])[: len(ids)]

    def hidden_states_of(self, texts: Sequence[str]) -> list[np.ndarray]:
        """[Emb(y); h] of the tokens of answers that are given, the end token included, float32
        [N, 2D] each: as in training on texts that answer no question.

        Raises:
          UserError: a text that is too long to be read in one go.
        """
        ids = [np.array([*self.tokenizer.encode(text), self._end], np.int32) for text in texts]
        fixed = len(self._after) + len(self._closing)
        # a text stands in the request and in the answer
        longest, most = max(map(len, ids)), (PROMPTS[-1] - fixed) // 2 - 16
        if longest > most:
            raise UserError(
                f"a text of {longest} tokens cannot be said in one go, {most} are "
                "the most; give it in parts"
            )
        embedded = [self.embedded(row) for row in ids]
        asked = [self.question(prompts.REPEAT.format(text), answered=True) for text in texts]
        wholes = [np.concatenate(pair) for pair in zip(asked, embedded, strict=True)]
        found: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for rows, width, size in batches([len(whole) for whole in wholes], PROMPTS):
            vectors, valid = stack(
                [*(wholes[i] for i in rows), *[wholes[rows[-1]]] * (size - len(rows))], width, size
            )
            state = self._fit(self._prefix, batch=size, cache_length=self._room(width))
            x_BTD, new_B = vectors.astype(self._dtype), valid.sum(axis=1).astype(np.int32)
            states_BTD, _ = self._extend(params=self._params, state=state, x_BTD=x_BTD, new_B=new_B)
            hidden_BTD = np.asarray(states_BTD, np.float32)
            for b, i in enumerate(rows):
                found[i] = np.concatenate(
                    [embedded[i], hidden_BTD[b, len(asked[i]) : len(wholes[i])]], axis=1
                )
        return found

    def answer_many(self, questions: Sequence[np.ndarray]) -> list[str]:
        """Whole greedy answers, in batches; those with thoughts one by one, as `answer` tells them
        apart.
        """
        answers = [""] * len(questions)
        for rows, _, _ in batches([len(q) for q in questions], PROMPTS):
            state = self.read([questions[i] for i in rows])
            keys = jax.vmap(jax.random.key)(jnp.zeros(len(state.lengths_B), jnp.uint32))
            out = self._generate(
                self._params, state, keys, stop_ids=self.tokenizer.stop_ids, max_new=self.max_new,
                sampling=GREEDY
            )  # fmt: skip
            tokens, lengths, stopped = (
                np.asarray(x) for x in (out.tokens_BN, out.lengths_B, out.stopped_B)
            )
            for b, i in enumerate(rows):
                ids = tokens[b, : lengths[b] - int(stopped[b])].tolist()
                if self._opened or self._has_thought(ids):
                    answers[i] = "".join(
                        piece.text for piece in self.answer(self.read([questions[i]]))
                    ).strip()
                    continue
                end = next((n for n in range(1, len(ids) + 1) if self._ended(ids[:n])), len(ids))
                answers[i] = self.tokenizer.decode(ids[:end]).rstrip(BROKEN).strip()
        return answers

    def warm_up(self, *, all: bool = False) -> None:
        """Compiles what a question of usual length needs; all: what one of any length needs."""
        rooms = set()
        for width in PROMPTS if all else PROMPTS[:_USUAL]:
            state = self.read([self.embedded([0] * width)])
            if (room := generation.columns(state)) not in rooms:
                rooms.add(room)
                self.rehearse(state)

    def rehearse(self, state: generation.ThinkerState) -> None:
        """Compiles what writing from such a state needs, with drafts and without. It is used up."""
        answer = self.answer(state)
        next(answer)
        self._verify(self._params, answer.state, np.zeros(DRAFTS + 1, np.int32))

    def _said(self, stream: StreamDecoder, token_id: int) -> str:
        """The text that a token completes; tags of thoughts also where they are special tokens,
        which are no text otherwise.
        """
        text, tag = stream.push(token_id), self.tokenizer.thought_tags.get(token_id, "")
        return text if tag in text else text + tag

    def _has_thought(self, ids: Sequence[int]) -> bool:
        text = self.tokenizer.decode(ids)
        return any(tag in text for tag in (OPEN, CLOSE)) or any(
            i in self.tokenizer.thought_tags for i in ids
        )

    @staticmethod
    def _rows(reader: AnswerReader, indices: Sequence[int]) -> np.ndarray | None:
        """What was read of some tokens, [n, 2D]; None if nothing is to be handed on."""
        rows = reader.reads() if indices else []
        return np.concatenate([rows[i] for i in indices]) if rows else None

    def _embedded(self, ids: np.ndarray) -> np.ndarray:
        """Input vectors of token ids, float32 [N, D]."""
        return np.asarray(self._embed(self._params, ids[None]), np.float32)[0]

    def _read_token(self, params, state, token_B):
        embedded_BD, hidden_BD, state = generation.read_token(self._thinker, params, state, token_B)
        return jnp.concatenate([embedded_BD, hidden_BD], axis=-1).astype(jnp.float32), state

    def _read_drafts(self, params, state, ids_T):
        count, *read, state = generation.verify(self._thinker, params, state, ids_T)
        return count, jnp.concatenate(read, axis=-1).astype(jnp.float32), state

    def _embedded_ids(self, params, ids):
        return self._thinker.apply({"params": params}, ids, method=Thinker.embed)

    def _read_prefix(self, ids: Sequence[int], keep: Keep | None) -> generation.ThinkerState:
        empty = jax.eval_shape(
            partial(generation.empty_state, self._thinker, 1, len(ids), self._dtype)
        )

        def read() -> dict[str, np.ndarray]:
            embedded = self._embed(self._params, np.array(ids, np.int32)[None])
            new_B = np.array([len(ids)], np.int32)
            state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), empty)
            _, state = self._extend(params=self._params, state=state, x_BTD=embedded, new_B=new_B)
            return {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}

        found = keep((self._thinker.config, tuple(ids)), read) if keep else read()
        leaves = [found[str(i)] for i in range(len(jax.tree.leaves(empty)))]
        return jax.device_put(jax.tree.unflatten(jax.tree.structure(empty), leaves))

    def _room(self, width: int) -> int:
        """Cache columns for the prefix, a question and its answer; the same for usual questions."""
        width = max(width, PROMPTS[_USUAL - 1])
        return _whole(self._prefix_length + width + self.max_new)


def _whole(columns: int) -> int:
    """Cache columns in whole 64s, so that few sizes are compiled."""
    return -(-columns // 64) * 64


def is_repetition(ids: Sequence[int]) -> bool:
    """Whether a text ends in its own repetition: two equal stretches of 6 tokens or more, or four
    equal shorter ones. A small Thinker that has begun to repeat itself does not stop; everybody
    else has noticed by then.
    """
    for period in range(1, len(ids) // 2 + 1):
        copies = 2 if period >= _LONG_PERIOD else 4
        tail = list(ids[-period * copies :])
        if len(tail) == period * copies and tail == tail[-period:] * copies:
            return True
    return False
