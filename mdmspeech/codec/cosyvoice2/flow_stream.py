"""CosyVoice2's flow block by block, each block at the same cost: what earlier blocks left behind is
kept instead of computed again.

The reference runs the whole prefix through the network for every new block. Here each layer keeps
what a later block may need of it: the last inputs of each causal convolution, keys and values of
the last `chunks.left` chunks of each attention, the latter for every Euler step, as each step is a
network of its own; and, with guidance, for both of its evaluations. Frames that were handed out
never change, so streamed and one-shot synthesis (`flow.generate` with the same `Chunks`) give the
same mel, from the same noise: it belongs to the frame.

The masks are the condition. A stream can only equal a mask in which no query sees a later chunk, so
never the reference's offline call, which attends everywhere. It does equal the reference's
streaming calls (its mask counts chunks from the start of the prompt: `Chunks(25)`, with a `left`
that reaches to the start), but not its last call of an utterance, which attends everywhere again:
here the last block is masked like the others.

The state does not grow. With CosyVoice2's sizes it takes 1.3 MB + `left` * 148 MB a row at 16
tokens a chunk, 10 steps and guidance, and half of that without guidance (`state_bytes` tells); a
push updates it in place.

B batch, c tokens of a chunk, F = 2 c frames, S = left * c tokens of history, M mel bins. All rows
share one clock.
"""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mdmspeech.codec.cosyvoice2.flow import (
    GUIDANCE,
    STEPS,
    Conditions,
    Flow,
    estimator_of,
    guided_rows,
    solve,
    time_grid,
)
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig, Prompt, check_ids, check_prompt
from mdmspeech.codec.cosyvoice2.flow_encoder import RATE, EncoderCache
from mdmspeech.codec.cosyvoice2.flow_estimator import EstimatorCache
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks
from mdmspeech.codec.cosyvoice2.flow_noise import check_noise, frame_noise
from mdmspeech.errors import UserError

ABSENT, PROMPT, SPEECH = 0, 1, 2  # what a pushed position is


