"""Convolutions that run on a whole utterance or block by block with the same result, for HiFT.

HiFT's convolutions are not causal. A block-wise run keeps the last inputs of each convolution
(Linen collection "stream") and hands each output out as soon as its last input has come, so every
layer works on as many new positions as came and all that streaming costs is delay. A `Signal` says
how far it lags behind the mel frames; where two signals meet, the earlier one waits in a buffer.

A row is zero before its first and behind its last frame at the input of every convolution (that is
what zero padding means when the row is alone), so every layer blanks what is outside: padded rows
equal rows alone, and a fresh, all-zero state is the start of an utterance.

B batch, T positions of a signal, C channels. `rate` is positions a mel frame.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

# frames (11 hours): the length of a row whose end has not come yet;
# times 480 samples it still fits int32
OPEN = 2**21


@flax.struct.dataclass
class Signal:
    """Consecutive positions of every row; all rows share one clock."""

    x_BTC: jax.Array
    rate: int = flax.struct.field(pytree_node=False, default=1)
    # positions that it lags behind the block of mel frames
    delay: int = flax.struct.field(pytree_node=False, default=0)
    extra: int = flax.struct.field(
        pytree_node=False, default=0
    )  # positions more than rate * frames that a row has (a centred STFT's last frame)

    def of(self, x_BTC: jax.Array) -> "Signal":
        """Other values at the same positions."""
        return dataclasses.replace(self, x_BTC=x_BTC)


@flax.struct.dataclass
class Clock:
    """Where a block is, and where rows end."""

    first: jax.Array  # int32 scalar: mel frames before this block (0 for whole utterances)
    length_B: jax.Array  # int32: mel frames of each row; OPEN while more may come

    def positions(self, signal: Signal) -> jax.Array:
        """Absolute positions of the signal, int32 [T]; negative before the utterance."""
        return self.first * signal.rate - signal.delay + jnp.arange(signal.x_BTC.shape[1])

    def heard(self, signal: Signal) -> jax.Array:
        """bool [B, T]: positions inside the rows."""
        at_1T = self.positions(signal)[None]
        return (at_1T >= 0) & (at_1T < self.length_B[:, None] * signal.rate + signal.extra)

    def blank(self, signal: Signal) -> Signal:
        """The signal with zeros outside the rows."""
        return signal.of(jnp.where(self.heard(signal)[..., None], signal.x_BTC, 0))


class Streamed(nn.Module):
    """A module that can work block by block (`stream`), with what it needs of earlier blocks in the
    collection "stream".
    """

    stream: bool

    def with_past(self, x_BTC: jax.Array, size: int, name: str = "past") -> jax.Array:
        """The last `size` positions of earlier blocks and then this block's, [B, size + T, C];
        keeps the last `size` for the next block.
        """
        past = self.variable(
            "stream", name, jnp.zeros, (x_BTC.shape[0], size, x_BTC.shape[2]), x_BTC.dtype
        )
        wide_BTC = jnp.concatenate([past.value, x_BTC], axis=1)
        past.value = wide_BTC[:, x_BTC.shape[1] :]
        return wide_BTC

    def meet(self, signals: Sequence[Signal], name: str) -> Signal:
        """Their sum; the earlier ones wait in buffers for the latest."""
        delay, waited = max(signal.delay for signal in signals), []
        for i, signal in enumerate(signals):
            x_BTC = signal.x_BTC
            if signal.delay < delay:
                longer = self.with_past(x_BTC, delay - signal.delay, f"{name}_{i}")
                x_BTC = longer[:, : x_BTC.shape[1]]
            waited.append(x_BTC)
        return dataclasses.replace(signals[0], x_BTC=functools.reduce(jnp.add, waited), delay=delay)


class Conv(Streamed):
    """PyTorch's Conv1d with zero padding `pad` on both sides (None: as many positions out as in)."""

    features: int
    kernel: int
    dilation: int = 1
    stride: int = 1
    pad: int | None = None
    precision: Any = None

    @nn.compact
    def __call__(self, signal: Signal, clock: Clock) -> Signal:
        x_BTC, stride, reach = signal.x_BTC, self.stride, (self.kernel - 1) * self.dilation
        pad = reach // 2 if self.pad is None else self.pad
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (self.kernel, x_BTC.shape[2], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        if self.stream:
            # Output j needs inputs j * stride - pad ... + reach:
            # the newest one that can be had decides the delay.
            delay = -(-(signal.delay + reach + 1 - stride - pad) // stride)
            wide_BTC = self.with_past(x_BTC, delay * stride + pad - signal.delay)
            count = x_BTC.shape[1] // stride
        else:
            delay = 0
            wide_BTC = jnp.pad(x_BTC, ((0, 0), (pad, pad), (0, 0)))
            count = (wide_BTC.shape[1] - reach - 1) // stride + 1
        y_BTC = jax.lax.conv_general_dilated(
            wide_BTC[:, : (count - 1) * stride + reach + 1],
            kernel,
            (stride,),
            "VALID",
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NTC", "TIO", "NTC"),
            precision=self.precision,
        )
        extra = (signal.extra + 2 * pad - reach - 1) // stride + 1
        return clock.blank(Signal(y_BTC + bias[None, None], signal.rate // stride, delay, extra))


class UpConv(Streamed):
    """PyTorch's ConvTranspose1d with padding (kernel - rate) // 2: `rate` positions out for one in.

    Each group of `rate` outputs depends on one input and its two neighbours, so it is one matrix
    product (no zeros are multiplied but a few taps).
    """

    features: int
    kernel: int
    rate: int

    @nn.compact
    def __call__(self, signal: Signal, clock: Clock) -> Signal:
        x_BTC, rate, pad = signal.x_BTC, self.rate, (self.kernel - self.rate) // 2
        channels = x_BTC.shape[2]
        kernel_kio = self.param(
            "kernel", nn.initializers.lecun_normal(), (self.kernel, channels, self.features)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        # Tap rate * (q - i) + s + pad takes input i to output s of group q; blocks of `rate` taps:
        # i = q + 1, q, q - 1.
        taps = jnp.pad(kernel_kio, ((rate - pad, 2 * rate + pad - self.kernel), (0, 0), (0, 0)))
        matrix = (
            taps.reshape(3, rate, channels, self.features)[::-1]
            .swapaxes(1, 2)
            .reshape(3 * channels, rate * self.features)
        )
        wide_BTC = (
            self.with_past(x_BTC, 2) if self.stream else jnp.pad(x_BTC, ((0, 0), (1, 1), (0, 0)))
        )
        near = jnp.concatenate([wide_BTC[:, :-2], wide_BTC[:, 1:-1], wide_BTC[:, 2:]], axis=2)
        y_BTC = (near @ matrix).reshape(x_BTC.shape[0], -1, self.features) + bias[None, None]
        return clock.blank(
            Signal(y_BTC, signal.rate * rate, (signal.delay + 1) * rate if self.stream else 0)
        )


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, alpha a channel (Ziyin et al. 2020, arXiv 2006.08195). [B, T, C]
    -> [B, T, C].
    """

    @nn.compact
    def __call__(self, x_BTC: jax.Array) -> jax.Array:
        alpha = self.param("alpha", nn.initializers.ones_init(), (x_BTC.shape[2],))[None, None]
        return x_BTC + jnp.square(jnp.sin(alpha * x_BTC)) / (alpha + 1e-9)


class ResBlock(Streamed):
    """For each dilation: x + conv(snake(dilated conv(snake(x))))."""

    kernel: int
    dilations: tuple[int, ...]

    @nn.compact
    def __call__(self, signal: Signal, clock: Clock) -> Signal:
        width = signal.x_BTC.shape[2]
        for i, dilation in enumerate(self.dilations):
            y = signal.of(Snake(name=f"snake1_{i}")(signal.x_BTC))
            y = Conv(self.stream, width, self.kernel, dilation, name=f"conv1_{i}")(y, clock)
            y = y.of(Snake(name=f"snake2_{i}")(y.x_BTC))
            y = Conv(self.stream, width, self.kernel, name=f"conv2_{i}")(y, clock)
            signal = self.meet([signal, y], f"skip_{i}")
        return signal
