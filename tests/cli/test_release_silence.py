"""A release's silent codes are those of the codec that it holds, not of the one before its rounding."""

import jax
import numpy as np
import pytest
from small_speech import CODEC, codec_params

from mdmspeech.cli import main
from mdmspeech.cli import release as verb
from mdmspeech.interop.release import Part, load_release


@pytest.mark.parametrize("options", [[], ["--int8", "codec"], ["--dtype", "bfloat16"]])
def test_silence_is_heard_by_the_codec_as_it_is_stored(options, tmp_path, monkeypatch):
    trained = codec_params()
    monkeypatch.setattr(
        verb, "part_of_run", lambda workdir, name: Part("compact_codec", CODEC, trained)
    )
    heard = []
    monkeypatch.setattr(verb, "silence_codes", lambda part: heard.append(part) or (1, 2))
    assert main(["release", "-o", str(tmp_path), "--codec", "a run", *options]) == 0
    release = load_release(tmp_path)
    assert release.silence == (1, 2)
    jax.tree.map(np.testing.assert_array_equal, heard[0].params, release.parts["codec"].params)
    leaves = zip(jax.tree.leaves(trained), jax.tree.leaves(heard[0].params), strict=True)
    assert any(np.any(a != b) for a, b in leaves)
