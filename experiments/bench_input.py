"""Input pipelines alone: how many tokens a second each makes on this machine, and how much of its
batches is padding.

Command: make bench-input (two minutes on 2 cores without other load). Not an experiment with a
  config, and no test.

Lengths and texts are those of the corpus on disk ($MDMSPEECH_HOME or ~/.cache/mdmspeech), if there
is one, else of the random source. Where no codec has made tokens yet, the Talker's records are
zeros of the length its recordings will have. A rate is the median of five stretches of three
seconds.
"""

import itertools
import statistics
import sys
import time

import numpy as np

from mdmspeech.data.datasets import corpus
from mdmspeech.data.pipelines import random_source, thinker_packed
from mdmspeech.data.pipelines.bucketed_states import BatchPlan
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.data.pipelines.talker_joined import joined_statistics, talker_batches
from mdmspeech.data.pipelines.talker_packed import (
    FixedText,
    PacedText,
    packed_talker_batches,
    whole_blocks,
)
from mdmspeech.errors import UserError
from mdmspeech.interop import loaders
from mdmspeech.speech_format import EOS, PAD, TOKEN_SECONDS
from mdmspeech.text.prompts import PLAIN

PARTS, BLOCK, SEED = ("open", "answers"), 16, 0
# of the compact Talker; symbols and text of packed rows
ROWS, LENGTH, SYMBOLS, TEXT = 16, 256, 160, 256
JOINED_SYMBOLS = 224
STAGE_ONE = dict(batch=4, frames=3260, length=768, num_mels=80)  # of experiments/thinker_compact.py
STRETCHES, SECONDS = 5, 3.0


