"""HiFT's pitch: mel frames -> F0 in Hz by five convolutions (CosyVoice's ConvRNNF0Predictor, which
has no RNN).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.hift_layers import Clock, Conv, Signal, Streamed

# F0 is integrated into phase: an error of a bfloat16 product would be whole cycles after a second.
EXACT = jax.lax.Precision.HIGHEST


class F0Predictor(Streamed):
    """Mel [B, T, M] -> F0 in Hz [B, T, 1], zero outside the rows. Sees `f0_num_layers` frames to
    either side.
    """

    config: HiFTConfig

    @nn.compact
    def __call__(self, mel: Signal, clock: Clock) -> Signal:
        hidden = mel
        for i in range(self.config.f0_num_layers):
            hidden = Conv(
                self.stream, self.config.f0_channels, 3, precision=EXACT, name=f"conv_{i}"
            )(hidden, clock)
            hidden = hidden.of(nn.elu(hidden.x_BTC))
        f0_BT1 = jnp.abs(nn.Dense(1, precision=EXACT, name="out")(hidden.x_BTC))
        return clock.blank(hidden.of(f0_BT1))
