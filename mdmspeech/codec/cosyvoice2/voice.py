"""A voice as a part of a release: a flow's prompt in the form of parameters, of sizes that a config
tells.

Token ids are kept as their eight digits, which any float type holds exactly (ids above 2048 do not
fit into 16 bits).
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec import fsq
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt
from mdmspeech.codec.cosyvoice2.flow_encoder import RATE
from mdmspeech.speech_format import DIGITS


@dataclasses.dataclass(frozen=True)
class VoiceConfig:
    """Sizes of a voice: tokens of its prompt, mel bins, length of the speaker vector."""

    tokens: int = 0
    num_mels: int = 80
    speaker_dim: int = 192


def voice_shapes(config: VoiceConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a voice's parameters."""
    shapes = {
        "codes": (config.tokens, DIGITS),
        "mel": (RATE * config.tokens, config.num_mels),
        "speaker": (config.speaker_dim,),
    }
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def voice_params(prompt: Prompt) -> tuple[VoiceConfig, dict[str, np.ndarray]]:
    """A prompt -> (its sizes, its parameters)."""
    config = VoiceConfig(len(prompt.ids), prompt.mel.shape[1], len(prompt.speaker))
    codes = np.asarray(fsq.ids_to_codes(jnp.asarray(prompt.ids, jnp.int32)))
    return config, {
        "codes": codes,
        "mel": np.asarray(prompt.mel, np.float32),
        "speaker": np.asarray(prompt.speaker, np.float32),
    }


def voice_prompt(params: Mapping[str, np.ndarray]) -> Prompt:
    """The inverse of `voice_params`."""
    ids = np.asarray(fsq.codes_to_ids(jnp.asarray(params["codes"])), np.int32)
    return Prompt(
        ids, np.asarray(params["mel"], np.float32), np.asarray(params["speaker"], np.float32)
    )
