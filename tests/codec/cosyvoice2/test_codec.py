"""Tokenizer, flow and HiFT behind the `Codec` protocol: a stream gives what `decode` gives, rows what they give alone, every block costs the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_cosyvoice2 import CONFIG, small_params, small_voice

from mdmspeech.audio.wave import resample
from mdmspeech.codec.base import Codec
from mdmspeech.codec.cosyvoice2 import codec as module
from mdmspeech.codec.cosyvoice2 import flow_stream, hift_stream
from mdmspeech.codec.cosyvoice2.codec import CosyVoice2Codec
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks
from mdmspeech.codec.cosyvoice2.flow_stream import StreamPlan
from mdmspeech.codec.cosyvoice2.s3_speech import S3Tokenizer
from mdmspeech.errors import UserError

TOKEN, LATE = 960, hift_stream.delay_samples(CONFIG.hift)


@pytest.fixture(scope="module")
def params():
    return small_params()


@pytest.fixture(scope="module")
def codec(params) -> Codec:
    return CosyVoice2Codec(CONFIG, params, small_voice())


def tokens(count, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.flow.vocab_size, count).astype(np.int32)


def streamed(codec, ids, size=16):
    """What each push gives, and what is left."""
    stream = codec.stream()
    return [*(stream.push(ids[at : at + size]) for at in range(0, len(ids), size)), stream.finish()]


def test_the_sizes_of_the_protocol(codec):
    assert (codec.sample_rate, codec.token_samples, codec.vocabulary) == (24_000, TOKEN, 6561)


@pytest.mark.parametrize(("count", "size"), [(53, 16), (50, 7), (3, 1), (16, 16)])
def test_streamed_equals_one_shot(codec, count, size):
    ids = tokens(count)
    (whole,) = codec.decode([ids])
    assert whole.shape == (count * TOKEN,) and whole.dtype == np.float32 and 0.02 < whole.std() < 0.5
    np.testing.assert_allclose(np.concatenate(streamed(codec, ids, size)), whole, atol=1e-3)


def test_samples_come_as_soon_as_they_are_final(codec):
    """The flow holds 3 tokens back, HiFT its delay; every other block of tokens gives as many samples as it lasts."""
    parts = [len(part) for part in streamed(codec, tokens(64))]
    assert parts == [13 * TOKEN - LATE, 16 * TOKEN, 16 * TOKEN, 16 * TOKEN, 3 * TOKEN + LATE]


def test_rows_give_what_they_give_alone(codec):
    rows = [tokens(n, n) for n in (40, 0, 3, 31, 32, 17, 9)]
    together = codec.decode(rows)
    assert [len(wave) for wave in together] == [len(row) * TOKEN for row in rows]
    for row, wave in zip(rows, together, strict=True):
        np.testing.assert_allclose(wave, codec.decode([row])[0], atol=1e-3)
    assert codec.decode([]) == []


def test_rows_too_long_for_one_go_are_streamed(codec, monkeypatch):
    rows = [tokens(50, 1), tokens(20, 2)]
    whole = codec.decode(rows)
    monkeypatch.setattr(module, "_LENGTHS", (32,))
    for wave, expected in zip(codec.decode(rows), whole, strict=True):
        np.testing.assert_allclose(wave, expected, atol=1e-3)
    with pytest.raises(UserError, match="row 0 has 50 tokens; at most 32 can attend everywhere"):
        codec.with_settings(chunks=None).decode(rows)


def test_streams_do_not_disturb_each_other(codec):
    """Two that take turns, both from the same prompt."""
    ids = tokens(32), tokens(32, 5)
    alone = [np.concatenate(streamed(codec, row)) for row in ids]
    streams, out = [codec.stream(), codec.stream()], [[], []]
    for at in (0, 16):
        for row in range(2):
            out[row].append(streams[row].push(ids[row][at : at + 16]))
    for row in range(2):
        np.testing.assert_array_equal(np.concatenate([*out[row], streams[row].finish()]), alone[row])
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_settings_of_a_request(codec, params):
    """Steps, guidance and seed change the speech of this request only; the rest is shared."""
    ids = tokens(20)
    (usual,) = codec.decode([ids])
    for changes in (dict(steps=2), dict(guidance=0.0), dict(seed=7), dict(chunks=None)):
        other = codec.with_settings(**changes)
        (wave,) = other.decode([ids])
        assert wave.shape == usual.shape and np.abs(wave - usual).max() > 1e-3, changes
        if "chunks" not in changes:
            np.testing.assert_allclose(np.concatenate(streamed(other, ids)), wave, atol=1e-3)
    fast = codec.with_settings(steps=2)
    assert fast._params is codec._params
    np.testing.assert_array_equal(
        CosyVoice2Codec(CONFIG, params, small_voice(), StreamPlan(steps=2)).decode([ids])[0], fast.decode([ids])[0]
    )
    np.testing.assert_array_equal(codec.decode([ids])[0], usual)


def test_another_voice(codec):
    ids = tokens(20)
    other = codec.with_voice(small_voice(5, seed=3))
    codec.stream()  # the prompt that is remembered is not the other voice's
    (wave,) = other.decode([ids])
    np.testing.assert_allclose(np.concatenate(streamed(other, ids)), wave, atol=1e-3)
    assert np.abs(wave - codec.decode([ids])[0]).max() > 0.01
    with pytest.raises(UserError, match=r"the voice has a speaker vector of \[5\]"):
        codec.with_voice(small_voice(config=CONFIG).__class__(small_voice().ids, small_voice().mel, np.ones(5, np.float32)))


def test_a_minute_costs_the_same_block_for_block(codec, monkeypatch):
    """60 s: each push of 16 tokens calls the flow once and HiFT once, with one compiled program each (two of HiFT: its first block is shorter)."""
    calls = {"flow": [], "hift": []}

    def counted(name, make):
        def with_count(*args):
            program = make(*args)

            def call(*inputs):
                calls[name].append(sum(leaf.nbytes for leaf in flow_stream.jax.tree.leaves(inputs[1:]) if hasattr(leaf, "nbytes")))
                return program(*inputs)

            return call

        return with_count

    stream = codec.stream()
    programs = flow_stream.compiled_push(CONFIG.flow, codec.plan), hift_stream.compiled_push(CONFIG.hift)
    monkeypatch.setattr(flow_stream, "compiled_push", counted("flow", flow_stream.compiled_push))
    monkeypatch.setattr(hift_stream, "compiled_push", counted("hift", hift_stream.compiled_push))
    stream.push(tokens(16))
    stream.push(tokens(16))
    compiled, counts, samples = [program._cache_size() for program in programs], [], []
    for block in range(92):
        before = {name: len(made) for name, made in calls.items()}
        samples.append(len(stream.push(tokens(16, block))))
        counts.append(tuple(len(made) - before[name] for name, made in calls.items()))
    assert set(counts) == {(1, 1)} and set(samples) == {16 * TOKEN}
    assert [program._cache_size() for program in programs] == compiled
    assert len(set(calls["flow"])) == 1 and len(set(calls["hift"][1:])) == 1  # what goes in, the state included, does not grow


def test_no_seams(params):
    """Where blocks meet, the spectrum changes no more than it does there in one go; blocks decoded by themselves show."""
    hum = {
        **params["hift"],
        "f0_predictor": {**params["hift"]["f0_predictor"], "out": {"kernel": np.zeros((8, 1), np.float32), "bias": np.float32([150])}},
    }
    codec, ids = CosyVoice2Codec(CONFIG, {**params, "hift": hum}, small_voice()), np.repeat(tokens(4), 24)
    frame = 480  # three pitch periods

    def flux(wave):
        spectra = np.fft.rfft(wave[: len(wave) // frame * frame].reshape(-1, frame) * np.hanning(frame))
        return np.linalg.norm(np.diff(np.log(np.abs(spectra) + 1e-2), axis=0), axis=1)

    def at(values, joints):
        near = joints // frame
        return np.max([values[near - 2], values[near - 1], values[near]], axis=0)

    parts = streamed(codec, ids)
    whole, ours = flux(codec.decode([ids])[0]), flux(np.concatenate(parts))
    apart = flux(np.concatenate([codec.decode([ids[n : n + 16]])[0] for n in range(0, len(ids), 16)]))
    joints = np.cumsum([len(part) for part in parts[:-1]])
    np.testing.assert_allclose(at(ours, joints), at(whole, joints), atol=0.02 * whole.mean())
    cuts = np.arange(16, len(ids), 16) * TOKEN
    assert at(apart, cuts).mean() > 1.5 * at(whole, cuts).mean()


def test_encode_gives_a_token_for_every_part_of_a_wave(codec, params):
    rng = np.random.default_rng(0)
    lengths = [0, 1, 100, 960, 961, 1199, 1200, 1201, 24_000, 24_700]
    waves = [0.1 * rng.normal(size=n).astype(np.float32) for n in lengths]
    ids = codec.encode(waves)
    assert [len(row) for row in ids] == [-(-n // TOKEN) for n in lengths]
    assert all(row.dtype == np.int32 for row in ids)
    # S3's own ids wherever S3 gives that many.
    own = S3Tokenizer(CONFIG.tokenizer, params["tokenizer"])
    for row in (3, 6, 7, 8, 9):
        np.testing.assert_array_equal(ids[row], own.encode([resample(waves[row], 24_000, 16_000)])[0])
    np.testing.assert_array_equal(codec.encode(waves[-1:])[0], ids[-1])


def test_what_cannot_be_is_refused(codec, params):
    with pytest.raises(UserError, match="row 1 has token ids from 3 to 6561, known are 0 to 6560"):
        codec.decode([tokens(3), np.array([3, 6561])])
    stream = codec.stream()
    with pytest.raises(UserError, match="token ids from 6561"):
        stream.push(np.array([6561]))
    assert len(stream.finish()) == 0
    with pytest.raises(UserError, match="this utterance is finished"):
        stream.push(tokens(1))
    for changes, message in (
        (dict(steps=0), "at least 1 Euler step, got 0"),
        (dict(steps=2.5), r"steps=2\.5: give a whole number"),
        (dict(guidance=-1.0), r"guidance=-1\.0: give a number from 0 to 10"),
        (dict(guidance=float("nan")), "guidance=nan: give a number from 0 to 10"),
        (dict(seed=-1), "seed=-1: give a whole number"),
        (dict(speed=2), "no setting 'speed'; it has chunks, steps, guidance, temperature, seed"),
    ):
        with pytest.raises(UserError, match=message):
            codec.with_settings(**changes)
    with pytest.raises(UserError, match="what attends everywhere cannot be streamed"):
        codec.with_settings(chunks=None).stream()
    with pytest.raises(UserError, match="a stream keeps a bounded history"):
        codec.with_settings(chunks=Chunks(16)).stream()


def test_warm_up_compiles_what_is_used_next(codec):
    codec = codec.with_settings(steps=3)
    codec.warm_up(20)
    programs = (
        module._compiled(CONFIG, codec.plan, 32),
        flow_stream.compiled_push(CONFIG.flow, codec.plan),
        hift_stream.compiled_push(CONFIG.hift),
    )
    before = [program._cache_size() for program in programs]
    codec.decode([tokens(20)])
    streamed(codec, tokens(40))
    assert [program._cache_size() for program in programs] == before
