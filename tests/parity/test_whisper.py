"""Whisper-base's real encoder in `transformers` and in ours, on a recording: features and states."""

from importlib import resources

import jax
import numpy as np
import pytest
import torch
from measured import close, note
from reference import torch_tensors
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mdmspeech.audio.features import pad_waves, whisper_log_mel
from mdmspeech.audio.wave import load_wave
from mdmspeech.interop import sources
from mdmspeech.interop.huggingface_rules import encoder_rules
from mdmspeech.interop.rules import export_params
from mdmspeech.models.speech_encoder import SpeechEncoder

pytestmark = [pytest.mark.parity, pytest.mark.torch]


def test_real_encoder():
    ours = sources.load_speech_encoder(official=False)
    config = ours.config
    theirs = WhisperEncoder(
        WhisperConfig(
            num_mel_bins=config.num_mels,
            d_model=config.dim,
            encoder_layers=config.num_layers,
            encoder_attention_heads=config.num_heads,
            encoder_ffn_dim=config.ffn_dim,
            max_source_positions=config.max_positions,
        )
    ).eval()
    theirs.load_state_dict(
        torch_tensors(export_params(ours.params, encoder_rules(config, prefix="")))
    )
    wave = load_wave(str(resources.files("mdmspeech") / "assets" / "question.wav"), 16_000)
    extractor = WhisperFeatureExtractor(feature_size=config.num_mels)
    features = extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_features"]
    mel = whisper_log_mel(pad_waves([wave], 480_000), config.num_mels)
    close("Whisper-base: features of the shipped question", mel.swapaxes(1, 2), features, atol=1e-4)
    with torch.inference_mode():
        states = theirs(features).last_hidden_state
    found = jax.jit(SpeechEncoder(config).apply)(
        {"params": ours.params}, np.asarray(features).swapaxes(1, 2)
    )
    close("Whisper-base: encoder states of the shipped question", found, states, atol=2e-3)
    note("Whisper-base: largest encoder state of the shipped question", f"{states.abs().max():.0f}")
