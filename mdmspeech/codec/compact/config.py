"""Sizes of the compact codec. Every time is a whole number of hops, every token a whole number of
frames.
"""

import dataclasses

from mdmspeech.config_names import renamed_fields


@renamed_fields
@dataclasses.dataclass(frozen=True)
class CompactCodecConfig:
    """The compact codec (25 tokens/s, 24 kHz). Frames are `hop` samples; a token is `frames_per_token`
    frames.
    """

    sample_rate: int = 24_000
    hop: int = 240  # 10 ms
    window: int = 960  # 40 ms: analysis and synthesis
    frames_per_token: int = 4  # 25 tokens/s
    num_mels: int = 100
    # of the natural-log mel; fixed numbers, so that a codec needs no statistics file
    mel_mean: float = -6.5
    mel_std: float = 2.8
    encoder_dim: int = 256
    encoder_num_layers: int = 4
    encoder_reach: int = 12  # tokens seen on either side in each layer
    decoder_dim: int = 320
    decoder_num_layers: int = 6
    decoder_reach: int = 12  # tokens seen to the left in each layer
    # tokens seen to the right in the first layers; the others see none
    decoder_lookahead: tuple[int, ...] = (1, 1)
    frame_dim: int = 256
    head_dim: int = 64
    # classes (symbols of the pronouncer) of the phonetic auxiliary head (training only)
    phones: int = 128
    # weight of the semantic auxiliary loss (training only); 0: there is no such head
    semantic: float = 0.0
    # width of the speech encoder's states that the semantic head predicts
    semantic_dim: int = 512

    @property
    def token_rate(self) -> float:
        return self.sample_rate / self.token_samples

    @property
    def token_samples(self) -> int:
        return self.hop * self.frames_per_token

    @property
    def left_context(self) -> int:
        """Tokens to the left that can still change a token's frames."""
        return self.decoder_reach * self.decoder_num_layers + 2

    @property
    def right_context(self) -> int:
        """Tokens to the right that can still change a token's samples: attention, frame convolutions,
        overlap-add.
        """
        return sum(self.decoder_lookahead) + 2
