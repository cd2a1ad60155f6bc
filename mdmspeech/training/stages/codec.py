"""Training the compact codec: reconstruction, auxiliary losses (phonetic; semantic where the config
weighs it), even use of the codes, and (second phase) the wave itself.

Phase "tokens" learns encoder, quantiser and acoustic decoder from spectra alone: cheap, and all
that the Talker needs. Phase "wave" freezes the encoder (so that the tokens no longer change) and
trains decoder and spectral head on multi-resolution STFT magnitudes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from mdmspeech.audio import stft
from mdmspeech.codec import fsq
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.errors import UserError
from mdmspeech.training import distributed
from mdmspeech.training.optim import ParamRule
from mdmspeech.training.stages.shared import start_of
from mdmspeech.training.stages.stage import Exported, Loaders, Stage
from mdmspeech.training.stages.start import RANDOM
from mdmspeech.training.task import Task
from mdmspeech.training.warm_start import overwrite

PHASES = ("tokens", "wave")
_RESOLUTIONS = ((240, 60), (960, 240), (1920, 480))  # window, hop in samples
_WAVE_TOKENS = 24  # the wave losses look at a window of this many tokens (0.96 s) of every crop


class CodecTask(Task):
    """See the module docstring. `phase` is "tokens" or "wave"; `pipeline` makes the batches (see
    `data.pipelines.codec_crops.codec_crops`); start, differing: as in `stages.talker`.
    """

    unit, held_out = "audio_s", "val"

    def __init__(
        self,
        config: CompactCodecConfig,
        phase: str,
        pipeline,
        start=None,
        sizes=None,
        differing=None,
    ):
        if phase not in PHASES:
            raise UserError(f"phase {phase!r} is not one of {', '.join(PHASES)}")
        self.name = f"codec_{phase}"
        self.config, self.phase = config, phase
        self.model = CompactCodecModel(config)
        self.weights = {
            "mel": 1.0,
            "delta": 0.5,
            "f0": 2.0,
            "voicing": 0.2,
            "phone": 0.2,
            "usage": 0.05,
        }
        if phase == "wave":
            self.weights = {
                "mel": 1.0,
                "delta": 0.5,
                "f0": 2.0,
                "voicing": 0.2,
                "stft": 1.0,
                "convergence": 0.5,
            }
            self.optimizer = (
                ParamRule("encoder/.*", frozen=True),
                ParamRule("(decoder/phone_|semantic/).*", frozen=True),
                ParamRule(".*"),
            )
        else:
            self.optimizer = (ParamRule("spectral/.*", frozen=True), ParamRule(".*"))
            if config.semantic:
                self.weights["semantic"] = config.semantic
        self._pipeline, self._start, self._sizes, self._differing = (
            pipeline,
            start,
            sizes or {},
            differing or {},
        )

    @property
    def reads_states(self) -> bool:
        """Whether batches bring states of the speech encoder."""
        return self.phase == "tokens" and self.config.semantic > 0

    def init(self, rng: jax.Array):
        return self.model.init(rng)

    def warm_start(self, params):
        return (
            params if self._start is None else overwrite(params, self._start(), **self._differing)
        )

    def batches(self, split: str, seed: int):
        return self._pipeline(split, seed)

    def batch_spec(self):
        rows, tokens = self._sizes["batch"], self._sizes["tokens"]
        of = lambda width, dtype: jax.ShapeDtypeStruct((rows, width), dtype)
        spec = {
            "audio": of(tokens * self.config.token_samples, jnp.int16),
            "valid": of(tokens, jnp.bool_),
        }
        spec |= {"phone": of(2 * tokens, jnp.int32), "f0": of(4 * tokens, jnp.float32)}
        if self.reads_states:
            states = (rows, 2 * tokens, self.config.semantic_dim)
            spec["states"] = jax.ShapeDtypeStruct(states, jnp.float16)
            spec["states_valid"] = of(2 * tokens, jnp.bool_)
        return spec | {"voiced": of(4 * tokens, jnp.bool_)}

    def count(self, batch: Mapping[str, np.ndarray]) -> int:
        return int(batch["audio"].size / self.config.sample_rate)

    def loss(self, params, frozen, batch, rng, step):
        """batch: audio int16 [B, N], valid bool [B, L] (tokens), phone int32 [B, 2L] (-1 unknown), f0
        float32 [B, 4L] (continuous), voiced bool [B, 4L]; where `reads_states`, states float16 [B,
        2L, D] (whitened) and states_valid bool [B, 2L] (False: unknown).

        With tokens int32 [B, L] the decoder learns to say the audio from these, and the encoder
        takes no part.
        """
        c = self.config
        audio_BN = batch["audio"].astype(jnp.float32) / 32768.0
        valid_BL = batch["valid"]
        mel_BTM = self.model.mel(audio_BN)
        if "tokens" in batch:
            codes = fsq.ids_to_codes(batch["tokens"])
        else:
            codes = fsq.quantise(
                self.model.encoder.apply({"params": params["encoder"]}, mel_BTM, valid_BL)
            )
        acoustics, phones = self.model.decoder.apply(
            {"params": params["decoder"]}, codes, valid_BL, train=True
        )
        losses = _acoustic_losses(acoustics, mel_BTM, batch, c)
        if self.phase == "tokens":
            losses |= _phone_losses(phones, batch["phone"])
            if self.reads_states:
                predicted = self.model.semantic.apply({"params": params["semantic"]}, codes)
                losses |= _semantic_loss(predicted, batch["states"], batch["states_valid"])
            losses["usage"] = fsq.usage_penalty(codes, valid_BL.astype(jnp.float32))
        else:
            losses |= self._wave_losses(params, acoustics, audio_BN, batch, rng)
        return losses

    def _wave_losses(self, params, acoustics, audio_BN, batch, rng):
        """Synthesise a window of every crop with the true F0 (so that harmonics line up) and the
        predicted everything else.
        """
        c = self.config
        crop_key, noise_key = jax.random.split(rng)
        length = batch["valid"].shape[1]
        first = (
            jax.random.randint(crop_key, (), 0, max(length - _WAVE_TOKENS, 0) + 1)
            * c.frames_per_token
        )
        frames = min(_WAVE_TOKENS, length) * c.frames_per_token

        def window(x, scale=1):
            return jax.lax.dynamic_slice_in_dim(x, first * scale, frames * scale, axis=1)

        part = jax.tree.map(window, acoustics)
        f0, voiced = window(batch["f0"]), window(batch["voiced"]).astype(jnp.float32)
        part = part.replace(log_f0_BT=jnp.log(f0))
        wave = self.model.synthesise(
            params,
            part,
            f0,
            voiced,
            jnp.zeros(f0.shape[0]),
            noise_key,
            jnp.zeros(f0.shape[0], jnp.int32),
        )[0]
        target, weight = (
            window(audio_BN, c.hop),
            jnp.repeat(
                window(jnp.repeat(batch["valid"], c.frames_per_token, axis=1)), c.hop, axis=1
            ),
        )
        return stft_losses(wave * weight, target * weight)


def _acoustic_losses(acoustics, mel_BTM, batch, c):
    valid_BT = jnp.repeat(batch["valid"], c.frames_per_token, axis=1).astype(jnp.float32)
    voiced_BT = batch["voiced"].astype(jnp.float32) * valid_BT
    error = (acoustics.mel_BTM - mel_BTM) * valid_BT[..., None]
    cells = jnp.sum(valid_BT) * c.num_mels
    delta = jnp.diff(error, axis=1)
    pitch = jnp.abs(acoustics.log_f0_BT - jnp.log(batch["f0"])) * voiced_BT
    voicing = (
        optax.sigmoid_binary_cross_entropy(
            acoustics.voicing_BT, batch["voiced"].astype(jnp.float32)
        )
        * valid_BT
    )
    return {
        "mel": (jnp.sum(jnp.abs(error)) + 0.5 * jnp.sum(jnp.square(error)), cells),
        "delta": (jnp.sum(jnp.abs(delta)), cells),
        "f0": (jnp.sum(pitch), jnp.sum(voiced_BT)),
        "voicing": (jnp.sum(voicing), jnp.sum(valid_BT)),
    }


def _phone_losses(logits_BHV, phone_BH):
    known = (phone_BH >= 0).astype(jnp.float32)
    target = jnp.maximum(phone_BH, 0)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits_BHV, target) * known
    right = (jnp.argmax(logits_BHV, -1) == target) * known
    return {
        "phone": (jnp.sum(nll), jnp.sum(known)),
        "phone_accuracy": (jnp.sum(right), jnp.sum(known)),
    }


def _semantic_loss(predicted_BHD, states_BHD, known_BH):
    """Squared error of whitened states, mean over the dimensions: 1 is what their mean would have."""
    error = jnp.square(predicted_BHD - states_BHD.astype(jnp.float32))
    known = known_BH.astype(jnp.float32)
    return {"semantic": (jnp.sum(jnp.mean(error, axis=-1) * known), jnp.sum(known))}


def stft_losses(wave_BN: jax.Array, target_BN: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Multi-resolution STFT losses (Yamamoto et al. 2020): L1 of log-magnitudes, and spectral
    convergence.
    """
    rows = wave_BN.shape[0]
    distance, convergence = jnp.zeros(()), jnp.zeros(())
    for window, hop in _RESOLUTIONS:
        a = stft.magnitude(stft.spectrum(wave_BN, window, hop), 1e-3)
        b = stft.magnitude(stft.spectrum(target_BN, window, hop), 1e-3)
        distance += rows * jnp.mean(jnp.abs(jnp.log(a) - jnp.log(b)))
        convergence += rows * jnp.sqrt(jnp.sum(jnp.square(a - b)) / (jnp.sum(jnp.square(b)) + 1e-6))
    count = jnp.asarray(float(rows * len(_RESOLUTIONS)))
    return {"stft": (distance, count), "convergence": (convergence, count)}


