"""The speech front end: a wave -> speech encoder states -> what the Thinker reads in the place of
typed words.

Adaptors behind one interface: the stack adaptor's vectors go straight into the Thinker (the paper's
way); the others write down what they hear, by attention or by CTC, and the Thinker's own tokenizer
and embedding table make vectors of it.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio.wave import Source, load_wave
from mdmspeech.errors import UserError
from mdmspeech.inference.no_speech import MOST, no_words, spoken_part
from mdmspeech.models.ctc_adaptor import CTCAdaptor, CTCConfig, ctc_greedy_decode
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig, greedy_decode
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig, encode_waves
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.padding import batches, stack
from mdmspeech.programs import KeptProgram
from mdmspeech.speech_format import INPUT_RATE
from mdmspeech.text.pieces import shipped, shipped_names

SECONDS = (2, 3, 4, 6, 8, 12, 16, 24, 30)  # padded lengths of a question


class EncodedSpeech(NamedTuple):
    """What was heard. Exactly one of the first two is there.

    vectors: float32 [N, D], input vectors of the Thinker. transcript: text, "" if no speech was
      heard. encoder_s, adaptor_s: seconds it took (a batch's, if in a batch).
    """

    vectors: np.ndarray | None
    transcript: str | None
    encoder_s: float
    adaptor_s: float


def load_waves(sources: Sequence[Source], limit: float = SECONDS[-1]) -> list[np.ndarray]:
    """Clean 16 kHz waves of anything `audio.wave.load_wave` takes.

    Raises:
      UserError: not a sequence of recordings, or one of them cannot be heard: which one, and why.
    """
    if (
        isinstance(sources, (str, bytes, os.PathLike))
        or hasattr(sources, "read")
        or not isinstance(sources, Iterable)
    ):
        raise UserError(
            f"many recordings are asked for, {type(sources).__name__} is one; give a list"
        )
    sources, waves = list(sources), []
    for number, source in enumerate(sources, 1):
        try:
            waves.append(load_wave(source, INPUT_RATE, max_seconds=limit))
        except UserError as error:
            raise UserError(
                f"recording {number} of {len(sources)}: {error}" if len(sources) > 1 else str(error)
            ) from error
    return waves


class SpeechFrontend:
    """Encoder and an adaptor; `load` accepts anything `audio.wave.load_wave` does.

    Args:
      encoder, encoder_params: Whisper's encoder.
      adaptor: a function (params, states_BTD, valid_BT) -> array or arrays, and its parameters.
      finish: (those in NumPy, valid_BT, row) -> (vectors, transcript).
      about: what tells this adaptor's function from any other's, see `programs.KeptProgram`.
    """

    def __init__(
        self,
        encoder: SpeechEncoderConfig,
        encoder_params: dict,
        adaptor: Callable,
        adaptor_params: dict,
        finish: Callable,
        about: Any = None,
    ):
        self.limit = encoder.max_positions / 50
        self._module = SpeechEncoder(encoder)
        self._params = jax.device_put((encoder_params, adaptor_params))
        self._finish = finish
        self._encode = KeptProgram("front end", "encode", self._states, encoder)
        self._adapt = KeptProgram("front end", "adapt", adaptor, about)

    def load(self, source: Source) -> np.ndarray:
        """A clean 16 kHz wave, or one clear error (see `load_wave`)."""
        return load_waves([source], self.limit)[0]

    def encode(self, source: Source) -> EncodedSpeech:
        """Hears one wave."""
        return self.encode_many([source])[0]

    def encode_many(self, sources: Sequence[Source]) -> list[EncodedSpeech]:
        """Hears many, in batches of similar lengths; each as it would be heard alone."""
        waves = load_waves(sources, self.limit)
        sizes = [second * INPUT_RATE for second in SECONDS if second < self.limit]
        sizes.append(int(self.limit * INPUT_RATE))
        heard: dict[int, EncodedSpeech] = {}
        for rows, width, size in batches([len(wave) for wave in waves], sizes):
            began = time.perf_counter()
            padded, valid = stack([waves[i] for i in rows], width, size, np.float32)
            states, valid_BT = jax.block_until_ready(
                self._encode(self._params[0], padded, valid.sum(axis=1).astype(np.int32))
            )
            encoded = time.perf_counter()
            out, valid_BT = jax.device_get(
                (self._adapt(self._params[1], states, valid_BT), valid_BT)
            )
            results = [self._finish(out, valid_BT, b) for b in range(len(rows))]
            adapted = time.perf_counter()
            for i, (vectors, transcript) in zip(rows, results, strict=True):
                heard[i] = EncodedSpeech(vectors, transcript, encoded - began, adapted - encoded)
        return [heard[i] for i in range(len(waves))]

    def warm_up(self, seconds: Sequence[float] | None = (3.0,)) -> None:
        """Compiles for questions of these lengths; None: of all."""
        noise = np.random.default_rng(0)
        if seconds is None:
            seconds = sorted({min(length, self.limit) for length in SECONDS})
        for length in seconds:
            self.encode((0.1 * noise.normal(size=int(length * INPUT_RATE)), INPUT_RATE))

    def _states(self, params, waves_BN, samples_B):
        return encode_waves(self._module, params, waves_BN, samples_B)


def seq2seq_frontend(
    encoder: SpeechEncoderConfig, encoder_params: dict, config: Seq2SeqConfig, params: dict
) -> SpeechFrontend:
    """A front end whose adaptor writes text pieces: its `EncodedSpeech` has a transcript, of what
    was spoken only (see `no_speech`).
    """
    pieces, silent_V = shipped(), no_words(shipped_names())
    if len(pieces) != config.pieces:
        raise UserError(
            f"the adaptor writes {config.pieces} pieces, this program knows "
            f"{len(pieces)}: use the version it was made with"
        )

    def adapt(params, states, valid):
        written = greedy_decode(config, params, states, valid)
        return written.ids_BN, jnp.sum(jnp.exp(written.first_BV), axis=-1, where=silent_V)

    def finish(out: tuple[np.ndarray, np.ndarray], valid: np.ndarray, row: int) -> tuple[None, str]:
        ids_BN, silent_B = out
        return None, "" if silent_B[row] > MOST else spoken_part(pieces.decode(ids_BN[row]))

    about = (config, np.flatnonzero(silent_V).tolist())
    return SpeechFrontend(encoder, encoder_params, adapt, params, finish, about)


def ctc_frontend(
    encoder: SpeechEncoderConfig, encoder_params: dict, config: CTCConfig, params: dict
) -> SpeechFrontend:
    """A front end whose adaptor writes letters by CTC: its `EncodedSpeech` has a transcript."""
    module = CTCAdaptor(config)

    def adapt(params, states, valid):
        return module.apply({"params": params}, states, valid)

    return SpeechFrontend(
        encoder,
        encoder_params,
        adapt,
        params,
        lambda logits, valid, row: (
            None,
            ctc_greedy_decode(logits[row : row + 1], valid[row : row + 1])[0],
        ),
        config,
    )


def stack_frontend(
    encoder: SpeechEncoderConfig, encoder_params: dict, module: StackAdaptor, params: dict
) -> SpeechFrontend:
    """The paper's front end: its `EncodedSpeech` has vectors."""

    def adapt(params, states, valid):
        return module.apply({"params": params}, states * valid[..., None])

    return SpeechFrontend(
        encoder,
        encoder_params,
        adapt,
        params,
        lambda out, valid, row: (out[row, : module.num_vectors(int(valid[row].sum()))], None),
        module,
    )
