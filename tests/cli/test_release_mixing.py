"""A release may keep a share of what an adaptor started from."""

import numpy as np

from mdmspeech.cli.release import _mixed
from mdmspeech.interop import whisper_decoder
from mdmspeech.interop.release import Part
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig


def test_share_of_the_start(monkeypatch):
    asked = []

    def start(config, layers):
        asked.append((config, layers))
        return {"norm": {"scale": np.full(4, 8.0, np.float32)}}

    monkeypatch.setattr(whisper_decoder, "load_whisper_decoder", start)
    part = Part(
        "attention_adaptor",
        Seq2SeqConfig(num_layers=2),
        {"norm": {"scale": np.zeros(4, np.float32)}},
    )
    mixed = _mixed(part, {"start_share": 0.25, "start_layers": [0, 5]})
    np.testing.assert_array_equal(mixed.params["norm"]["scale"], np.full(4, 2.0, np.float32))
    assert asked == [(part.config, (0, 5))]
    assert (mixed.kind, mixed.config) == (part.kind, part.config)
