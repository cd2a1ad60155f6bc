"""The compact codec's functions over parameters: mel, encode, decode, synthesise. `streaming.py`
decodes block by block.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio import stft
from mdmspeech.audio.mel import mel_filters
from mdmspeech.codec import fsq
from mdmspeech.codec.compact import synthesis
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.codec.compact.model import (
    F0_CENTRE,
    Acoustics,
    Decoder,
    Encoder,
    SemanticHead,
    SpectralHead,
)
from mdmspeech.speech_format import DIGITS

NOISE_SEED = 0  # of the noise source: the same tokens always give the same samples


@dataclasses.dataclass(frozen=True)
class CompactCodecModel:
    """Pure functions of `params` = {"encoder", "decoder", "spectral"} and, in training with
    `config.semantic`, "semantic"; holds sizes only.
    """

    config: CompactCodecConfig

    @property
    def encoder(self) -> Encoder:
        return Encoder(self.config)

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.config)

    @property
    def spectral(self) -> SpectralHead:
        return SpectralHead(self.config)

    @property
    def semantic(self) -> SemanticHead:
        return SemanticHead(self.config)

    @functools.cached_property
    def _mel_basis(self) -> np.ndarray:
        return mel_filters(self.config.sample_rate, self.config.window, self.config.num_mels)

    def init(self, rng: jax.Array) -> dict:
        c = self.config
        keys = jax.random.split(rng, 3)
        valid = jnp.ones((1, 4), bool)
        mel = jnp.zeros((1, 4 * c.frames_per_token, c.num_mels))
        encoder = self.encoder.init(keys[0], mel, valid)["params"]
        decoder = self.decoder.init(keys[1], jnp.zeros((1, 4, DIGITS)), valid, train=True)["params"]
        acoustics = self.decoder.apply({"params": decoder}, jnp.zeros((1, 4, DIGITS)), valid)
        params = {
            "encoder": encoder,
            "decoder": decoder,
            "spectral": self.spectral.init(keys[2], acoustics)["params"],
        }
        if c.semantic:  # from a key of its own: the others are the same with and without it
            key = jax.random.fold_in(rng, len(keys))
            params["semantic"] = self.semantic.init(key, jnp.zeros((1, 4, DIGITS)))["params"]
        return params

    def mel(self, audio_BN: jax.Array) -> jax.Array:
        """Wave in [-1, 1], whole hops long -> normalised log-mel [B, T, M]."""
        c = self.config
        return (stft.log_mel(audio_BN, self._mel_basis, c.window, c.hop) - c.mel_mean) / c.mel_std

    def encode(self, params: dict, audio_BN: jax.Array, valid_BL: jax.Array) -> jax.Array:
        """Wave [B, L * token_samples] -> token ids int32 [B, L]."""
        latent = self.encoder.apply({"params": params["encoder"]}, self.mel(audio_BN), valid_BL)
        return fsq.codes_to_ids(fsq.quantise(latent))

    def acoustics(self, params: dict, ids_BL: jax.Array, valid_BL: jax.Array) -> Acoustics:
        """Token ids -> frames."""
        return self.decoder.apply({"params": params["decoder"]}, fsq.ids_to_codes(ids_BL), valid_BL)

    def synthesise(
        self,
        params: dict,
        acoustics: Acoustics,
        f0_BT,
        gate_BT,
        phase_B,
        noise_key,
        first_frame_B,
        valid_BT=None,
        lead: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Frames of whole tokens -> (wave [B, (T - lead) * hop], phases at the start of each of its
        tokens and after the last [B, L + 1]).

        The first `lead` frames are only neighbours of the next one; `phase_B` and `first_frame_B`
        (absolute index) belong to the frame after them. valid_BT: frames inside the utterance
        (default: all).
        """
        c = self.config
        valid_BT = jnp.ones(f0_BT.shape, bool) if valid_BT is None else valid_BT
        f0_BTH = jnp.maximum(synthesis.control(f0_BT, valid_BT, c.hop), 40.0)[:, lead:]
        gate_BTH = synthesis.control(gate_BT, valid_BT, c.hop)[:, lead:]
        begins_BL = synthesis.begins(valid_BT)[:, lead :: c.frames_per_token]
        acoustics, valid_BT = jax.tree.map(lambda x: x[:, lead:], (acoustics, valid_BT))
        harmonic, noise, turn = self.spectral.apply({"params": params["spectral"]}, acoustics)
        f0_BTH, cycles_BL = synthesis.lock(f0_BTH, c.frames_per_token, c.sample_rate)
        phase_BL = synthesis.group_phases(cycles_BL, begins_BL, phase_B)
        phase_BT = synthesis.frame_phases(f0_BTH, phase_BL[:, :-1], c.sample_rate)
        pulses = synthesis.pulse_train(f0_BTH, phase_BT, gate_BTH, c.sample_rate)
        white = synthesis.noise_source(noise_key, first_frame_B, f0_BTH.shape[1], c.hop)
        return synthesis.filter_sources(
            pulses, white, harmonic, noise, turn, valid_BT, c.window, c.hop
        ), phase_BL

    def decode(self, params: dict, ids_BL: jax.Array, valid_BL: jax.Array) -> jax.Array:
        """Token ids [B, L] -> wave [B, L * token_samples] in one go; silence where not valid (rows are
        valid from their start to their end).
        """
        acoustics = self.acoustics(params, ids_BL, valid_BL)
        f0, gate = source_controls(acoustics)
        zeros = jnp.zeros(ids_BL.shape[0])
        valid_BT = jnp.repeat(valid_BL, self.config.frames_per_token, axis=1)
        return self.synthesise(
            params,
            acoustics,
            f0,
            gate,
            zeros,
            jax.random.key(NOISE_SEED),
            zeros.astype(jnp.int32),
            valid_BT,
        )[0]


def source_controls(acoustics: Acoustics) -> tuple[jax.Array, jax.Array]:
    """F0 in Hz (60..600) and a 0/1 voicing gate for the source."""
    low, high = math.log(60.0) - F0_CENTRE, math.log(600.0) - F0_CENTRE
    return math.exp(F0_CENTRE) * jnp.exp(jnp.clip(acoustics.pitch_BT, low, high)), (
        acoustics.voicing_BT > 0
    ).astype(jnp.float32)
