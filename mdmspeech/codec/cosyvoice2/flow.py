"""CosyVoice2's flow: speech tokens, a prompt and a speaker vector -> mel frames (Du et al., 2024,
arXiv 2412.10117, section 2.4).

An encoder gives each frame a mean; from noise, an ordinary differential equation whose velocity the
estimator predicts (optimal-transport flow matching: Lipman et al., 2022, arXiv 2210.02747) leads to
the mel, in a few Euler steps that are denser at the start, with classifier-free guidance (Ho &
Salimans, 2022, arXiv 2207.12598). The prompt's tokens and mel stand before the speech and are
dropped from the result.

Here in one go; `flow_stream.py` does the same block by block.

B batch, L tokens, T = 2 L frames, M mel bins.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig, Utterances
from mdmspeech.codec.cosyvoice2.flow_encoder import RATE, FlowEncoder
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimator
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks, chunk_mask
from mdmspeech.codec.cosyvoice2.flow_noise import check_noise, frame_noise
from mdmspeech.errors import UserError

STEPS, GUIDANCE = 10, 0.7  # the reference's

Velocity = Callable[..., tuple[jax.Array, Any]]


@struct.dataclass
class Conditions:
    """What the velocity depends on beside state and time."""

    mu_BTM: jax.Array  # means from the encoder
    speaker_BM: jax.Array  # projected speaker vector
    cond_BTM: jax.Array  # mel of the prompt, zeros elsewhere
    valid_BT: jax.Array  # bool, frames that are there
    mask_BTS: jax.Array  # bool, who attends to whom


class Flow(nn.Module):
    """The parameters of the flow. `expect` and `speak` use all but the estimator's, which `solve`
    is given as a function.
    """

    config: FlowConfig

    def setup(self):
        num_mels = self.config.estimator.num_mels
        self.embedding = nn.Embed(self.config.vocab_size, self.config.encoder.dim)
        self.speaker = nn.Dense(num_mels)
        self.encoder = FlowEncoder(self.config.encoder)
        self.projection = nn.Dense(num_mels)
        self.estimator = FlowEstimator(self.config.estimator)

    def __call__(self) -> jax.Array:
        """Touches every parameter, on the smallest input: for `init`."""
        tokens, frames = jnp.ones((1, 1), bool), jnp.ones((1, RATE), bool)
        present_BL = jnp.ones((1, 1 + self.config.encoder.lookahead), bool)
        mu_BTM, _ = self.expect(
            present_BL.astype(jnp.int32), present_BL, tokens, chunk_mask(tokens), chunk_mask(frames)
        )
        speaker_BM = self.speak(jnp.ones((1, self.config.speaker_dim)))
        return self.estimator(
            mu_BTM, mu_BTM, speaker_BM, mu_BTM, jnp.zeros(1), frames, chunk_mask(frames)
        )[0]

    def expect(self, ids_BL, present_BL, valid_BT, mask_BTS, frame_mask_BFG, cache=None):
        """Tokens -> means [B, 2T, M] of the frames of the first T = L - lookahead of them.
        Arguments as `FlowEncoder`.
        """
        x_BLD = self.embedding(ids_BL) * present_BL[:, :, None]
        states_BFD, cache = self.encoder(
            x_BLD, present_BL, valid_BT, mask_BTS, frame_mask_BFG, cache
        )
        return self.projection(states_BFD), cache

    def speak(self, speaker_BE: jax.Array) -> jax.Array:
        """Speaker vectors of any length but 0 -> [B, M]."""
        norm_B1 = jnp.sqrt(jnp.sum(jnp.square(speaker_BE), axis=-1, keepdims=True))
        return self.speaker(speaker_BE / jnp.maximum(norm_B1, 1e-12))


def estimator_of(config: FlowConfig, params: Any) -> Velocity:
    """The estimator with its parameters, as `solve` takes it."""
    module, own = FlowEstimator(config.estimator), {"params": params["estimator"]}
    return lambda *args: module.apply(own, *args)


def time_grid(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Times before each Euler step and the steps' widths, float32 [steps]: 1 - cos(pi/2 n/steps),
    dense where the flow leaves the noise.

    Raises:
      UserError: fewer than one step.
    """
    if steps < 1:
        raise UserError(f"the flow needs at least 1 Euler step, got {steps}")
    grid = (1 - np.cos(np.linspace(0, 1, steps + 1) * (np.pi / 2))).astype(np.float32)
    return grid[:-1], np.diff(grid)


