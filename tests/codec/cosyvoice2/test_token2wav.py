"""The reference's whole back end, tokens and prompt in, wave out (CosyVoice2Model.tts with all
tokens at once), by our codec's functions.

Its offline call is reproduced whole: F0 and wave. Its streaming calls cannot be followed by an
incremental decoder, for three reasons. It runs the flow on the whole prefix at every call and its
last call attends everywhere, so the last frames depend on all of the speech, which a stream that
handed out earlier frames cannot do. Its hop doubles from call to call, so its chunks are not ours.
And its vocoder starts anew at every call: the last 8 frames are given again with their source, F0
there is predicted without the frames before, the sines start at another phase, and what overlaps is
cross-faded. So of the streaming calls are compared: the mel of all calls but the last (our stream,
under the same masks, from the same noise), and F0 wherever the frames that it is predicted from are
the same. `test_flow_stream.py` has each of the reference's flow calls by itself,
`test_hift_stream.py` its vocoder calls, cross-fades included.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close

from mdmspeech.codec.cosyvoice2 import hift
from mdmspeech.codec.cosyvoice2.codec import render
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt, batch_of
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks
from mdmspeech.codec.cosyvoice2.flow_stream import MelStream, StreamPlan
from mdmspeech.interop.cosyvoice2 import load_cosyvoice2

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cosyvoice2"
SIZES = json.loads((FIXTURES / "token2wav_stream.json").read_text())["config"]
FILES = {"flow": "flow_full", "hift": "hift", "speech_tokenizer_v2": "s3_tokenizer_v2"}
CACHED = 8  # frames that the reference's vocoder is given again
REACH = 5  # frames to either side that F0 is predicted from


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(sizes, parameters) by the loader of the published folder."""
    folder = tmp_path_factory.mktemp("CosyVoice2")
    for name, fixture in FILES.items():
        (folder / f"{name}.safetensors").symlink_to(FIXTURES / f"{fixture}.safetensors")
    return load_cosyvoice2(
        folder,
        tokenizer_head_dim=32,
        estimator_head_dim=SIZES["flow_full"]["estimator"]["head_dim"],
    )


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(FIXTURES / "token2wav_stream.npz"))


@pytest.fixture(scope="module")
def prompt(golden):
    return Prompt(
        golden["in.prompt_token"][0], golden["in.prompt_feat"][0], golden["in.embedding"][0]
    )


@pytest.mark.slow
@pytest.mark.parity
def test_offline(model, golden, prompt):
    config, params = model
    tokens, noise = golden["in.token"][0], jnp.asarray(golden["in.noise"][0].T)
    samples = len(tokens) * 960
    source_noise = np.resize(golden["in.source_noise"][0], (1, samples, config.hift.harmonics))
    batch = batch_of(config.flow, [tokens], [prompt])
    run = jax.jit(functools.partial(render, config, StreamPlan(chunks=None), len(tokens)))
    out = run(params, batch, noise, source_noise)
    assert out.frames_B.tolist() == [2 * len(tokens)]
    close("token2wav_stream offline.out.f0", out.f0_BT, golden["offline.out.f0"], atol=2e-2)
    close("token2wav_stream offline.out.wave", out.wave_BN, golden["offline.out.wave"], atol=1e-2)


@pytest.mark.parity
def test_streaming_calls(model, golden, prompt):
    config, params = model
    tokens, noise, hop = golden["in.token"][0], jnp.asarray(golden["in.noise"][0].T), SIZES["hop"]
    stream = MelStream(config.flow, StreamPlan(Chunks(hop, left=20)), params["flow"], prompt, noise)
    ours = np.concatenate(
        [
            *(stream.push(tokens[at : at + hop]) for at in range(0, len(tokens), hop)),
            stream.finish(),
        ]
    )
    model = hift.HiFT(config.hift)
    f0 = np.asarray(
        jax.jit(functools.partial(model.apply, method="predict_f0"))(
            {"params": params["hift"]}, ours[None], hift.whole(ours[None])
        ).x_BTC
    )[0, :, 0]
    first, at, compared = 0, 0, 0
    for n, count in enumerate(golden["stream.out.hift_input_frames"].tolist()[:-1]):
        mel, theirs = (
            golden[key][..., at : at + count]
            for key in ("stream.out.hift_input_mel", "stream.out.f0")
        )
        first, at = first - CACHED * bool(n), at + count
        close(
            "token2wav_stream stream.out.hift_input_mel",
            ours[first : first + count],
            mel[0].T,
            atol=2e-4,
        )
        inside = slice(REACH if n else 0, count - REACH)
        close(
            "token2wav_stream stream.out.f0",
            f0[first : first + count][inside],
            theirs[0, inside],
            atol=2e-2,
        )
        first, compared = first + count, compared + len(theirs[0, inside])
    assert compared > 30
