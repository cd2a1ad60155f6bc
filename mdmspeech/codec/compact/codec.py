"""The compact codec's functions over parameters: mel, encode, decode, synthesise. `streaming.py` decodes block by block."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio import stft
from mdmspeech.codec import fsq
from mdmspeech.codec.compact import synthesis
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.codec.compact.model import Acoustics, Decoder, Encoder, SpectralHead


@dataclasses.dataclass(frozen=True)
class CompactCodecModel:
    """Pure functions of `params` = {"encoder", "decoder", "spectral"}; holds sizes only."""

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

    @functools.cached_property
    def _mel_basis(self) -> np.ndarray:
        return stft.mel_basis(self.config.sample_rate, self.config.window, self.config.n_mels)

    def init(self, rng: jax.Array) -> dict:
        c = self.config
        keys = jax.random.split(rng, 3)
        valid = jnp.ones((1, 4), bool)
        mel = jnp.zeros((1, 4 * c.frames_per_token, c.n_mels))
        encoder = self.encoder.init(keys[0], mel, valid)["params"]
        decoder = self.decoder.init(keys[1], jnp.zeros((1, 4, fsq.DIGITS)), valid, train=True)["params"]
        acoustics = self.decoder.apply({"params": decoder}, jnp.zeros((1, 4, fsq.DIGITS)), valid)
        return {"encoder": encoder, "decoder": decoder, "spectral": self.spectral.init(keys[2], acoustics)["params"]}

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

    def synthesise(self, params, acoustics: Acoustics, f0_BT, gate_BT, phase_B, noise_key, first_frame_B) -> tuple[jax.Array, jax.Array]:
        """Frames -> (wave [B, T * hop], phase after the last frame [B])."""
        c = self.config
        harmonic, noise, turn = self.spectral.apply({"params": params["spectral"]}, acoustics)
        phases, end = synthesis.frame_phases(f0_BT, c.hop, c.sample_rate, phase_B)
        pulses = synthesis.pulse_train(f0_BT, phases, gate_BT, c.hop, c.sample_rate)
        white = synthesis.noise_source(noise_key, first_frame_B, f0_BT.shape[1], c.hop)
        return synthesis.filter_sources(pulses, white, harmonic, noise, turn, c.window, c.hop), end

    def decode(self, params: dict, ids_BL: jax.Array, valid_BL: jax.Array) -> jax.Array:
        """Token ids [B, L] -> wave [B, L * token_samples] in one go."""
        acoustics = self.acoustics(params, ids_BL, valid_BL)
        batch = ids_BL.shape[0]
        f0, gate = source_controls(acoustics)
        key = jax.random.key(0)
        zeros = jnp.zeros(batch)
        return self.synthesise(params, acoustics, f0, gate, zeros, key, zeros.astype(jnp.int32))[0]


def source_controls(acoustics: Acoustics) -> tuple[jax.Array, jax.Array]:
    """F0 in Hz (60..600) and a 0/1 voicing gate for the source."""
    return jnp.exp(jnp.clip(acoustics.log_f0_BT, jnp.log(60.0), jnp.log(600.0))), (acoustics.voicing_BT > 0).astype(jnp.float32)
