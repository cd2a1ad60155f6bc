"""Tokens to wave by CosyVoice2's own streaming loop (`CosyVoice2Model.tts`), done with our
functions: the flow on the growing prefix at every call, HiFT on its new frames, cross-faded. No
incremental decoder does this (see test_token2wav.py); it shows that the parts are the reference's
also when joined.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import COSYVOICE2, flow_config, hift_config, sizes
from hift_crossfade import Carried, call
from measured import close, same

from mdmspeech.codec.cosyvoice2 import hift
from mdmspeech.codec.cosyvoice2.flow import generate
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt, batch_of
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks
from mdmspeech.interop.cosyvoice2_flow import flow_params
from mdmspeech.interop.cosyvoice2_hift import hift_params
from mdmspeech.interop.tensors import read_tensors

SIZES = sizes("token2wav_stream")
FLOW, HIFT = flow_config(SIZES["flow_full"]), hift_config(SIZES["hift"])
LOOKAHEAD, RATE = FLOW.encoder.lookahead, 2  # tokens; mel frames a token


@pytest.fixture(scope="module")
def golden():
    return np.load(COSYVOICE2 / "token2wav_stream.npz")


@pytest.fixture(scope="module")
def mel_of(golden):
    """(tokens, last) -> mel [T, M] of the speech, frames of looked-at tokens left out; the last
    call attends everywhere.
    """
    params = flow_params(FLOW, read_tensors(COSYVOICE2 / "flow_full.safetensors"), "the flow")
    prompt = Prompt(
        golden["in.prompt_token"][0], golden["in.prompt_feat"][0], golden["in.embedding"][0]
    )
    noise = jnp.asarray(golden["in.noise"][0].T)
    length = len(prompt.ids) + golden["in.token"].shape[1]
    run = jax.jit(generate, static_argnums=0, static_argnames=("chunks", "final"))
    chunks = Chunks(SIZES["flow_full"]["encoder"]["static_chunk_size"])

    def call(tokens, last):
        batch = batch_of(FLOW, [tokens], [prompt], length=length)
        mel, frames = run(FLOW, params, batch, noise, chunks=None if last else chunks, final=last)
        return np.asarray(mel)[0, : int(frames[0])]

    return call


@pytest.fixture(scope="module")
def vocoder():
    return hift_params(HIFT, read_tensors(COSYVOICE2 / "hift.safetensors"), "HiFT")


@pytest.fixture(scope="module")
def f0_of(vocoder):
    predict = jax.jit(functools.partial(hift.HiFT(HIFT).apply, method="predict_f0"))
    return lambda mel_TM: np.asarray(
        predict({"params": vocoder}, mel_TM[None], hift.whole(mel_TM[None])).x_BTC
    )[0, :, 0]


def _hops(tokens, prompt):
    """Ends of the calls: the first makes prompt and hop a multiple of the hop, which then doubles
    up to a limit; the last takes the rest.
    """
    hop, ends = SIZES["hop"], [0]
    size = hop + -prompt % hop
    while tokens - ends[-1] >= size + LOOKAHEAD:
        ends.append(ends[-1] + size)
        size = hop = min(2 * hop, SIZES["max_hop"])
    return [*ends[1:], tokens]


def _noise(golden, frames):
    return np.resize(golden["in.source_noise"][0], (frames * HIFT.frame_samples, HIFT.harmonics))


@pytest.mark.slow
@pytest.mark.parity
def test_streaming(golden, mel_of, vocoder, f0_of):
    tokens = golden["in.token"][0]
    carried, used, mels, waves = Carried.none(HIFT), 0, [], []
    ends = _hops(len(tokens), golden["in.prompt_token"].shape[1])
    for end in ends:
        last = end == len(tokens)
        new = mel_of(tokens if last else tokens[: end + LOOKAHEAD], last)[used:]
        mels.append(np.concatenate([carried.mel_TM, new]))
        carried, wave = call(HIFT, vocoder, carried, new, _noise(golden, len(mels[-1])), last)
        waves.append(wave)
        used = RATE * end
    same(
        "token2wav_stream stream.out.hift_input_frames",
        [len(mel) for mel in mels],
        golden["stream.out.hift_input_frames"],
    )
    same(
        "token2wav_stream stream.out.chunk_samples",
        [len(wave) for wave in waves],
        golden["stream.out.chunk_samples"],
    )
    close(
        "token2wav_stream stream.out.hift_input_mel",
        np.concatenate(mels).T,
        golden["stream.out.hift_input_mel"][0],
        atol=2e-4,
    )
    close(
        "token2wav_stream stream.out.f0",
        np.concatenate([f0_of(mel) for mel in mels]),
        golden["stream.out.f0"][0],
        atol=2e-2,
    )
    close(
        "token2wav_stream stream.out.wave",
        np.concatenate(waves),
        golden["stream.out.wave"][0],
        atol=1e-2,
    )
