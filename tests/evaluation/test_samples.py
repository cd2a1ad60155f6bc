"""What a training run shows: files to hear, to see and to read, made from the parameters it is
given.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mdmspeech.audio.wave import load_wave
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.data.datasets.corpus import folder_of
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.data.synthesis.build import write_datasets
from mdmspeech.evaluation import samples
from mdmspeech.models.ctc_adaptor import CTCAdaptor, CTCConfig

CODEC = CompactCodecConfig(
    num_mels=16,
    encoder_dim=16,
    encoder_num_layers=1,
    decoder_dim=16,
    decoder_num_layers=2,
    frame_dim=16,
    head_dim=16,
    phones=4,
)


@pytest.fixture
def root(tmp_path):
    """A corpus of four recordings, half of them for validation."""
    rng = np.random.default_rng(0)
    rows = [
        (
            {
                "id": f"r{i}",
                "text": f"text {i}",
                "rate": 24_000,
                "split": "val" if i % 2 else "test",
            },
            (3000 * rng.normal(size=9600 + 960 * i)).astype(np.int16),
        )
        for i in range(4)
    ]
    write_shard(tmp_path / "raw" / "open", "00000-0", rows)
    write_datasets(tmp_path)
    return tmp_path


def test_codec(root, tmp_path):
    config = ConfigDict(
        {"stage": "codec", "codec": dataclasses.asdict(CODEC), "data": {"parts": ("open",)}}
    )
    scores = samples.show(config, tmp_path / "run", root)(
        jax.jit(CompactCodecModel(CODEC).init)(jax.random.key(0)), 5, tmp_path
    )
    assert scores["codes_used"] >= 1
    for number, length in ((0, 10_560), (1, 12_480)):  # the two for validation
        assert len(load_wave(str(tmp_path / f"{number}_original.wav"), 24_000)) == length
        assert (
            len(load_wave(str(tmp_path / f"{number}_resynthesis.wav"), 24_000))
            == -(-length // 960) * 960
        )
        assert (tmp_path / f"{number}.png").stat().st_size > 1000


def test_hearing(root, tmp_path):
    states = np.random.default_rng(1).normal(size=(50, 16)).astype(np.float16)
    rows = [
        {"id": "a", "text": "One.", "states": states[:20]},
        {"id": "b", "text": "Two.", "states": states[20:]},
    ]
    write_dataset(folder_of(root, "states", "questions"), "states", {"val": rows}, width=16)
    sizes = CTCConfig(encoder_dim=16, dim=64, num_layers=1)
    params = CTCAdaptor(sizes).init(
        jax.random.key(0), jnp.zeros((1, 8, 16)), jnp.ones((1, 8), bool)
    )["params"]
    config = ConfigDict({"stage": "hearing", "mode": "ctc", "adaptor": dataclasses.asdict(sizes)})
    scores = samples.show(config, tmp_path / "run", root)(params, 5, tmp_path)
    assert 0 <= scores["transcripts_exact"] <= 1
    lines = (tmp_path / "transcripts.txt").read_text().splitlines()
    assert lines[0] == "One." and lines[2] == "Two."


def test_a_talker_without_a_codec_beside_it_shows_nothing(root, tmp_path):
    config = ConfigDict({"stage": "talker", "mode": "mdm", "talker": {"anchors": "paced"}})
    assert samples.show(config, tmp_path / "run", root) is None
