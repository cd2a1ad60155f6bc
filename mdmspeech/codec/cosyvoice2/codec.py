"""CosyVoice2's tokenizer, flow and HiFT as one codec, speaking in one voice (see
`codec.base.Codec`).

Encoding is S3's: the ids of the whole wave at 16 kHz. Decoding puts the voice's prompt before the
tokens, makes the mel by the flow and the wave by HiFT; `decode` does it in one go, in batches,
`stream` as tokens come, each block at the same cost. Both use the same chunk masks, so what a
stream gives, joined, is what `decode` gives: within 1e-3 in the mel, and in the wave within what
that makes of the phase (1e-2).

A stream hands out the samples of a block of tokens late: the flow looks 3 tokens ahead and HiFT
20.3 frames, together 0.53 s.

A frame attends to the chunks before its own as far as `plan.chunks.left` reaches: 8 of 16 tokens, 5
s. (The reference attends to all that was before, the prompt included, at a cost that grows.) What
is farther back is in the speaker vector and in the speech so far. Each chunk more costs 148 MB of
state.

The noise comes from a seed, the same for every utterance unless asked otherwise, and belongs to the
frame: neither blocks nor batches change it. So what the flow remembers of the voice's prompt is the
same for every utterance too; it is made for the first stream and copied for the next ones.

B batch, L tokens, T = 2 L frames, N samples.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mdmspeech.audio.wave import resample
from mdmspeech.codec.cosyvoice2 import hift
from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.codec.cosyvoice2.flow import generate
from mdmspeech.codec.cosyvoice2.flow_batch import (
    Prompt,
    Utterances,
    batch_of,
    check_ids,
    check_prompt,
)
from mdmspeech.codec.cosyvoice2.flow_encoder import RATE
from mdmspeech.codec.cosyvoice2.flow_stream import MelStream, StreamPlan, streamable
from mdmspeech.codec.cosyvoice2.hift_stream import WaveStream
from mdmspeech.codec.cosyvoice2.s3_speech import S3Tokenizer
from mdmspeech.codec.cosyvoice2.s3_tokenizer import FRAMES_PER_TOKEN
from mdmspeech.errors import UserError
from mdmspeech.padding import batches
from mdmspeech.speech_format import INPUT_RATE, WHISPER_FFT, WHISPER_HOP

# tokens decoded in one go; each is compiled once. Longer rows (over 41 s) are streamed
_LENGTHS = (32, 64, 128, 256, 512, 1024)
_ROWS = (1, 4)
_ROUND = 16  # tokens: prompts of nearly the same length share a compiled shape


@struct.dataclass
class Rendered:
    """Speech of a batch; zeros behind the end of each row."""

    wave_BN: jax.Array
    mel_BTM: jax.Array
    frames_B: jax.Array
    f0_BT: jax.Array  # Hz


def render(
    config: CosyVoice2Config,
    plan: StreamPlan,
    tokens: int,
    params: Any,
    batch: Utterances,
    flow_noise: jax.Array,
    source_noise: jax.Array,
) -> Rendered:
    """Tokens -> speech in one go. Pure; config, plan and `tokens` (the most speech tokens of a row)
    are static.

    Args:
      flow_noise: keys [B] or a table, see `flow_noise.frame_noise`. source_noise: keys [B] or
        values [B, N, H], see `hift.vocode`.
    """
    how: dict[str, Any] = dict(
        steps=plan.steps, guidance=plan.guidance, temperature=plan.temperature, chunks=plan.chunks
    )
    mel_BTM, frames_B = generate(config.flow, params["flow"], batch, flow_noise, **how)
    mel_BTM = mel_BTM[:, : RATE * tokens]
    out = hift.vocode(config.hift, params["hift"], mel_BTM, source_noise, frames_B)
    return Rendered(out.wave_BN, mel_BTM, frames_B, out.f0_BT)


class CosyVoice2Codec:
    """See `codec.base.Codec`.

    Args:
      config, params: sizes, and parameters {"tokenizer", "flow", "hift"}.
      voice: to speak in.
      plan: masks, Euler steps and guidance (default: those of `StreamPlan`). seed: of the noise,
        from 0.

    Raises:
      UserError: a voice that does not fit the flow, or an impossible seed.
    """

    def __init__(
        self,
        config: CosyVoice2Config,
        params: Any,
        voice: Prompt,
        plan: StreamPlan | None = None,
        seed: int = 0,
    ):
        check_prompt(config.flow, voice, "the voice")
        self.config, self.voice, self.plan, self.seed = (
            config,
            voice,
            plan or StreamPlan(),
            _checked_seed(seed),
        )
        self.sample_rate, self.token_samples = (
            config.hift.sample_rate,
            RATE * config.hift.frame_samples,
        )
        self.vocabulary = config.flow.vocab_size
        self._params = jax.tree.map(jnp.asarray, {name: params[name] for name in ("flow", "hift")})
        self._tokenizer = S3Tokenizer(config.tokenizer, params["tokenizer"])
        # behind the prompt: of the last settings only, as it is large
        self._primed: dict[tuple[StreamPlan, int], MelStream] = {}

    def with_settings(self, *, seed: int | None = None, **changes: Any) -> "CosyVoice2Codec":
        """This codec for a request with other settings: steps, guidance, temperature or chunks (see
        `StreamPlan`), or seed. It shares everything else.

        Raises:
          UserError: no such setting, or a value that it cannot have.
        """
        known = [field.name for field in dataclasses.fields(StreamPlan)]
        if unknown := sorted(set(changes) - set(known)):
            raise UserError(
                f"CosyVoice2's codec has no setting {unknown[0]!r}; it has {', '.join(known)}, seed"
            )
        other = copy.copy(self)
        other.plan = dataclasses.replace(self.plan, **changes)
        other.seed = self.seed if seed is None else _checked_seed(seed)
        return other

    def with_voice(self, voice: Prompt) -> "CosyVoice2Codec":
        """This codec with another voice. Raises UserError if it does not fit."""
        check_prompt(self.config.flow, voice, "the voice")
        other = copy.copy(self)
        other.voice, other._primed = voice, {}
        return other

    def encode(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Waves float32 [N] at 24 kHz -> ids int32 [ceil(N / token_samples)].

        S3 itself gives no token for a rest of less than 10 ms; such a rest is completed with
        silence to 10 ms. All other waves have S3's own ids.
        """
        counts = [-(-len(wave_N) // self.token_samples) for wave_N in waves]
        ids = [np.zeros(0, np.int32)] * len(waves)
        rows = [row for row, count in enumerate(counts) if count]
        heard = self._tokenizer.encode([self._heard(waves[row], counts[row]) for row in rows])
        for row, own in zip(rows, heard, strict=True):
            ids[row] = own[: counts[row]]
        return ids

    def decode(self, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Ids [L] -> waves float32 [L * token_samples].

        Raises:
          UserError: ids outside the vocabulary; more than 1024 tokens under a plan that attends
            everywhere.
        """
        for row, ids in enumerate(tokens):
            check_ids(self.config.flow, ids, f"row {row}")
            if len(ids) > _LENGTHS[-1] and self.plan.chunks is None:
                raise UserError(
                    f"row {row} has {len(ids)} tokens; at most {_LENGTHS[-1]} "
                    "can attend everywhere: cut it, or give the plan chunks"
                )
        waves = [np.zeros(0, np.float32)] * len(tokens)
        short = [row for row, ids in enumerate(tokens) if 0 < len(ids) <= _LENGTHS[-1]]
        for places, width, size in batches([len(tokens[row]) for row in short], _LENGTHS, _ROWS):
            rows = [short[place] for place in places]
            wave_BN = self._render([tokens[row] for row in rows], width, size)
            for b, row in enumerate(rows):
                waves[row] = wave_BN[b, : len(tokens[row]) * self.token_samples]
        for row in (row for row, ids in enumerate(tokens) if len(ids) > _LENGTHS[-1]):
            stream = self.stream()
            waves[row] = np.concatenate([stream.push(tokens[row]), stream.finish()])
        return waves

    def stream(self) -> "CosyVoice2Stream":
        """A new utterance. Raises UserError if the plan attends everywhere."""
        (chunks, _), lookahead = streamable(self.plan), self.config.flow.encoder.lookahead
        if (self.plan, self.seed) not in self._primed:
            self._primed.clear()
            mel = MelStream(
                self.config.flow, self.plan, self._params["flow"], self.voice, self._keys(1)[0]
            )
            self._primed[self.plan, self.seed] = mel
        # The vocoder's blocks are the flow's: of the first chunk, only what is behind the prompt.
        spoken = len(self.voice.ids)
        first = (
            chunks.size - (spoken + int(chunks.shift(jnp.array(spoken), lookahead))) % chunks.size
        )
        wave = WaveStream(
            self.config.hift,
            self._params["hift"],
            self._keys(1)[1][0],
            RATE * chunks.size,
            RATE * first,
        )
        return CosyVoice2Stream(self._primed[self.plan, self.seed].copy(), wave)

    def warm_up(self, tokens: int) -> None:
        """Compiles single-row decoding of up to `tokens` tokens and, unless the plan attends
        everywhere, the stream.
        """
        for width in _LENGTHS:
            self.decode([np.zeros(width, np.int32)])
            if width >= tokens:
                break
        if self.plan.chunks is not None:
            self.stream().push(np.zeros(2 * self.plan.chunks.size, np.int32))

    def _heard(self, wave_N: np.ndarray, count: int) -> np.ndarray:
        """A wave at S3's rate, completed with silence where it would give fewer than `count` tokens."""
        wave_N = resample(wave_N, self.sample_rate, INPUT_RATE)
        needed = max(((count - 1) * FRAMES_PER_TOKEN + 1) * WHISPER_HOP, WHISPER_FFT // 2 + 1)
        return np.pad(wave_N, (0, max(needed - len(wave_N), 0)))

    def _render(self, tokens: list[np.ndarray], width: int, size: int) -> np.ndarray:
        """Waves [size, width * token_samples] of at most `size` rows of at most `width` tokens."""
        before = -(-len(self.voice.ids) // _ROUND) * _ROUND
        # the last ones only fill the batch
        rows = tokens + [np.zeros(1, np.int32)] * (size - len(tokens))
        batch = batch_of(self.config.flow, rows, [self.voice] * size, before + width)
        return np.asarray(
            _compiled(self.config, self.plan, width)(self._params, batch, *self._keys(size)).wave_BN
        )

    def _keys(self, rows: int) -> tuple[jax.Array, jax.Array]:
        """Noise keys [rows] of the flow and of HiFT: the same for every row, as every row is the
        only one of its utterance.
        """
        key = jax.random.key(self.seed)
        flow, source = (
            jnp.broadcast_to(jax.random.fold_in(key, part), (rows,)) for part in range(2)
        )
        return flow, source


class CosyVoice2Stream:
    """See `codec.base.CodecStream`."""

    def __init__(self, mel: MelStream, wave: WaveStream):
        self._mel, self._wave = mel, wave

    def push(self, ids_n: np.ndarray) -> np.ndarray:
        """The samples that are final once these tokens are known. UserError: ids outside the
        vocabulary, or a finished utterance.
        """
        return self._wave.push(self._mel.push(ids_n))

    def finish(self) -> np.ndarray:
        """The samples that are left."""
        return np.concatenate([self._wave.push(self._mel.finish()), self._wave.finish()])


def _checked_seed(seed: int) -> int:
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed!r}: give a whole number from 0 to {2**32 - 1}")
    return seed


@functools.lru_cache(maxsize=16)
def _compiled(config: CosyVoice2Config, plan: StreamPlan, tokens: int):
    return jax.jit(functools.partial(render, config, plan, tokens))
