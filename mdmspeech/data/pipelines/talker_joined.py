"""Joined batches for the Talker: utterances spoken in a row as one, in sequences of one fixed
length, so that hardly a position is padding.

A sequence is several utterances one after another, as the sentences of a longer answer are:
symbols, durations and tokens are simply joined. Half of the sequences are cut at the full length;
the others keep whole utterances and end in EOS up to the end of their block, so that the end of
speech is learnt. What does not fit is left out and comes again in another epoch in other company;
`joined_statistics` tells how much that is, and a run says so at its start. (`talker_packed` keeps
utterances apart and leaves nothing out.)
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from mdmspeech.data.packing.position import CheckedBatches, digest_of
from mdmspeech.data.packing.sharding import HostShare, Shard
from mdmspeech.speech_format import DURATION_SECONDS

_LOOKED_AT = 1000  # sequences, to tell a user how full they are


def talker_batches(
    source,
    *,
    batch: int,
    length: int,
    symbols: int,
    block: int,
    eos: int,
    pad: int,
    token_seconds: float,
    seed: int,
    group: int = 5,
    shard: Shard = (0, 1),
) -> "JoinedBatches":
    """Endless iterator of batches: id str [B], tokens int32 [B, L], valid bool [B, L], symbols
    int32 [B, M], symbols_valid bool [B, M], durations float32 [B, M] in speech tokens. `source[i]`
    is a record of `datasets.corpus.tokens`; `group` shuffled utterances fill one sequence.

    batch: rows of all hosts together, of which `shard` (number, count) gets its part.
    """
    share = HostShare(_groups(source, seed, group), batch, shard)
    data = grain.MapDataset.source(share).map(
        lambda item: join(item[0], item[1], length, symbols, block, eos, pad, token_seconds)
    )
    data = data.batch(share.rows, drop_remainder=True)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    batches = iter(data.to_iter_dataset(options))
    sequences = min(_LOOKED_AT, max(1, len(source) // group))
    return JoinedBatches(
        batches,
        digest_of(source, "tokens"),
        lambda: joined_statistics(
            source,
            length=length,
            symbols=symbols,
            block=block,
            seed=seed,
            group=group,
            sequences=sequences,
        ),
        len(source) / group / batch,
    )


class JoinedBatches(CheckedBatches):
    """Batches that know how much of them is padding and how much speech they leave out."""

    def __init__(
        self,
        batches: Any,
        digest: str,
        statistics: Callable[[], "JoinedStatistics"],
        epoch: float | None = None,
    ):
        super().__init__(batches, digest, epoch)
        self._statistics = statistics

    def about(self) -> list[str]:
        """A line for the user."""
        return [f"joined rows: {self._statistics()}"]


def _groups(source, seed: int, group: int) -> grain.MapDataset:
    """Endless (utterances, whether to finish) of each sequence."""
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    return data.batch(group, batch_fn=list).random_map(
        lambda utterances, rng: (utterances, bool(rng.random() < 0.5))
    )


def join(
    utterances: Sequence[dict],
    finish: bool,
    length: int,
    symbols: int,
    block: int,
    eos: int,
    pad: int,
    token_seconds: float,
) -> dict[str, np.ndarray]:
    """One sequence. `finish`: whole utterances and an end (if at least one fits); otherwise cut at
    `length`.
    """
    out = {
        "tokens": np.full(length, pad, np.int32),
        "valid": np.zeros(length, bool),
        "symbols": np.zeros(symbols, np.int32),
        "symbols_valid": np.zeros(symbols, bool),
        "durations": np.zeros(symbols, np.float32),
    }
    at = text = 0
    names = []
    for utterance, take in _taken(utterances, finish, length, symbols):
        count = len(utterance["symbols"])
        out["tokens"][at : at + take] = utterance["tokens"][:take]
        out["symbols"][text : text + count] = utterance["symbols"]
        out["durations"][text : text + count] = durations(utterance, token_seconds)
        at, text = at + take, text + count
        names.append(str(utterance.get("id", "")))
    end = min(-(-at // block) * block, length)
    out["tokens"][at:end] = eos
    out["valid"][:end] = True
    out["symbols_valid"][:text] = True
    return {"id": np.array(",".join(names)), **out}


def durations(utterance: dict, token_seconds: float) -> np.ndarray:
    """Speech tokens each symbol lasts, float32 [M]. A recording lasts whole tokens: its last
    silence takes the rest.
    """
    lasting = np.asarray(utterance["frames"]) * (DURATION_SECONDS / token_seconds)
    lasting[-1] += len(utterance["tokens"]) - lasting.sum()
    return lasting.astype(np.float32)


def counts_of(source, field: str) -> np.ndarray:
    """Length of `field` in each record, int64 [N]: from `source.counts`, or by reading everything."""
    if hasattr(source, "counts"):
        return source.counts(field)
    return np.array([len(source[i][field]) for i in range(len(source))], np.int64)


@dataclasses.dataclass(frozen=True)
class JoinedStatistics:
    """Of some sequences. positions: in all; filled: of them with tokens or EOS; tokens: read; cut:
    tokens behind the end of a sequence; left_out: tokens of whole utterances that did not fit;
    too_many_symbols: utterances that fit into no sequence, ever."""

    positions: int
    filled: int
    tokens: int
    cut: int
    left_out: int
    too_many_symbols: int

    @property
    def padding(self) -> float:
        """Share of positions that nothing fills."""
        return 1 - self.filled / self.positions

    @property
    def unread(self) -> float:
        """Share of the drawn tokens that were cut or left out."""
        return (self.cut + self.left_out) / (self.tokens + self.cut + self.left_out)

    def __str__(self) -> str:
        parts = [
            (
                f"padding: tokens {self.padding:.2%}; of the tokens drawn "
                f"{self.unread:.1%} are cut or left out until another epoch"
            )
        ]
        if self.too_many_symbols:
            parts.append(
                f"{self.too_many_symbols} utterances have too many symbols for any sequence"
            )
        return "; ".join(parts)


def joined_statistics(
    source, *, length: int, symbols: int, block: int, seed: int, group: int = 5, sequences: int = 0
) -> JoinedStatistics:
    """Of the first sequences of `talker_batches` with the same arguments, by default those of one
    epoch (without what differs from host to host).
    """
    sequences = sequences or max(1, len(source) // group)
    groups = _groups(source, seed, group)
    filled = read = cut = left_out = 0
    for number in range(sequences):
        utterances, finish = groups[number]
        taken = list(_taken(utterances, finish, length, symbols))
        tokens = sum(take for _, take in taken)
        whole = sum(len(utterance["tokens"]) for utterance, _ in taken)
        read, cut = read + tokens, cut + whole - tokens
        left_out += sum(len(utterance["tokens"]) for utterance in utterances) - whole
        filled += min(-(-tokens // block) * block, length)
    too_many = int((counts_of(source, "symbols") > symbols).sum())
    return JoinedStatistics(sequences * length, filled, read, cut, left_out, too_many)


def _taken(
    utterances: Sequence[dict], finish: bool, length: int, symbols: int
) -> Iterator[tuple[dict, int]]:
    """Which utterances go into a sequence, and how many tokens of each."""
    at = text = 0
    for utterance in utterances:
        tokens, count = len(utterance["tokens"]), len(utterance["symbols"])
        if count > symbols:  # fits into no sequence: `talker_batches` says how many such there are
            continue
        if text + count > symbols or (finish and at and at + tokens > length):
            return
        yield utterance, min(tokens, length - at)
        at, text = at + min(tokens, length - at), text + count
        if at == length:
            return