@dataclasses.dataclass(frozen=True)
class StreamPlan:
    """How an utterance is synthesised, in one go or as a stream; static.

    Attributes:
      chunks: the mask; a stream is pushed `size` tokens at a time. `left` needs a number. None
        attends everywhere, which no stream can.
      steps: of Euler's method: 1 is fastest, 10 CosyVoice2's.
      guidance: 0 (none, at half the cost) to 10; 0.7 is CosyVoice2's.
      temperature: factor of the noise, 0 to 2.
    """

    chunks: Chunks | None = dataclasses.field(
        default_factory=lambda: Chunks(size=16, left=8, follow_speech=True)
    )
    steps: int = STEPS
    guidance: float = GUIDANCE
    temperature: float = 1.0

    def __post_init__(self):
        if type(self.steps) is not int:
            raise UserError(
                f"steps={self.steps!r}: give a whole number of Euler steps, for example {STEPS}"
            )
        time_grid(self.steps)
        for name, most, usual in (("guidance", 10, GUIDANCE), ("temperature", 2, 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise UserError(
                    f"{name}={value!r}: give a number from 0 to {most}; {usual:g} is usual"
                )


@struct.dataclass
class Block:
    """The next positions of every row. A row is absent before its first token and after its last,
    never between.
    """

    ids_Bc: jax.Array  # int32
    kind_Bc: jax.Array  # int8: ABSENT, PROMPT or SPEECH
    cond_BFM: jax.Array  # mel of the prompt, zeros elsewhere


@struct.dataclass
class Voice:
    """What stays the same from block to block. Not in the state: whoever gives the state's memory
    away keeps this.
    """

    speaker_BM: jax.Array
    noise: jax.Array  # keys [B] or a table, see `frame_noise`


@struct.dataclass
class StreamState:
    """What is carried from block to block."""

    ahead: Block  # the last `lookahead` positions: seen, not spoken yet
    valid_BS: jax.Array  # bool, the tokens of the history that are there
    frames_B: jax.Array  # int32, frames made so far, the prompt's included
    encoder: EncoderCache
    estimator: EstimatorCache  # [steps, guided_rows * B, ...]


def start(
    config: FlowConfig, plan: StreamPlan, params: Any, speaker_BE: jax.Array, noise: jax.Array
) -> tuple[Voice, StreamState]:
    """The voices of the rows, and the state before their first position.

    Raises:
      UserError: a plan without a bounded history or with chunks shorter than the look-ahead,
        unusable noise.
    """
    rows, lookahead, num_mels = len(speaker_BE), config.encoder.lookahead, config.estimator.num_mels
    chunks, history = streamable(plan)
    if chunks.size < lookahead:
        raise UserError(
            f"chunks of {chunks.size} tokens are shorter than the {lookahead} that "
            "the flow looks ahead; make them longer"
        )
    check_noise(noise, rows, num_mels)
    once = EstimatorCache.zeros(config.estimator, guided_rows(plan.guidance) * rows, RATE * history)
    voice = Voice(Flow(config).apply({"params": params}, speaker_BE, method="speak"), noise)
    return voice, StreamState(
        ahead=Block(
            jnp.zeros((rows, lookahead), jnp.int32),
            jnp.zeros((rows, lookahead), jnp.int8),
            jnp.zeros((rows, RATE * lookahead, num_mels)),
        ),
        valid_BS=jnp.zeros((rows, history), bool),
        frames_B=jnp.zeros(rows, jnp.int32),
        encoder=EncoderCache.zeros(config.encoder, rows, history),
        estimator=jax.tree.map(lambda x: jnp.zeros((plan.steps, *x.shape), x.dtype), once),
    )


def push(
    config: FlowConfig,
    plan: StreamPlan,
    params: Any,
    voice: Voice,
    state: StreamState,
    block: Block,
) -> tuple[StreamState, jax.Array, jax.Array]:
    """Takes c more positions of every row and makes the frames of the c positions that came
    `lookahead` earlier.

    When a row's speech is over, push absent positions until its last frames are out.

    Returns:
      (new state, mel [B, F, M], bool [B, F]: the frames that are speech, neither prompt nor
      absent).
    """
    size, num_mels = streamable(plan)[0].size, config.estimator.num_mels
    window = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), state.ahead, block)
    present_BL = window.kind_Bc != ABSENT
    valid_Bc = present_BL[:, :size]
    known_BS = jnp.concatenate([state.valid_BS, valid_Bc], axis=1)
    valid_BF = jnp.repeat(valid_Bc, RATE, axis=1)
    # All keys that are there may be seen:
    # what the mask would hide is out of the history or not here yet.
    mask, frame_mask = (
        _for_each_query(known_BS, size),
        _for_each_query(jnp.repeat(known_BS, RATE, axis=1), RATE * size),
    )
    bound = Flow(config).bind({"params": params})
    mu_BFM, encoder = bound.expect(
        window.ids_Bc, present_BL, valid_Bc, mask, frame_mask, state.encoder
    )
    index_BF = state.frames_B[:, None] + jnp.cumsum(valid_BF, axis=1, dtype=jnp.int32) - 1
    noise_BFM = plan.temperature * frame_noise(voice.noise, jnp.maximum(index_BF, 0), num_mels)
    given = Conditions(
        mu_BFM, voice.speaker_BM, window.cond_BFM[:, : RATE * size], valid_BF, frame_mask
    )
    mel_BFM, _, estimator = solve(
        estimator_of(config, params),
        noise_BFM,
        given,
        steps=plan.steps,
        guidance=plan.guidance,
        caches=state.estimator,
    )
    new = dataclasses.replace(
        state,
        ahead=Block(
            window.ids_Bc[:, size:], window.kind_Bc[:, size:], window.cond_BFM[:, RATE * size :]
        ),
        valid_BS=known_BS[:, size:],
        frames_B=state.frames_B + valid_BF.sum(axis=1, dtype=jnp.int32),
        encoder=encoder,
        estimator=estimator,
    )
    return new, mel_BFM, jnp.repeat(window.kind_Bc[:, :size] == SPEECH, RATE, axis=1)


def state_bytes(config: FlowConfig, plan: StreamPlan, rows: int = 1) -> int:
    """Size of the caches in the state of a stream of that many rows (the rest is a few kB); nothing
    is allocated.
    """
    history = streamable(plan)[1]
    shapes = [
        jax.eval_shape(
            lambda: EstimatorCache.zeros(
                config.estimator, guided_rows(plan.guidance) * rows, RATE * history
            )
        ),
        jax.eval_shape(lambda: EncoderCache.zeros(config.encoder, rows, history)),
    ]
    one_step, encoder = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for tree in shapes
    )
    return plan.steps * one_step + encoder


def streamable(plan: StreamPlan) -> tuple[Chunks, int]:
    """The chunks of a plan, and the tokens of history that they see. Raises UserError: attention
    everywhere, or to a past without bound.
    """
    if plan.chunks is None:
        raise UserError("what attends everywhere cannot be streamed; give the plan chunks")
    if plan.chunks.left is None:
        raise UserError(
            "a stream keeps a bounded history; give its chunks a `left`, large "
            "enough for the longest utterance if you like"
        )
    return plan.chunks, plan.chunks.size * plan.chunks.left