def from_config(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    """See `Stage.from_config`."""
    from mdmspeech.data.datasets.corpus import speech
    from mdmspeech.data.datasets.speech_states import SpeechStates
    from mdmspeech.data.pipelines import codec_crops
    from mdmspeech.data.pipelines.random_source import RandomRecordings, RandomSpeechStates

    model = CompactCodecConfig(**config.codec)
    if config.train.dtype != "float32":
        raise UserError(f"train.dtype is {config.train.dtype!r}: the codec's spectra need float32")

    def batches(split: str, seed: int):
        random, train = config.data.parts == (RANDOM,), split == "train"
        source: Any = (
            RandomRecordings(seed=seed, symbols=model.phones)
            if random
            else speech(root, tuple(config.data.parts), split)
        )
        states: Any = None
        if model.semantic and config.phase == "tokens":
            states = (
                RandomSpeechStates(model.semantic_dim, seed)
                if random
                else SpeechStates(root, tuple(config.data.parts), split)
            )
            codec_crops.check_states(source, states, model.semantic_dim)
        return codec_crops.codec_crops(
            source,
            batch=config.data.batch if train else min(config.data.batch, len(source)),
            tokens=config.data.tokens,
            token_samples=model.token_samples,
            seed=seed,
            train=train,
            phones=model.phones,
            shard=distributed.share(),
            states=states,
        )

    return CodecTask(
        model,
        config.phase,
        batches,
        sizes=dict(batch=config.data.batch, tokens=config.data.tokens),
        **start_of(config, workdir, loaders),
    )


def tiny(config: ConfigDict) -> None:
    """See `Stage.tiny`."""
    config.codec = dict(
        encoder_dim=64,
        encoder_num_layers=1,
        decoder_dim=64,
        decoder_num_layers=2,
        decoder_lookahead=(1,),
        frame_dim=32,
        head_dim=32,
    )
    config.data.tokens = 32


def _exported(run: Mapping[str, Any]) -> Exported:
    """The codec without its semantic head, which is of training only."""
    sizes = {name: size for name, size in run["codec"].items() if not name.startswith("semantic")}
    without = lambda params: {name: tree for name, tree in params.items() if name != "semantic"}
    return Exported("compact_codec", sizes, "codec", without)


STAGE = Stage(
    "codec",
    ("codec", "phase", "data"),
    from_config,
    tiny,
    choices={"phase": PHASES},
    exports={"codec": _exported},
)