class Spoken:
    """Recordings of the answer voice as a Talker will have them, without the codes."""

    def __init__(self):
        self._recordings = corpus.speech(None, PARTS, "train")
        rate = self._recordings.counts("rate")
        self._tokens = -(-self._recordings.counts("samples") // (rate * TOKEN_SECONDS).astype(int))

    def __len__(self):
        return len(self._recordings)

    def __getitem__(self, i):
        return {**self._recordings[i], "tokens": np.zeros(self._tokens[i], np.int32)}

    def counts(self, column):
        return self._tokens if column == "tokens" else self._recordings.counts(column)

    def fields(self, i):
        return self._recordings.fields(i)


def speech():
    """(what it is, the Talker's records)."""
    for name, make in (
        ("tokens on disk", lambda: corpus.tokens(None, PARTS, "train")),
        ("recordings on disk", Spoken),
    ):
        try:
            return name, make()
        except UserError:
            pass
    return "the random source", random_source.RandomSpeech(4000)


def questions():
    """(what it is, the records of stage 1)."""
    try:
        return "questions on disk", corpus.questions(None, "train")
    except UserError:
        return "the random source", random_source.RandomQuestions(4000)


def chat():
    """(name, conversations) by SmolLM2's tokenizer where it is installed, else by bytes."""
    try:
        return "SmolLM2's tokenizer", Conversations(
            loaders.load_tokenizer("smollm2-135m-instruct"), PLAIN
        )
    except UserError:
        return "one id a byte", Conversations(random_source.byte_tokenizer(), PLAIN)


def shares(lengths, rows):
    """(bucketed, naive) padding of batches of so many records, padded to their longest."""

    def share(batches):
        return 1 - sum(lengths[b].sum() for b in batches) / sum(
            lengths[b].max() * len(b) for b in batches
        )

    plan = BatchPlan(lengths, rows, BLOCK, SEED)
    order = np.random.default_rng(SEED).permutation(len(lengths))
    whole = order[: len(order) // rows * rows].reshape(-1, rows)
    return share([plan[k][1] for k in range(plan.per_epoch)]), share(list(whole))


def rate(batches, count):
    """(medians of what `count` finds in the batches made in a second, and in a second of one core's
    work).
    """
    for batch in itertools.islice(batches, 4):
        count(batch)
    rates = []
    for _ in range(STRETCHES):
        began, worked, seen = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < SECONDS:
            seen += count(next(batches))
        rates.append((seen / (time.perf_counter() - began), seen / (time.process_time() - worked)))
    return tuple(statistics.median(one) for one in zip(*rates, strict=True))


def made(batches, count=None):
    """Both rates as cells of a table."""
    return [f"{one:,.0f}" for one in rate(batches, count or real)]


def row(*cells):
    """A line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main():
    """Prints both tables for the Talker and for stage 1."""
    what, spoken = speech()
    asked_what, asked = questions()
    tokenizer, conversations = chat()
    shared = dict(batch=ROWS, length=LENGTH, block=BLOCK, eos=EOS, pad=PAD, seed=SEED)
    records = [spoken[i] for i in range(len(spoken))]
    tokens = np.array([len(record["tokens"]) for record in records])
    paced = packed_talker_batches({"speech": spoken}, PacedText(SYMBOLS, TOKEN_SECONDS), **shared)
    fixed = packed_talker_batches(
        {"speech": spoken}, FixedText(TEXT, conversations, BLOCK), **shared
    )
    joined = joined_statistics(
        records, length=LENGTH, symbols=JOINED_SYMBOLS, block=BLOCK, seed=SEED
    )
    heard = thinker_packed.lm_batches({"questions": asked}, conversations, seed=SEED, **STAGE_ONE)
    blocks = np.asarray(whole_blocks(tokens, BLOCK))
    bucketed, naive = shares(blocks, ROWS)
    print(
        f"The Talker: {len(spoken)} utterances ({what}), rows of {LENGTH} tokens, "
        f"{ROWS} a batch; fixed anchors with {tokenizer}\n"
    )
    row("layout", "padding of the tokens", "left out or cut", "tokens/s", "tokens/s of a core")
    row(*["---"] * 5)
    row(
        "packed, paced anchors", f"{paced.statistics().padding['tokens']:.1%}", "none", *made(paced)
    )
    row(
        "packed, fixed anchors", f"{fixed.statistics().padding['tokens']:.1%}", "none", *made(fixed)
    )
    batches = talker_batches(spoken, symbols=JOINED_SYMBOLS, token_seconds=TOKEN_SECONDS, **shared)
    row(
        "joined, cut",
        f"{joined.padding:.1%}",
        f"{joined.unread:.1%}",
        *made(batches, lambda batch: int(batch["valid"].sum())),
    )
    row("a row each, bucketed", f"{bucketed:.1%}", "none", "", "")
    row("a row each, random batches (naive)", f"{naive:.1%}", "none", "", "")
    print(
        f"\nOf what fills a packed row, {1 - tokens.sum() / blocks.sum():.1%} is "
        "EOS up to the end of a block."
    )
    print(
        f"Packed with paced anchors: {paced.statistics()}\nPacked with fixed "
        f"anchors: {fixed.statistics()}"
    )
    frames = np.array(
        [
            int(
                thinker_packed.frames_taken(
                    int(thinker_packed.num_frames(asked.fields(i)["samples"], 1.0))
                )
            )
            for i in range(len(asked))
        ]
    )
    bucketed, naive = shares(frames, STAGE_ONE["batch"])
    print(
        f"\nStage 1: {len(asked)} questions ({asked_what}), rows of "
        f"{STAGE_ONE['frames']} frames and {STAGE_ONE['length']} ids, "
        f"{tokenizer}\n"
    )
    row(
        "layout",
        "padding of the frames",
        "padding of the ids",
        "positions of the Thinker/s",
        "the same of a core",
        "seconds of speech/s of a core",
    )
    row(*["---"] * 6)
    packed = heard.statistics()
    here, core = rate(heard, real)
    speech_s = core * packed.used["frames"] / packed.used["ids"] / 100
    row(
        "packed",
        f"{packed.padding['frames']:.1%}",
        f"{packed.padding['ids']:.1%}",
        f"{here:,.0f}",
        f"{core:,.0f}",
        f"{speech_s:,.0f}",
    )
    row("a row each, bucketed", f"{bucketed:.1%}", "", "", "", "")
    row("a row each, random batches (naive)", f"{naive:.1%}", "", "", "", "")


def real(batch):
    """Positions that are no padding."""
    return int((batch["segment"] > 0).sum())


if __name__ == "__main__":
    sys.exit(main())
