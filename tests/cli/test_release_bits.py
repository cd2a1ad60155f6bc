"""Parts of a release in 8 bits, and in 8 bits with tables in 6, as they were asked for."""

import json

import jax
import numpy as np
import pytest
from random_params import random_params
from safetensors.numpy import load_file

from mdmspeech.cli import main
from mdmspeech.cli import release as verb
from mdmspeech.interop.release import Part, load_release
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig
from mdmspeech.training.stages.hearing import Seq2SeqTask

ADAPTOR = Seq2SeqConfig(
    encoder_dim=16, dim=64, num_layers=1, num_heads=2, ffn_dim=64, pieces=100, positions=40
)


@pytest.mark.parametrize(
    ("option", "stored", "table"),
    [("--int8", "int8", np.int8), ("--int6", "int6", np.uint8)],
)
def test_how_a_part_is_stored(option, stored, table, tmp_path, monkeypatch, capsys):
    params = random_params(Seq2SeqTask(ADAPTOR, None).init, jax.random.key(0))
    monkeypatch.setattr(
        verb, "part_of_run", lambda workdir, name: Part("attention_adaptor", ADAPTOR, params)
    )
    asked = ["--adaptor", "a run", option, "adaptor"]
    assert main(["release", "-o", str(tmp_path / "it"), *asked]) == 0
    about = json.loads((tmp_path / "it" / "config.json").read_text())
    assert about["parts"]["adaptor"]["dtype"] == stored
    assert load_file(tmp_path / "it" / "adaptor.safetensors")["embedding"].dtype == table
    opened = load_release(tmp_path / "it").parts["adaptor"].params["embedding"]
    np.testing.assert_allclose(
        opened, params["embedding"], atol=np.abs(params["embedding"]).max() / 60
    )
    # a release from it has the same file
    again = ["--base", str(tmp_path / "it"), option, "adaptor"]
    assert main(["release", "-o", str(tmp_path / "again"), *again]) == 0
    files = [(tmp_path / one / "adaptor.safetensors").read_bytes() for one in ("it", "again")]
    assert files[0] == files[1]
    assert main(["release", "-o", str(tmp_path / "x"), *asked[:2], option, "adaptor,voice"]) == 2
    assert f"{option} voice: this release has adaptor" in capsys.readouterr().err
