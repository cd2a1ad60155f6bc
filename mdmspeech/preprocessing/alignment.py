"""Aligning recordings with what they say, by three trained parts: the speech encoder and the phone
classifier hear, the Talker's duration head expects.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.data.recordings.align import Alignment, align
from mdmspeech.models import talker
from mdmspeech.models.phone_classifier import PhoneClassifier, PhoneClassifierConfig
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig, encode_waves
from mdmspeech.speech_format import (
    DURATION_SECONDS,
    INPUT_RATE,
    STATE_SECONDS,
    TOKEN_SECONDS,
    WHISPER_SECONDS,
)

# waves are padded to multiples of 4 s, symbols to 64,
# batches to 4 rows: few shapes, few compilations
_SECONDS, _SYMBOLS, _ROWS = 4, 64, 4


def make_aligner(
    encoder: tuple[SpeechEncoderConfig, dict],
    reader: tuple[PhoneClassifierConfig, dict],
    paced: tuple[talker.TalkerConfig, dict],
    pauses: Sequence[int],
) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[Alignment | None]]:
    """A function (waves float32 [N] at 16 kHz, up to 30 s; symbols int [M]) -> their alignments,
    None where there are more symbols than 25 ms units.

    Args:
      encoder, reader: config and parameters. paced: a Talker with paced anchors, whose duration
        head tells what to expect of a text.
      pauses: symbols that are silence or may be, see `data.recordings.align`.
    """
    hear, expect = _hearing(*encoder, *reader), _expecting(*paced)

    def run(waves, symbols):
        logp = hear(waves)
        expected = expect(symbols)
        return [align(*row, pauses) for row in zip(logp, symbols, expected, strict=True)]

    return run


def units(wave_N: np.ndarray, rate: int) -> int:
    """Whole units of 25 ms that hold the wave."""
    return -(-len(wave_N) // round(rate * DURATION_SECONDS))


def make_encoder(
    config: SpeechEncoderConfig, params
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """A function waves [N] at 16 kHz, up to 30 s -> their states, float32 [ceil(N / 320), D]."""
    encoder, params = SpeechEncoder(config), jax.tree.map(jnp.asarray, params)
    return _in_batches(
        jax.jit(lambda waves_BN, samples_B: encode_waves(encoder, params, waves_BN, samples_B)[0])
    )


def _hearing(
    config: SpeechEncoderConfig, params, reader_config: PhoneClassifierConfig, reader_params
) -> Callable:
    """Waves -> log-posteriors in each unit, [T, V]."""
    encoder, reader = SpeechEncoder(config), PhoneClassifier(reader_config)
    params, reader_params = (jax.tree.map(jnp.asarray, tree) for tree in (params, reader_params))

    @jax.jit
    def read(waves_BN, samples_B):
        states, _ = encode_waves(encoder, params, waves_BN, samples_B)
        return jax.nn.log_softmax(reader.apply({"params": reader_params}, states))

    read_all = _in_batches(read)
    return lambda waves: [
        _in_units(logp, units(wave, INPUT_RATE))
        for logp, wave in zip(read_all(waves), waves, strict=True)
    ]


def _in_batches(encode: Callable) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Padded batches of similar lengths through `encode(waves_BN, samples_B) -> [B, T, ...]`; each
    row is cut to its own states.
    """

    def run(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
        found = [np.zeros(0)] * len(waves)
        for first in range(0, len(order), _ROWS):
            rows = order[first : first + _ROWS]
            width = -(-len(waves[rows[-1]]) // (_SECONDS * INPUT_RATE)) * _SECONDS * INPUT_RATE
            padded, samples = (
                np.zeros((_ROWS, min(width, WHISPER_SECONDS * INPUT_RATE)), np.float32),
                np.zeros(_ROWS, np.int32),
            )
            for b, i in enumerate(rows):
                padded[b, : len(waves[i])], samples[b] = waves[i], len(waves[i])
            out = np.asarray(encode(padded, samples))
            for b, i in enumerate(rows):
                found[i] = out[b, : -(-len(waves[i]) // round(INPUT_RATE * STATE_SECONDS))]
        return found

    return run


def _in_units(logp_TV: np.ndarray, count: int) -> np.ndarray:
    """Log-posteriors of states, 20 ms apart, at the middles of units of 25 ms, [count, V]."""
    at = np.clip(
        (np.arange(count) + 0.5) * DURATION_SECONDS / STATE_SECONDS - 0.5, 0, len(logp_TV) - 1
    )
    left = at.astype(int)
    right = np.minimum(left + 1, len(logp_TV) - 1)
    share = (at - left)[:, None]
    return (1 - share) * logp_TV[left] + share * logp_TV[right]


def _expecting(config: talker.TalkerConfig, params) -> Callable:
    model, params = talker.Talker(config), jax.tree.map(jnp.asarray, params)
    read = jax.jit(
        lambda symbols, valid: model.apply({"params": params}, symbols, valid, method="read")[1]
    )

    def run(symbols: Sequence[np.ndarray]) -> list[np.ndarray]:
        expected = []
        for row in symbols:
            padded = np.zeros((1, -(-len(row) // _SYMBOLS) * _SYMBOLS), np.int32)
            padded[0, : len(row)] = row
            log_tokens = np.asarray(read(padded, np.arange(padded.shape[1])[None] < len(row)))
            expected.append(np.exp(log_tokens[0, : len(row)]) * TOKEN_SECONDS / DURATION_SECONDS)
        return expected

    return run