@functools.lru_cache(maxsize=8)
def compiled_push(config: FlowConfig, plan: StreamPlan):
    """`push` under jit, compiled once for all streams; the old state's memory is used for the new one."""
    return jax.jit(functools.partial(push, config, plan), donate_argnums=2)


class MelStream:
    """One utterance: any number of tokens in, the mel frames that are final now out. Joined, they
    are those of `flow.generate`.
    """

    def __init__(
        self, config: FlowConfig, plan: StreamPlan, params: Any, prompt: Prompt, noise: jax.Array
    ):
        """Reads the prompt, which costs as much as speaking it would; noise: a key [1] or a table.

        Raises:
          UserError: as `start`, and if the parts of the prompt do not fit.
        """
        check_prompt(config, prompt, "the stream")
        self._config, self._plan, self._params, self._size = (
            config,
            plan,
            params,
            streamable(plan)[0].size,
        )
        self._voice, self._state = start(
            config, plan, params, jnp.asarray(prompt.speaker, jnp.float32)[None], noise
        )
        # Absent positions in front put the ends of the chunks where the mask wants them.
        lookahead = config.encoder.lookahead
        lead = (
            int(streamable(plan)[0].shift(jnp.array(len(prompt.ids)), lookahead)) - lookahead
        ) % self._size
        ids = np.concatenate([np.zeros(lead, np.int32), np.asarray(prompt.ids, np.int32)])
        mel = np.concatenate(
            [np.zeros((RATE * lead, config.estimator.num_mels), np.float32), prompt.mel]
        )
        self._ids, self._mel = ids, mel
        self._kinds = np.repeat(np.array([ABSENT, PROMPT], np.int8), [lead, len(prompt.ids)])
        self._waiting, self._finished = 0, False  # speech tokens whose frames are not out
        self._advance()

    def copy(self) -> "MelStream":
        """Another stream that goes on from here: the prompt need not be read again for every
        utterance of a voice.
        """
        other = copy.copy(self)
        # the memory of either is given away at its next push
        other._state = jax.tree.map(jnp.copy, self._state)
        return other

    def push(self, ids_n: np.ndarray) -> np.ndarray:
        """The next tokens, int [n] -> the frames that are final now, float32 [T, M] (perhaps none)."""
        if self._finished:
            raise UserError("this utterance is finished; start a new stream for the next one")
        check_ids(self._config, ids_n, "the block")
        self._queue(np.asarray(ids_n, np.int32), SPEECH)
        self._waiting += len(ids_n)
        return self._advance()

    def finish(self) -> np.ndarray:
        """The frames that are left, once there are no more tokens."""
        self._finished = True
        parts = [self._advance()]
        while self._waiting:
            self._queue(np.zeros(self._size - len(self._ids), np.int32), ABSENT)
            parts.append(self._advance())
        return np.concatenate(parts)

    def _queue(self, ids_n: np.ndarray, kind: int) -> None:
        self._ids = np.concatenate([self._ids, ids_n])
        self._kinds = np.concatenate([self._kinds, np.full(len(ids_n), kind, np.int8)])
        self._mel = np.concatenate(
            [self._mel, np.zeros((RATE * len(ids_n), self._mel.shape[1]), np.float32)]
        )

    def _advance(self) -> np.ndarray:
        """Pushes every whole block that is queued."""
        size, parts = self._size, [np.zeros((0, self._mel.shape[1]), np.float32)]
        while len(self._ids) >= size:
            block = Block(
                *(
                    jnp.asarray(x[None])
                    for x in (self._ids[:size], self._kinds[:size], self._mel[: RATE * size])
                )
            )
            self._ids, self._kinds, self._mel = (
                self._ids[size:],
                self._kinds[size:],
                self._mel[RATE * size :],
            )
            step = compiled_push(self._config, self._plan)
            self._state, mel, speech = step(self._params, self._voice, self._state, block)
            parts.append(np.asarray(mel)[0][np.asarray(speech)[0]])
        frames = np.concatenate(parts)
        self._waiting -= len(frames) // RATE
        return frames


def _for_each_query(known_BS: jax.Array, queries: int) -> jax.Array:
    return jnp.broadcast_to(known_BS[:, None, :], (known_BS.shape[0], queries, known_BS.shape[1]))