def solve(
    estimator: Velocity,
    noise_BTM: jax.Array,
    given: Conditions,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    caches: Any = None,
) -> tuple[jax.Array, jax.Array, Any]:
    """Euler's method from the noise, at time 0, to the mel, at time 1.

    The velocity is (1 + guidance) conditional - guidance unconditional, where the latter sees no
    mean, no speaker and no prompt. Without guidance (0) only the former is computed.

    Args:
      steps, guidance: Python numbers (static under jit).
      caches: an `EstimatorCache` with a leading axis [steps] whose rows are the conditional ones,
        then (with guidance) the others; or None.

    Returns:
      (mel [B, T, M], states before each step [steps, B, T, M], the next caches).
    """
    ways, rows = guided_rows(guidance), len(noise_BTM)
    twice = lambda x: jnp.concatenate([x] * ways, axis=0)
    or_zeros = lambda x: x if ways == 1 else jnp.concatenate([x, jnp.zeros_like(x)], axis=0)
    seen = or_zeros(given.mu_BTM), or_zeros(given.speaker_BM), or_zeros(given.cond_BTM)
    masks = twice(given.valid_BT), twice(given.mask_BTS)

    def step(carry, inputs):
        (x_BTM, caches), (number, time, width) = carry, inputs
        cache = jax.tree.map(
            lambda all_steps: jax.lax.dynamic_index_in_dim(all_steps, number, keepdims=False),
            caches,
        )
        velocity, cache = estimator(
            twice(x_BTM), *seen, jnp.broadcast_to(time, (ways * rows,)), *masks, cache
        )
        if ways == 2:
            conditional, unconditional = jnp.split(velocity, 2)
            velocity = (1 + guidance) * conditional - guidance * unconditional
        # Carried and written in place: as stacked outputs the caches,
        # which are large, would need their memory twice.
        caches = jax.tree.map(
            lambda all_steps, own: jax.lax.dynamic_update_index_in_dim(all_steps, own, number, 0),
            caches,
            cache,
        )
        return (x_BTM + width * velocity, caches), x_BTM

    times, widths = time_grid(steps)
    (mel_BTM, caches), states = jax.lax.scan(
        step, (noise_BTM, caches), (jnp.arange(steps), jnp.asarray(times), jnp.asarray(widths))
    )
    return mel_BTM, states, caches


def guided_rows(guidance: float) -> int:
    """How many evaluations a row needs: 2 with guidance, 1 without."""
    return 2 if guidance else 1


def generate(
    config: FlowConfig,
    params: Any,
    batch: Utterances,
    noise: jax.Array,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    temperature: float = 1.0,
    chunks: Chunks | None = None,
    final: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Mel frames of the speech of each row, from its first one on. Pure; jit it with everything but
    params, batch and noise static.

    Args:
      noise: keys [B] or a table, see `frame_noise`. temperature: factor of the noise.
      chunks: attend in chunks, or (None) everywhere.
      final: False: more tokens will come; the last `lookahead` ones are only looked at.

    Returns:
      (mel [B, 2L, M], natural log; zeros after the last frame, number of frames int32 [B]).

    Raises:
      UserError: unusable noise, or fewer than one step.
    """
    length = batch.ids_BL.shape[1]
    check_noise(noise, len(batch.ids_BL), config.estimator.num_mels)
    time_grid(steps)  # raises before anything is computed
    given = conditions(config, params, batch, chunks, final)
    frame_BT = jnp.broadcast_to(jnp.arange(RATE * length)[None, :], given.valid_BT.shape)
    start_BTM = temperature * frame_noise(noise, frame_BT, config.estimator.num_mels)
    mel_BTM, _, _ = solve(
        estimator_of(config, params), start_BTM, given, steps=steps, guidance=guidance
    )
    prompt_B = RATE * batch.prompt_B
    frames_B = jnp.maximum(given.valid_BT.sum(axis=1) - prompt_B, 0)
    mel_BTM = jnp.take_along_axis(
        mel_BTM, jnp.minimum(frame_BT + prompt_B[:, None], RATE * length - 1)[:, :, None], axis=1
    )
    return jnp.where((frame_BT < frames_B[:, None])[:, :, None], mel_BTM, 0.0), frames_B


def conditions(
    config: FlowConfig,
    params: Any,
    batch: Utterances,
    chunks: Chunks | None = None,
    final: bool = True,
) -> Conditions:
    """What the flow of whole utterances depends on; arguments as `generate`."""
    length, lookahead = batch.ids_BL.shape[1], config.encoder.lookahead
    end_B = batch.length_B if final else batch.length_B - lookahead
    present_BL = jnp.arange(length + lookahead)[None, :] < batch.length_B[:, None]
    valid_BL = jnp.arange(length)[None, :] < end_B[:, None]
    valid_BT = jnp.repeat(valid_BL, RATE, axis=1)
    shift_B = None if chunks is None else chunks.shift(batch.prompt_B, lookahead)
    mask_BTS = chunk_mask(valid_BT, chunks, shift_B, RATE)
    bound = Flow(config).bind({"params": params})
    ids_BL = jnp.pad(batch.ids_BL, ((0, 0), (0, lookahead)))
    mu_BTM, _ = bound.expect(
        ids_BL, present_BL, valid_BL, chunk_mask(valid_BL, chunks, shift_B), mask_BTS
    )
    return Conditions(mu_BTM, bound.speak(batch.speaker_BE), batch.cond_BTM, valid_BT, mask_BTS)
