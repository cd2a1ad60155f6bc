"""Packed batches of written conversations, for supervised fine-tuning of the Thinker.

A row begins with the prompt, once, and holds several conversations behind it. Each sees the prompt
and itself (`models.thinker.behind_prompt`), so it is computed as if it stood alone, and the prompt costs a row
what it costs a conversation. B batch, L positions, A supervised positions of a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mdmspeech.data.packing.plan import Batch, Draw, PackedBatches, PackPlan, read_draws
from mdmspeech.data.packing.sharding import Shard
from mdmspeech.data.pipelines.conversations import Conversations

PROMPT = 1  # segment of the prompt; conversations have the numbers after it


def chat_batches(
    sources: Mapping[str, Sequence[Mapping[str, Any]]],
    chat: Conversations,
    *,
    batch: int,
    length: int,
    answers: int,
    seed: int,
    weights: Mapping[str, float] | None = None,
    informal: float = 0.0,
    following: float = 0.0,
    shard: Shard = (0, 1),
    threads: int = 1,
) -> PackedBatches:
    """Endless batches: id str [B]; ids, segment (0 = padding, 1 = prompt), position int32 [B, L]; at,
    target int32 and weight float32 [B, A].

    Position `at[a]` is to predict `target[a]` where `weight[a]` is 1: answers and the ends of the
    assistant's turns.

    Args:
      sources: name -> records with `turns`, pairs (user, assistant), see `data.texts.chats`.
      batch: rows of all hosts together. length, answers: L and A.
      weights: see `mixing.Mixture`.
      informal: share of the conversations whose user writes without capitals and a mark at the end.
        following: share of the conversations that go on with the one before them in the row, as a
        second question in a session does.

    Raises:
      UserError: what `PackPlan` refuses.
    """
    plan = PackPlan(
        {name: _sizes(records, chat) for name, records in sources.items()},
        {"ids": length - len(chat.before), "answers": answers},
        batch=batch,
        seed=seed,
        weights=weights,
        shard=shard,
    )

    def make(rows: list[list[Draw]]) -> Batch:
        out = _empty(len(rows), length, answers)
        names = []
        for b, (draws, records) in enumerate(zip(rows, read_draws(sources, rows), strict=True)):
            names.append(",".join(str(record["id"]) for record in records))
            row = _SupervisedRow(out, b, chat)
            for draw, record in zip(draws, records, strict=True):
                rng = np.random.default_rng((seed, draw.position, 3))
                informally, follows = rng.random() < informal, rng.random() < following
                row.add(_turns(record["turns"], informally), follows)
        return {"id": np.array(names), **out}

    return PackedBatches(plan, make, threads)


def _turns(turns: Sequence[tuple[str, str]], informal: bool) -> Sequence[tuple[str, str]]:
    if not informal:
        return turns
    return [(asked.lower().rstrip(" ?.!"), answered) for asked, answered in turns]


def _sizes(records: Sequence[Mapping[str, Any]], chat: Conversations) -> np.ndarray:
    """(ids, supervised ids) that each record takes of a row, int32 [N, 2]: at most, wherever it
    stands.
    """
    between = len(chat.next_turn)
    found = []
    for record in records:
        answered = sum(len(chat.answer(answer)) for _, answer in record["turns"])
        both = zip(record["turns"], _turns(record["turns"], informal=True), strict=True)
        asked = sum(max(len(chat.encode(text)) for text, _ in ways) for ways in both)
        around = len(record["turns"]) * (between + len(chat.after))
        found.append((asked + around + answered, answered))
    return np.array(found, np.int32).reshape(-1, 2)


def _empty(rows: int, length: int, answers: int) -> Batch:
    out = {name: np.zeros((rows, length), np.int32) for name in ("ids", "segment", "position")}
    out |= {name: np.zeros((rows, answers), np.int32) for name in ("at", "target")}
    return out | {"weight": np.zeros((rows, answers), np.float32)}


class PackedRow:
    """One row, filled from the left: the prompt, then conversations that each go on from it.

    Args:
      out: ids, segment and position, int32 [B, L] of zeros. number: of the row. prompt: its ids.
    """

    def __init__(self, out: Batch, number: int, prompt: np.ndarray):
        self._out, self._b, self._prompt = out, number, prompt
        self.used = self._position = 0
        self.segment = PROMPT
        self.write(prompt)

    @property
    def left(self) -> int:
        """Places that are free."""
        return self._out["ids"].shape[1] - self.used

    def begin(self) -> None:
        """What is written next belongs to another conversation."""
        self.segment += 1
        self._position = len(self._prompt)

    def write(self, ids: np.ndarray) -> None:
        """Behind what is there."""
        place = (self._b, slice(self.used, self.used + len(ids)))
        self._out["ids"][place], self._out["segment"][place] = ids, self.segment
        self._out["position"][place] = np.arange(self._position, self._position + len(ids))
        self.used += len(ids)
        self._position += len(ids)


class _SupervisedRow(PackedRow):
    """One whose answers are supervised."""

    def __init__(self, out: Batch, number: int, chat: Conversations):
        super().__init__(out, number, chat.before)
        self._chat, self._answers = chat, 0

    def add(self, turns: Sequence[tuple[str, str]], follows: bool) -> None:
        """Behind what is there: a conversation of its own, or further turns of the last one."""
        chat = self._chat
        going_on = follows and self.segment > PROMPT
        if not going_on:
            self.begin()
        for n, (asked, answered) in enumerate(turns):
            if going_on or n:
                self.write(chat.next_turn)
            self.write(chat.encode(asked))
            self.write(chat.after)
            answer = chat.answer(answered)
            self._supervise(answer)
            self.write(answer)

    def _supervise(self, answer: np.ndarray) -> None:
        """The ids that come next are to be predicted, each from the position before it."""
        place = (self._b, slice(self._answers, self._answers + len(answer)))
        self._out["at"][place] = np.arange(self.used - 1, self.used - 1 + len(answer))
        self._out["target"][place], self._out["weight"][place] = answer, 1.0
        self._answers += len(answer)
