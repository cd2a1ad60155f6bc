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
from mdmspeech.models.seq2seq_adaptor import (
    Seq2SeqConfig,
    greedy_decode,
    most_pieces,
    without_loop,
)
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig, encode_waves
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.padding import batches, stack
from mdmspeech.programs import KeptProgram
from mdmspeech.speech_format import INPUT_RATE
from mdmspeech.text.pieces import shipped, shipped_names

SECONDS = (2, 3, 4, 6, 8, 12, 16, 24, 30)  # padded lengths of a question
_DRAFTS = 24  # ids of a draft that are looked at: four seconds of speech and more


class EncodedSpeech(NamedTuple):
    """What was heard. Exactly one of the first two is there.

    vectors: float32 [N, D], input vectors of the Thinker. transcript: text, "" if no speech was
      heard. encoder_s, adaptor_s: seconds it took (a batch's, if in a batch). written: int32 [N], ids
      of an adaptor that can be given drafts, to be the draft when more of the same is heard.
    """

    vectors: np.ndarray | None
    transcript: str | None
    encoder_s: float
    adaptor_s: float
    written: np.ndarray | None = None


class SpeechStates(NamedTuple):
    """What the encoder made of a batch, on the device: states [B, T, D] and valid bool [B, T], of
    `rows` waves and others that fill it up; seconds that it took.
    """

    states_BTD: jax.Array
    valid_BT: jax.Array
    rows: int
    seconds: float


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
      drafts: (how many ids of a draft the adaptor takes at most, id behind a draft); then its function
        takes drafts_BD, too, and the first array that it gives are the ids that it wrote.
    """

    def __init__(
        self,
        encoder: SpeechEncoderConfig,
        encoder_params: dict,
        adaptor: Callable,
        adaptor_params: dict,
        finish: Callable,
        about: Any = None,
        drafts: tuple[int, int] | None = None,
    ):
        self.limit = encoder.max_positions / 50
        self._module = SpeechEncoder(encoder)
        self._params = jax.device_put((encoder_params, adaptor_params))
        self._finish, self._drafts = finish, drafts
        self._ready = set[int]()  # padded lengths that one wave alone was heard with
        self._encode = KeptProgram("front end", "encode", self._encoded, encoder)
        self._adapt = KeptProgram("front end", "adapt", adaptor, about)

    def load(self, source: Source) -> np.ndarray:
        """A clean 16 kHz wave, or one clear error (see `load_wave`)."""
        return load_waves([source], self.limit)[0]

    def encode(self, source: Source, draft: np.ndarray | None = None) -> EncodedSpeech:
        """Hears one wave. draft: what it probably begins with, `EncodedSpeech.written` of an earlier
        hearing; it saves time and changes nothing.
        """
        return self._hear([source], [draft])[0]

    def encode_many(self, sources: Sequence[Source]) -> list[EncodedSpeech]:
        """Hears many, in batches of similar lengths; each as it would be heard alone."""
        return self._hear(sources, None)

    @property
    def takes_drafts(self) -> bool:
        """Whether the adaptor can do something with a draft."""
        return self._drafts is not None

    def ready_length(self, samples: int) -> int | None:
        """The smallest padded length that holds so many samples and needs no compiling; None: none."""
        return min((size for size in self._ready if size >= samples), default=None)

    def states(self, waves: Sequence[np.ndarray], length: int, rows: int) -> SpeechStates:
        """The encoder's half: clean 16 kHz waves (see `load`), padded to `length` samples and `rows`
        rows.
        """
        began = time.perf_counter()
        padded, valid = stack(waves, length, rows, np.float32)
        states, valid_BT = jax.block_until_ready(
            self._encode(self._params[0], padded, valid.sum(axis=1).astype(np.int32))
        )
        return SpeechStates(states, valid_BT, len(waves), time.perf_counter() - began)

    def read(
        self, speech: SpeechStates, drafts: Sequence[np.ndarray | None] = ()
    ) -> list[EncodedSpeech]:
        """The adaptor's half."""
        began, more = time.perf_counter(), []
        if self._drafts is not None:
            most, end = self._drafts
            more.append(np.full((len(speech.states_BTD), most), end, np.int32))
            for row, draft in enumerate(drafts):
                if draft is not None:
                    more[0][row, : len(draft)] = draft[:most]
        out = self._adapt(self._params[1], speech.states_BTD, speech.valid_BT, *more)
        out, valid_BT = jax.device_get((out, speech.valid_BT))
        found = [self._finish(out, valid_BT, b) for b in range(speech.rows)]
        written = out[0] if self._drafts is not None else [None] * speech.rows
        took = time.perf_counter() - began
        return [
            EncodedSpeech(vectors, transcript, speech.seconds, took, ids)
            for (vectors, transcript), ids in zip(found, written, strict=False)
        ]

    def _hear(
        self, sources: Sequence[Source], drafts: Sequence[np.ndarray | None] | None
    ) -> list[EncodedSpeech]:
        waves = load_waves(sources, self.limit)
        sizes = [second * INPUT_RATE for second in SECONDS if second < self.limit]
        sizes.append(int(self.limit * INPUT_RATE))
        heard: dict[int, EncodedSpeech] = {}
        for rows, length, size in batches([len(wave) for wave in waves], sizes):
            speech = self.states([waves[i] for i in rows], length, size)
            mine = [] if drafts is None else [drafts[i] for i in rows]
            heard.update(zip(rows, self.read(speech, mine), strict=True))
            if size == 1:
                self._ready.add(length)
        return [heard[i] for i in range(len(waves))]

    def warm_up(self, seconds: Sequence[float] | None = (3.0,)) -> None:
        """Compiles for questions of these lengths; None: of all."""
        noise = np.random.default_rng(0)
        if seconds is None:
            seconds = sorted({min(length, self.limit) for length in SECONDS})
        for length in seconds:
            self.encode((0.1 * noise.normal(size=int(length * INPUT_RATE)), INPUT_RATE))

    def _encoded(self, params, waves_BN, samples_B):
        return encode_waves(self._module, params, waves_BN, samples_B)


def seq2seq_frontend(
    encoder: SpeechEncoderConfig, encoder_params: dict, config: Seq2SeqConfig, params: dict
) -> SpeechFrontend:
    """A front end whose adaptor writes text pieces: its `EncodedSpeech` has a transcript, of what
    was spoken only (see `no_speech`).
    """
    pieces, silent_V = shipped(config.pieces), no_words(shipped_names(config.pieces))

    def adapt(params, states, valid, drafts):
        written = greedy_decode(config, params, states, valid, drafts)
        return written.ids_BN, jnp.sum(jnp.exp(written.first_BV), axis=-1, where=silent_V)

    def finish(out: tuple[np.ndarray, np.ndarray], valid: np.ndarray, row: int) -> tuple[None, str]:
        ids_BN, silent_B = out
        if silent_B[row] > MOST:
            return None, ""
        written = [int(i) for i in ids_BN[row] if i != config.end]
        ids = without_loop(written, most_pieces(config, int(valid[row].sum())))
        return None, spoken_part(pieces.decode(ids))

    about = (config, np.flatnonzero(silent_V).tolist())
    drafts = (_DRAFTS, config.end)
    return SpeechFrontend(encoder, encoder_params, adapt, params, finish, about, drafts)


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
