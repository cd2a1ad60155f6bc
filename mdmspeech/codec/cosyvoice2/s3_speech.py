"""Waves of any length -> S3 tokens, with static shapes: rows are grouped into a few padded lengths,
long ones cut into windows.

The published tokenizer heard at most 30 s at a time, so longer speech goes through windows of 30 s
that overlap by 4 s, and of each overlap both windows give the half that lies farther from their
edge (xingchensong/S3Tokenizer, `quantize`). The last window is the one that reaches the end: the
reference at first let one more begin behind it, which lost up to 2 s of tokens for some lengths.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech import padding
from mdmspeech.audio.features import s3_log_mel
from mdmspeech.codec.cosyvoice2.s3_tokenizer import (
    FRAMES_PER_TOKEN,
    S3Config,
    token_count,
    token_ids,
)
from mdmspeech.errors import UserError
from mdmspeech.speech_format import (
    FRAME_RATE,
    INPUT_RATE,
    TOKEN_RATE,
    WHISPER_FFT,
    WHISPER_HOP,
    WHISPER_SECONDS,
)

WINDOW, OVERLAP = WHISPER_SECONDS * FRAME_RATE, 4 * FRAME_RATE  # frames
_LENGTHS = (200, 400, 800, 1600, WINDOW)  # padded frames: each is compiled once


class S3Tokenizer:
    """An S3 tokenizer with its parameters. Batches are lists, one array a row; a row gives the same
    alone and in any batch.
    """

    sample_rate = INPUT_RATE  # Hz
    token_rate = TOKEN_RATE  # tokens a second

    def __init__(self, config: S3Config, params: dict) -> None:
        self.config = config
        self.params = jax.tree.map(jnp.asarray, params)
        self._ids = jax.jit(functools.partial(token_ids, config))
        self._mel = jax.jit(functools.partial(s3_log_mel, num_mels=config.num_mels))

    def encode(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Mono float waves [N] at 16 kHz, full scale 1 -> token ids int32
        [ceil(floor(N / 160) / 4)] (25 a second).

        Raises:
          UserError: not a mono float wave, or one of 200 samples (12.5 ms) or less.
        """
        return self.encode_mels(
            [self.mel(wave_N, f"wave {row}") for row, wave_N in enumerate(waves)]
        )

    def mel(self, wave_N: np.ndarray, name: str = "the wave") -> np.ndarray:
        """The features of a whole wave, float32 [floor(N / 160), num_mels]. Raises as `encode`;
        `name` is for errors.
        """
        wave_N = np.asarray(wave_N)
        if wave_N.ndim != 1 or not np.issubdtype(wave_N.dtype, np.floating):
            raise UserError(
                f"{name} is {wave_N.dtype} {list(wave_N.shape)}; the S3 tokenizer "
                "takes mono float waves between -1 and 1"
            )
        if len(wave_N) <= WHISPER_FFT // 2:
            raise UserError(
                f"{name} has {len(wave_N)} samples at 16 kHz; the S3 tokenizer "
                f"needs more than {WHISPER_FFT // 2}"
            )
        frames = len(wave_N) // WHISPER_HOP
        longest = -(-(frames + 1) // WINDOW) * WINDOW  # beyond 30 s one shape every 30 s
        wave_1N, _ = padding.stack(
            [wave_N], padding.bucket(frames + 1, (*_LENGTHS, longest)) * WHISPER_HOP, 1, np.float32
        )
        with jax.default_matmul_precision("highest"):
            return np.asarray(self._mel(wave_1N, jnp.array([len(wave_N)])))[0, :frames]

    def encode_mels(self, mels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-mel features [T, num_mels] of whole utterances -> token ids int32 [ceil(T / 4)]."""
        pieces = [[mel_TM[start:end] for start, end in windows(len(mel_TM))] for mel_TM in mels]
        rows = [piece for utterance in pieces for piece in utterance]
        ids = iter(self._encode_short(rows))
        return [join([next(ids) for _ in utterance]) for utterance in pieces]

    def _encode_short(self, mels: list[np.ndarray]) -> list[np.ndarray]:
        """`encode_mels` of rows of at most 30 s."""
        lengths = [len(mel_TM) for mel_TM in mels]
        out: list[np.ndarray] = [np.zeros(0, np.int32)] * len(mels)
        for rows, width, count in padding.batches(lengths, _LENGTHS):
            mel_BTM, real_BT = padding.stack([mels[row] for row in rows], width, count, np.float32)
            ids_BL = np.asarray(self._ids(self.params, mel_BTM, real_BT.sum(axis=1)))
            for place, row in enumerate(rows):
                out[row] = ids_BL[place, : token_count(lengths[row])]
        return out


def windows(frames: int) -> list[tuple[int, int]]:
    """(start, end) of the windows that cover an utterance, in frames: one if it is no longer than
    30 s.
    """
    starts = range(0, max(frames - OVERLAP, 1), WINDOW - OVERLAP)
    return [(start, min(start + WINDOW, frames)) for start in starts]


def join(ids: Sequence[np.ndarray]) -> np.ndarray:
    """The tokens of an utterance from those of its windows: half an overlap is cut at every seam
    from either side.
    """
    half = OVERLAP // 2 // FRAMES_PER_TOKEN
    last = len(ids) - 1
    return np.concatenate(
        [row[half if i else 0 : len(row) - half if i < last else None] for i, row in enumerate(ids)]
    )
