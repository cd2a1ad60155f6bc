"""What goes into CosyVoice2's flow: its sizes, prompts, and padded batches of utterances, checked
on the host.

B batch, L tokens, T = 2 L frames, M mel bins.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mdmspeech.codec.cosyvoice2.flow_encoder import RATE, FlowEncoderConfig
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimatorConfig
from mdmspeech.errors import UserError


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Sizes of the flow; the defaults are CosyVoice2's (112.5 M parameters).

    Attributes:
      vocab_size: tokens of the S3 tokenizer. speaker_dim: length of the speaker vector (CAM++).
    """

    vocab_size: int = 6561
    speaker_dim: int = 192
    encoder: FlowEncoderConfig = dataclasses.field(default_factory=FlowEncoderConfig)
    estimator: FlowEstimatorConfig = dataclasses.field(default_factory=FlowEstimatorConfig)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A voice to speak in: tokens [P] and mel [2P, M] of an utterance of its speaker (P may be 0)
    and the speaker vector [E].
    """

    ids: np.ndarray
    mel: np.ndarray
    speaker: np.ndarray

    def trimmed(self) -> "Prompt":
        """The same with tokens and mel cut to a common length: the two feature extractors round
        differently.
        """
        tokens = min(len(self.ids), len(self.mel) // RATE)
        return Prompt(self.ids[:tokens], self.mel[: RATE * tokens], self.speaker)


@struct.dataclass
class Utterances:
    """A batch, made by `batch_of`."""

    ids_BL: jax.Array  # int32: prompt, speech, padding
    length_B: jax.Array  # int32: tokens, the prompt included
    prompt_B: jax.Array  # int32: tokens of the prompt
    cond_BTM: jax.Array  # mel of the prompt, zeros behind
    speaker_BE: jax.Array


def batch_of(
    config: FlowConfig,
    tokens: Sequence[np.ndarray],
    prompts: Sequence[Prompt],
    length: int | None = None,
) -> Utterances:
    """Pads rows of speech tokens [N] behind their prompts to `length` tokens (default: the longest
    row).

    Raises:
      UserError: a row without tokens or longer than `length`, ids outside the vocabulary, a prompt
        whose parts do not fit.
    """
    if not tokens or len(tokens) != len(prompts):
        raise UserError(
            f"the flow needs one prompt a row, got {len(tokens)} rows of tokens and "
            f"{len(prompts)} prompts"
        )
    for row, (ids, prompt) in enumerate(zip(tokens, prompts, strict=True)):
        check_prompt(config, prompt, f"row {row}")
        check_ids(config, ids, f"row {row}")
        if not len(ids):
            raise UserError(f"row {row} has no speech tokens; there is nothing to say")
    lengths = [len(prompt.ids) + len(ids) for ids, prompt in zip(tokens, prompts, strict=True)]
    length = max(lengths) if length is None else length
    if max(lengths) > length:
        raise UserError(
            f"row {int(np.argmax(lengths))} has {max(lengths)} tokens with its "
            f"prompt, the bucket only {length}"
        )
    ids_BL = np.zeros((len(tokens), length), np.int32)
    cond_BTM = np.zeros((len(tokens), RATE * length, config.estimator.num_mels), np.float32)
    for row, (ids, prompt) in enumerate(zip(tokens, prompts, strict=True)):
        ids_BL[row, : lengths[row]] = np.concatenate([prompt.ids, ids])
        cond_BTM[row, : len(prompt.mel)] = prompt.mel
    counts = np.array([len(prompt.ids) for prompt in prompts], np.int32)
    speakers = np.stack([prompt.speaker for prompt in prompts]).astype(np.float32)
    return Utterances(
        *(jnp.asarray(x) for x in (ids_BL, np.array(lengths, np.int32), counts, cond_BTM, speakers))
    )


def check_ids(config: FlowConfig, ids: np.ndarray, name: str) -> None:
    """Raises UserError unless `ids` are tokens of the vocabulary, [N]."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise UserError(f"{name} must be whole token ids [N], got {ids.dtype} {list(ids.shape)}")
    if ids.size and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise UserError(
            f"{name} has token ids from {ids.min()} to {ids.max()}, known are 0 to "
            f"{config.vocab_size - 1}; drop stop tokens"
        )


def check_prompt(config: FlowConfig, prompt: Prompt, name: str) -> None:
    """Raises UserError unless the parts of a prompt fit the model and each other."""
    check_ids(config, prompt.ids, f"the prompt of {name}")
    wanted = (RATE * len(prompt.ids), config.estimator.num_mels)
    if np.shape(prompt.mel) != wanted:
        raise UserError(
            f"the prompt of {name} has a mel of {list(np.shape(prompt.mel))}, its "
            f"tokens need {list(wanted)}; try trimmed()"
        )
    if np.shape(prompt.speaker) != (config.speaker_dim,):
        raise UserError(
            f"the prompt of {name} has a speaker vector of "
            f"{list(np.shape(prompt.speaker))}, needed is [{config.speaker_dim}]"
        )
