"""What the rest of the house knows of a codec: speech tokens <-> waveform, with its parameters
inside.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class CodecStream(Protocol):
    """One utterance being decoded as its tokens come."""

    def push(self, ids_n: np.ndarray) -> np.ndarray:
        """The next tokens, int [n] -> the samples that are final now, float32 [N] (perhaps none)."""

    def finish(self) -> np.ndarray:
        """The samples that are left, once there are no more tokens."""


class Codec(Protocol):
    """A codec family with its parameters. Batches are lists, one array a row; a row gives the same
    alone and in any batch.
    """

    sample_rate: int  # Hz
    token_samples: int  # samples a token; sample_rate / token_samples tokens a second
    vocabulary: int  # ids are 0 .. vocabulary - 1

    def encode(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Mono float32 waves [N] at `sample_rate` -> token ids int32 [ceil(N / token_samples)]."""

    def decode(self, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Token ids [L] -> waves float32 [L * token_samples]."""

    def stream(self) -> CodecStream:
        """A new utterance. What its pushes return, joined, is what `decode` returns."""

    def warm_up(self, tokens: int) -> None:
        """Compiles `decode` of up to `tokens` tokens and the stream, so that the first call is fast."""

    def with_settings(self, **changes) -> "Codec":
        """This codec for a request with other settings; it shares parameters and compiled programs.
        UserError: settings that the family does not have.
        """
