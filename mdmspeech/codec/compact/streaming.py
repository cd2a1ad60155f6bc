"""Decoding tokens to samples block by block, as they come, with the samples of one-shot decoding.

A token's samples depend on `left_context` tokens before it and `right_context` after it (see the
config), so each push decodes a window of fixed size around the tokens that have become final and
hands out their samples, `right_context` tokens late. Beyond the window only one number is carried:
the phase of the pulse train.

B batch, n tokens of a push, W tokens of the window.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.compact.codec import NOISE_SEED, CompactCodecModel, source_controls

# Tokens synthesised beside those handed out: overlap-add and pulses reach 4 frames, one token, to
# either side; the controls of the token behind need frames of one more.
_BEFORE, _BEHIND = 1, 2


@flax.struct.dataclass
class StreamState:
    """What is carried from push to push; all rows share one clock."""

    ids_BW: Any  # int32: the last left_context + right_context tokens pushed
    valid_BW: Any  # bool: False before the first token and after a row's last
    pushed: Any  # int32 scalar: tokens pushed so far, invalid ones included
    phase_B: Any  # cycles, at the start of the first token that the next push synthesises


def start(model: CompactCodecModel, batch: int) -> StreamState:
    """The state before the first token."""
    width = model.config.left_context + model.config.right_context
    # of NumPy: nothing is compiled for zeros
    return StreamState(
        np.zeros((batch, width), np.int32),
        np.zeros((batch, width), bool),
        np.int32(0),
        np.zeros(batch, np.float32),
    )


def push(
    model: CompactCodecModel,
    params: dict,
    state: StreamState,
    ids_Bn: jax.Array,
    valid_Bn: jax.Array,
) -> tuple[StreamState, jax.Array]:
    """Takes n more tokens of every row and returns the samples of the n tokens that came
    `right_context` tokens earlier.

    ids_Bn: token ids. valid_Bn: bool, False after a row's last token; when the speech is over, push
      invalid tokens until its last samples are out.

    Returns:
      (new state, wave [B, n * token_samples]). The wave begins with silence for the `right_context`
      tokens before the first one.
    """
    c = model.config
    batch, count = ids_Bn.shape
    ids = jnp.concatenate([state.ids_BW, ids_Bn], axis=1)
    valid = jnp.concatenate([state.valid_BW, valid_Bn], axis=1)
    acoustics = model.acoustics(params, ids, valid)
    valid_BT = jnp.repeat(valid, c.frames_per_token, axis=1)
    f0, gate = source_controls(acoustics)

    # one token of frames, so that the first frame synthesised has a neighbour
    lead = c.frames_per_token
    first = (c.left_context - _BEFORE) * c.frames_per_token - lead  # window frame
    frames = lead + (_BEFORE + count + _BEHIND) * c.frames_per_token

    def part(x):
        return jax.lax.slice_in_dim(x, first, first + frames, axis=1)

    absolute = (state.pushed - c.right_context - _BEFORE) * c.frames_per_token
    wave, phases = model.synthesise(
        params,
        jax.tree.map(part, acoustics),
        part(f0),
        part(gate),
        state.phase_B,
        jax.random.key(NOISE_SEED),
        jnp.full(batch, absolute),
        part(valid_BT),
        lead,
    )
    halo = _BEFORE * c.token_samples
    width = state.ids_BW.shape[1]
    phase_B = phases[:, count]
    new = StreamState(ids[:, -width:], valid[:, -width:], state.pushed + count, phase_B)
    return new, wave[:, halo : halo + count * c.token_samples]
