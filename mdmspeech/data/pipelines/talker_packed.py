"""Packed batches for the Talker: whole utterances side by side in one row, each its own segment, so
that none sees another and hardly a position is padding.

An utterance starts at a multiple of the block length; at least one EOS follows it and EOS fills its
last block, so every segment teaches an end. Beside the tokens stands what the anchors read: symbols
with durations (paced anchors), or the Thinker's conversation and, for each speech position, which
of its ids is the anchor there (docs/method.md, "Fixed anchors"), or the text's ids alone (a
prefix).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mdmspeech.data.datasets.lengths import lengths
from mdmspeech.data.packing.plan import Batch, Draw, PackedBatches, PackPlan, read_draws
from mdmspeech.data.packing.position import content_of
from mdmspeech.data.packing.sharding import Shard
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.data.pipelines.talker_joined import counts_of, durations
from mdmspeech.errors import UserError
from mdmspeech.speech_format import ANCHORS_PER_BLOCK, NO_ANCHOR, NULL_ANCHOR, START


class _Anchors(Protocol):
    """What one kind of anchors adds to a row. capacities: field -> positions."""

    capacities: Mapping[str, int]

    def sizes(self, source) -> np.ndarray:
        """Int [N], positions each record of the source takes."""
        ...

    def start(self, rows: int, length: int) -> Batch:
        """Empty arrays."""
        ...

    def add(
        self, out: Batch, row: int, record: dict, segment: int, first: int, size: int, filled: int
    ) -> int:
        """Writes one record whose tokens stand at [first, first + size) of its row; returns how
        many positions it took.
        """
        ...

    def about(self, name: str, source, tokens: np.ndarray) -> str:
        """What a user should know about records of so many speech positions, or ""."""
        ...


class PacedText:
    """symbols int32, symbols_segment int32, durations float32 (speech tokens), all [B, M]."""

    def __init__(self, symbols: int, token_seconds: float):
        self.capacities, self._token_seconds = {"symbols": symbols}, token_seconds

    def sizes(self, source) -> np.ndarray:
        """Symbols of each record. UserError for one without."""
        counts = counts_of(source, "symbols")
        if not counts.all():
            name = source[int(np.flatnonzero(counts == 0)[0])].get("id", "")
            raise UserError(
                f"record {name!r} has no symbols with their durations, which paced "
                "anchors need; use fixed anchors or align it"
            )
        return counts

    def start(self, rows: int, length: int) -> Batch:
        """Empty arrays."""
        shape = (rows, self.capacities["symbols"])
        return {
            "symbols": np.zeros(shape, np.int32),
            "symbols_segment": np.zeros(shape, np.int32),
            "durations": np.zeros(shape, np.float32),
        }

    def add(
        self, out: Batch, row: int, record: dict, segment: int, first: int, size: int, filled: int
    ) -> int:
        """See `_Anchors`."""
        count = len(record["symbols"])
        place = (row, slice(filled, filled + count))
        out["symbols"][place], out["symbols_segment"][place] = record["symbols"], segment
        out["durations"][place] = durations(record, self._token_seconds)
        return count

    def about(self, name: str, source, tokens: np.ndarray) -> str:
        """Nothing."""
        return ""


class FixedText:
    """text, text_segment, text_position int32 [B, N] and anchor int32 [B, L]. `anchors` of a
    block's positions, the first ones, hold an anchor.
    """

    def __init__(
        self, text: int, chat: Conversations, block: int, anchors: int = ANCHORS_PER_BLOCK
    ):
        self.capacities, self._chat, self._block, self._anchors = (
            {"text": text},
            chat,
            block,
            anchors,
        )

    def sizes(self, source) -> np.ndarray:
        """Ids of each record's conversation. UserError for a record without text."""
        return self._lengths(source)[:, 0]

    def _lengths(self, source) -> np.ndarray:
        """(ids of the conversation, ids of the answer) of each record, int32 [N, 2]."""
        chat = self._chat
        count = lambda question, text: (chat.typed_length(question, text), len(chat.answer(text)))
        return _text_lengths(source, f"conversation {chat.fingerprint}", count)

    def start(self, rows: int, length: int) -> Batch:
        """Empty arrays."""
        out = {
            name: np.zeros((rows, self.capacities["text"]), np.int32)
            for name in ("text", "text_segment", "text_position")
        }
        return out | {"anchor": np.full((rows, length), NO_ANCHOR, np.int32)}

    def add(
        self, out: Batch, row: int, record: dict, segment: int, first: int, size: int, filled: int
    ) -> int:
        """See `_Anchors`."""
        ids, answer = self._chat.typed(record.get("question", ""), record["text"])
        place = (row, slice(filled, filled + len(ids)))
        out["text"][place], out["text_segment"][place], out["text_position"][place] = (
            ids,
            segment,
            np.arange(len(ids)),
        )
        out["anchor"][row, first : first + size] = anchor_index(
            size, filled + answer, filled + len(ids), self._block, self._anchors
        )
        return len(ids)

    def about(self, name: str, source, tokens: np.ndarray) -> str:
        """How much text finds no anchor before its speech is over."""
        ids = self._lengths(source)[:, 1]
        unread = np.maximum(ids - tokens // self._block * self._anchors, 0)
        if not unread.any():
            return ""
        return (
            f"{name}: {(unread > 0).sum()} of {len(ids)} records have more text "
            f"than anchors, {unread.sum()} of {ids.sum()} ids are not heard"
        )


class FixedStates(FixedText):
    """As `FixedText` where the Thinker has read the conversations before: of each the answer alone, and
    states float16 [B, N, D] of its ids (records with "states", see `datasets.thinker_states`).
    """

    def __init__(
        self,
        text: int,
        chat: Conversations,
        block: int,
        anchors: int = ANCHORS_PER_BLOCK,
        *,
        width: int,
    ):
        super().__init__(text, chat, block, anchors)
        self._width = width

    def sizes(self, source) -> np.ndarray:
        """Ids of each record's answer. UserError for a record without text."""
        return self._lengths(source)[:, 1]

    def start(self, rows: int, length: int) -> Batch:
        """Empty arrays."""
        shape = (rows, self.capacities["text"], self._width)
        return super().start(rows, length) | {"states": np.zeros(shape, np.float16)}

    def add(
        self, out: Batch, row: int, record: dict, segment: int, first: int, size: int, filled: int
    ) -> int:
        """See `_Anchors`."""
        ids, states = self._chat.answer(record["text"]), record["states"]
        if len(ids) != len(states):
            raise UserError(
                f"record {record.get('id', '')!r} has {len(states)} states of a Thinker for "
                f"{len(ids)} ids: make them again with: mdmspeech data --states --thinker DIR"
            )
        place = (row, slice(filled, filled + len(ids)))
        out["text"][place], out["states"][place] = ids, states
        out["text_segment"][place], out["text_position"][place] = segment, np.arange(len(ids))
        out["anchor"][row, first : first + size] = anchor_index(
            size, filled, filled + len(ids), self._block, self._anchors
        )
        return len(ids)


class PrefixText:
    """text, text_segment, text_position int32 [B, N]: the ids of each utterance's text, START
    before them, which stand in front of its speech.

    tokenizer: `text.tokenizer.ChatTokenizer` or one like it.
    """

    def __init__(self, text: int, tokenizer: Any):
        self.capacities, self._encode = {"text": text}, tokenizer.encode
        self._what = tokenizer.fingerprint

    def sizes(self, source) -> np.ndarray:
        """Ids of each text, START among them. UserError for a record without text."""
        count = lambda question, text: (1 + len(self._encode(text)),)
        return _text_lengths(source, f"prefix {self._what}", count)[:, 0]

    def start(self, rows: int, length: int) -> Batch:
        """Empty arrays."""
        return {
            name: np.zeros((rows, self.capacities["text"]), np.int32)
            for name in ("text", "text_segment", "text_position")
        }

    def add(
        self, out: Batch, row: int, record: dict, segment: int, first: int, size: int, filled: int
    ) -> int:
        """See `_Anchors`."""
        ids = np.array([START, *self._encode(record["text"])], np.int32)
        place = (row, slice(filled, filled + len(ids)))
        out["text"][place], out["text_segment"][place], out["text_position"][place] = (
            ids,
            segment,
            np.arange(len(ids)),
        )
        return len(ids)

    def about(self, name: str, source, tokens: np.ndarray) -> str:
        """Nothing."""
        return ""


def anchor_index(
    num_tokens: int, text_first: int, text_stop: int, block: int, per_block: int = ANCHORS_PER_BLOCK
) -> np.ndarray:
    """Which text position is the anchor of each speech position of one utterance: int32
    [num_tokens].

    The text positions [text_first, text_stop) stand in order on the first `per_block` positions of
    each block; NULL_ANCHOR there after the end of the text, NO_ANCHOR on the other positions.
    (`models.anchors.FixedAnchors` has the same rule.)
    """
    turn, inside = np.divmod(np.arange(num_tokens, dtype=np.int32), block)
    index = text_first + turn * per_block + inside
    return np.where(
        inside < per_block, np.where(index < text_stop, index, NULL_ANCHOR), NO_ANCHOR
    ).astype(np.int32)


def packed_talker_batches(
    sources: Mapping[str, Any],
    anchors: PacedText | FixedText | FixedStates | PrefixText,
    *,
    batch: int,
    length: int,
    block: int,
    eos: int,
    pad: int,
    seed: int,
    weights: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    shard: Shard = (0, 1),
    threads: int = 1,
) -> PackedBatches:
    """Endless batches: id str [B]; tokens, segment (0 = padding), position int32 [B, L]; and the
    arrays of `anchors`.

    sources: name -> random access to records {id, tokens, symbols, frames, text, question}
      (`datasets.corpus.tokens`, `random_source.RandomSpeech`).
    batch: rows of all hosts together; each host gets its share. weights, temperature: see
      `mixing.Mixture`.

    Raises:
      UserError: a row length that is no multiple of the block; what `PackPlan` refuses.
    """
    if length % block:
        raise UserError(
            f"rows of {length} tokens do not consist of whole blocks of {block}; "
            "make data.length a multiple of it"
        )
    (field,) = anchors.capacities
    sizes = {}
    for name, source in sources.items():
        tokens = np.asarray(whole_blocks(counts_of(source, "tokens"), block))
        sizes[name] = np.stack([tokens, anchors.sizes(source)], axis=1, dtype=np.int32)
        if shard[0] == 0 and (line := anchors.about(name, source, tokens)):
            print(line, file=sys.stderr)
    plan = PackPlan(
        sizes,
        {"tokens": length, field: anchors.capacities[field]},
        batch=batch,
        seed=seed,
        weights=weights,
        temperature=temperature,
        shard=shard,
    )

    def make(rows: list[list[Draw]]) -> Batch:
        out: Batch = {
            "tokens": np.full((len(rows), length), pad, np.int32),
            "segment": np.zeros((len(rows), length), np.int32),
            "position": np.zeros((len(rows), length), np.int32),
            **anchors.start(len(rows), length),
        }
        names = []
        for b, (draws, records) in enumerate(zip(rows, read_draws(sources, rows), strict=True)):
            names.append(
                ",".join(
                    str(record.get("id", draw.record))
                    for record, draw in zip(records, draws, strict=True)
                )
            )
            first = filled = 0
            for segment, record in enumerate(records, start=1):
                count = len(record["tokens"])
                size = int(whole_blocks(count, block))
                out["tokens"][b, first : first + count] = record["tokens"]
                out["tokens"][b, first + count : first + size] = eos
                out["segment"][b, first : first + size] = segment
                out["position"][b, first : first + size] = np.arange(size)
                filled += anchors.add(out, b, record, segment, first, size, filled)
                first += size
        return {"id": np.array(names), **out}

    return PackedBatches(plan, make, threads, content_of(sources.values()))


def whole_blocks(tokens: int | np.ndarray, block: int) -> int | np.ndarray:
    """Positions an utterance takes: its tokens, at least one EOS, and EOS to the end of the block."""
    return (tokens // block + 1) * block


def _text_lengths(source, what: str, count: Callable[[str, str], Sequence[int]]) -> np.ndarray:
    """int32 [N, K]: of (question, text) of each record. UserError for one without text."""

    def checked(name: str, question: str, text: str) -> Sequence[int]:
        if not text:
            raise UserError(
                f"record {name!r} has no text, which these anchors need; make the tokens again with: "
                "mdmspeech data --tokens"
            )
        return count(question, text)

    return lengths(source, ("id", "question", "text"), what, checked)
