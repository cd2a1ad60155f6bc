"""Packed batches of spoken questions with written answers, for stage 1: speech encoder -> adaptor
-> Thinker -> cross-entropy on the answer.

A row holds two sequences side by side: the log-mel frames of several questions, and the ids of
their conversations, in which the speech vectors that the adaptor makes of the frames (one of 10)
stand at the place of the user's words. Utterances and conversations of a row share segment numbers
and see nothing of each other. The features are computed here, on the host, from the recording
alone: packing changes none of them.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from mdmspeech.audio.host_features import log_mel, num_frames
from mdmspeech.data.datasets.lengths import fields_of, lengths
from mdmspeech.data.packing.plan import Batch, Draw, PackedBatches, PackPlan, read_draws
from mdmspeech.data.packing.position import content_of
from mdmspeech.data.packing.sharding import Shard
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.data.synthesis.augment import augment
from mdmspeech.errors import UserError
from mdmspeech.speech_format import FRAME_RATE, FRAMES_PER_VECTOR, INPUT_RATE

GAP = 2  # pad frames after each utterance at least: the encoder's convolutions reach that far
TAIL = 1.0  # seconds of silence after each wave, as `models.speech_encoder.encode_waves` hears it
TYPED = -1  # in `speech`: this position holds an id


def lm_batches(
    sources: Mapping[str, Any],
    chat: Conversations,
    *,
    batch: int,
    frames: int,
    length: int,
    num_mels: int,
    seed: int,
    tail: float = TAIL,
    max_seconds: float = 30.0,
    augmented: float = 0.0,
    weights: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    shard: Shard = (0, 1),
    threads: int = 1,
) -> PackedBatches:
    """Endless batches: id str [B]; mel float16 [B, F, M], mel_segment (0 = padding), mel_position
    int32 [B, F]; ids, segment (0 = padding), position, speech (which of the row's F / 10 vectors
    stands here, else TYPED), target int32 and weight float32 [B, L].

    Position t is to predict `target[t]` where `weight[t]` is 1: the answer and the end of the
    assistant's turn.

    Args:
      sources: name -> random access to records {id, audio int16 at 16 kHz, answer}
        (`datasets.corpus.questions`, `random_source.RandomQuestions`), with `fields(i)` for
        `samples` and `answer` without the audio.
      batch: rows of all hosts together; each host gets its share. frames, length: F and L. tail:
        silence that is heard after each utterance, seconds, unless it would exceed `max_seconds`,
        the encoder's limit. augmented: share of the utterances that `augment` changes, anew in
        every pass.
      weights, temperature: see `mixing.Mixture`.

    Raises:
      UserError: F is not made of whole vectors; a record without an answer, or at another rate;
        what `PackPlan` refuses.
    """
    if frames % FRAMES_PER_VECTOR:
        raise UserError(
            f"rows of {frames} frames do not consist of whole vectors of "
            f"{FRAMES_PER_VECTOR}; make data.frames a multiple of it"
        )
    most = int(max_seconds * FRAME_RATE)
    sizes, heard_whole = {}, {}
    for name, source in sources.items():
        sizes[name], heard_whole[name] = _sizes(name, source, chat, tail, most)
        if shard[0] == 0 and (refused := int((~heard_whole[name]).sum())):
            print((f"{name}: {refused} of {len(source)} records last longer than {max_seconds:g} s, "
                   "which is what the encoder hears; they are left out"),
                  file=sys.stderr)  # fmt: skip
    plan = PackPlan(
        sizes,
        {"frames": frames, "ids": length},
        batch=batch,
        seed=seed,
        usable=heard_whole,
        weights=weights,
        temperature=temperature,
        shard=shard,
    )

    def heard(record: dict, position: int) -> np.ndarray:
        wave, rng = np.asarray(record["audio"]), np.random.default_rng((seed, position, 2))
        if rng.random() < augmented:
            wave = augment(wave.astype(np.float32) / 32768, INPUT_RATE, rng)
        return log_mel(wave, num_mels, min(tail, max_seconds - len(wave) / INPUT_RATE))[:most]

    def make(rows: list[list[Draw]]) -> Batch:
        out = _empty(len(rows), frames, length, num_mels)
        names = []
        for b, (draws, records) in enumerate(zip(rows, read_draws(sources, rows), strict=True)):
            names.append(",".join(str(record["id"]) for record in records))
            frame = at = 0
            for segment, (record, draw) in enumerate(zip(records, draws, strict=True), start=1):
                mel_TM = heard(record, draw.position)
                _add_speech(out, b, segment, frame, mel_TM)
                at += _add_conversation(
                    out,
                    b,
                    segment,
                    at,
                    frame // FRAMES_PER_VECTOR,
                    len(mel_TM),
                    record["answer"],
                    chat,
                )
                frame += int(frames_taken(len(mel_TM)))
        return {"id": np.array(names), **out}

    return PackedBatches(plan, make, threads, content_of(sources.values()))


def frames_taken(frames: int | np.ndarray) -> int | np.ndarray:
    """Positions an utterance takes: its frames, the gap, and what its last vector lacks."""
    return -(-(frames + GAP) // FRAMES_PER_VECTOR) * FRAMES_PER_VECTOR


def num_vectors(frames: int | np.ndarray) -> int | np.ndarray:
    """Speech vectors of an utterance."""
    return -(-frames // FRAMES_PER_VECTOR)


def _sizes(
    name: str, source, chat: Conversations, tail: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """(frames, ids) that each record takes of a row, int64 [N, 2]; and whether the encoder can hear
    all of it, bool [N].
    """
    answers_N = lengths(
        source, ("answer",), f"answer {chat.fingerprint}", lambda text: (_length(text, chat),)
    )[:, 0]
    if not answers_N.all():
        number = int(np.flatnonzero(answers_N == 0)[0])
        raise UserError(
            f"{name}: record {fields_of(source, number).get('id', number)!r} has no answer; stage 1 "
            "learns to give one"
        )
    samples_N, rates_N = (_column(source, column) for column in ("samples", "rate"))
    if (wrong := np.flatnonzero(rates_N != INPUT_RATE)).size:
        raise UserError(
            f"{name}: record {fields_of(source, int(wrong[0]))['id']!r} has {rates_N[wrong[0]]} Hz, "
            f"the speech encoder hears {INPUT_RATE}; import it again"
        )
    heard_N = np.asarray(num_frames(samples_N, 0.0)) <= most
    frames_N = np.minimum(num_frames(samples_N, tail), most)
    typed = len(chat.before) + len(chat.after) - 1  # the end of the turn is predicted, never read
    return np.stack(
        [frames_taken(frames_N), typed + num_vectors(frames_N) + answers_N], axis=1, dtype=np.int32
    ), heard_N


def _length(answer: str, chat: Conversations) -> int:
    return len(chat.answer(answer)) if answer else 0


def _column(source, name: str) -> np.ndarray:
    """`samples` or `rate` of every record, int64 [N]."""
    if hasattr(source, "counts"):
        return np.asarray(source.counts(name), np.int64)
    fallback = {"samples": lambda row: len(row["audio"]), "rate": lambda row: INPUT_RATE}[name]
    rows = (fields_of(source, i) for i in range(len(source)))
    return np.array([row[name] if name in row else fallback(row) for row in rows], np.int64)


def _empty(rows: int, frames: int, length: int, num_mels: int) -> Batch:
    out: Batch = {"mel": np.zeros((rows, frames, num_mels), np.float16)}
    out |= {name: np.zeros((rows, frames), np.int32) for name in ("mel_segment", "mel_position")}
    out |= {
        name: np.zeros((rows, length), np.int32)
        for name in ("ids", "segment", "position", "target")
    }
    return out | {
        "speech": np.full((rows, length), TYPED, np.int32),
        "weight": np.zeros((rows, length), np.float32),
    }


def _add_speech(out: Batch, row: int, segment: int, first: int, mel_TM: np.ndarray) -> None:
    place = (row, slice(first, first + len(mel_TM)))
    out["mel"][place], out["mel_segment"][place], out["mel_position"][place] = (
        mel_TM,
        segment,
        np.arange(len(mel_TM)),
    )


def _add_conversation(
    out: Batch,
    row: int,
    segment: int,
    first: int,
    vector: int,
    frames: int,
    answer: str,
    chat: Conversations,
) -> int:
    """Writes before, the speech vectors from `vector` on, after, and the answer; returns how many
    positions that takes.
    """
    vectors, answered = int(num_vectors(frames)), chat.answer(answer)
    spoken = first + len(chat.before)
    asked = spoken + vectors + len(chat.after)
    stop = asked + len(answered) - 1
    out["ids"][row, first:spoken] = chat.before
    out["ids"][row, spoken + vectors : stop] = np.concatenate([chat.after, answered[:-1]])
    out["speech"][row, spoken : spoken + vectors] = np.arange(vector, vector + vectors)
    out["segment"][row, first:stop] = segment
    out["position"][row, first:stop] = np.arange(stop - first)
    out["target"][row, asked - 1 : stop] = answered
    out["weight"][row, asked - 1 : stop] = 1.0
    return stop - first
