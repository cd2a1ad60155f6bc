"""Tokenizer, flow and HiFT behind the `Codec` protocol: a stream gives what `decode` gives, rows
what they give alone, every block costs the same.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from measured import close

sys.path.insert(0, str(Path(__file__).parent))

from small_cosyvoice2 import CONFIG, small_params, small_voice

from mdmspeech.audio.wave import resample
from mdmspeech.codec.base import Codec
from mdmspeech.codec.cosyvoice2 import codec as module
from mdmspeech.codec.cosyvoice2 import flow_stream, hift_stream
from mdmspeech.codec.cosyvoice2.codec import CosyVoice2Codec
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks
from mdmspeech.codec.cosyvoice2.flow_stream import StreamPlan
from mdmspeech.errors import UserError

FAST = dict(steps=2, guidance=0.0, temperature=0.0)
TOKEN, LATE = 960, hift_stream.delay_samples(CONFIG.hift)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return CosyVoice2Codec(CONFIG, small_params(), small_voice())


def tokens(count, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.flow.vocab_size, count).astype(np.int32)


def streamed(codec, ids, size=16):
    """What each push gives, and what is left."""
    stream = codec.stream()
    return [*(stream.push(ids[at : at + size]) for at in range(0, len(ids), size)), stream.finish()]


def test_the_sizes_of_the_protocol(codec):
    assert (codec.sample_rate, codec.token_samples, codec.vocabulary) == (24_000, TOKEN, 6561)


@pytest.mark.parity
# here and below: few padded lengths, as each is compiled
@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(53, 16), (50, 7), (33, 33)])
def test_streamed_equals_one_shot(codec, count, size):
    ids = tokens(count)
    (whole,) = codec.decode([ids])
    assert (
        whole.shape == (count * TOKEN,) and whole.dtype == np.float32 and 0.02 < whole.std() < 0.5
    )
    close(
        "streamed equals one-shot: CosyVoice2 codec, tokens to wave",
        np.concatenate(streamed(codec, ids, size)),
        whole,
        atol=1e-3,
    )


def test_samples_come_as_soon_as_they_are_final(codec):
    """The flow holds 3 tokens back, HiFT its delay; every other block of tokens gives as many
    samples as it lasts.
    """
    parts = [len(part) for part in streamed(codec, tokens(64))]
    assert parts == [13 * TOKEN - LATE, 16 * TOKEN, 16 * TOKEN, 16 * TOKEN, 3 * TOKEN + LATE]


@pytest.mark.slow
@pytest.mark.parity
def test_rows_give_what_they_give_alone(codec):
    rows = [tokens(n, n) for n in (40, 0, 34, 64, 55)]
    together = codec.decode(rows)
    assert [len(wave) for wave in together] == [len(row) * TOKEN for row in rows]
    for row, wave in zip(rows, together, strict=True):
        if len(row):
            close(
                "ragged rows equal single rows: CosyVoice2 codec, tokens to wave",
                wave,
                codec.decode([row])[0],
                atol=1e-3,
            )
    assert codec.decode([]) == []


def test_rows_too_long_for_one_go_are_streamed(codec, monkeypatch):
    rows = [tokens(50, 1), tokens(0), tokens(35, 2)]
    whole = [codec.decode([row])[0] for row in rows]
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
        np.testing.assert_array_equal(
            np.concatenate([*out[row], streams[row].finish()]), alone[row]
        )
    assert np.abs(alone[0] - alone[1]).max() > 0.01


@pytest.mark.slow
def test_settings_of_a_request(codec, monkeypatch):
    """Steps, guidance, temperature and seed change the speech of this request only; the rest is
    shared, and can be compiled before.
    """
    ids = tokens(40)
    (usual,) = codec.decode([ids])
    fast = codec.with_settings(**FAST)
    monkeypatch.setattr(module, "_LENGTHS", (64,))
    fast.warm_up(64)
    programs = (
        module._compiled(CONFIG, fast.plan, 64),
        flow_stream.compiled_push(CONFIG.flow, fast.plan),
        hift_stream.compiled_push(CONFIG.hift),
    )
    compiled = [program._cache_size() for program in programs]
    for other in (fast, codec.with_settings(seed=7)):
        (wave,) = other.decode([ids])
        assert wave.shape == usual.shape and np.abs(wave - usual).max() > 1e-2
        np.testing.assert_allclose(np.concatenate(streamed(other, ids)), wave, atol=1e-3)
    assert [program._cache_size() for program in programs] == compiled
    assert (fast.plan, fast._params) == (StreamPlan(**FAST), codec._params)
    np.testing.assert_array_equal(codec.decode([ids])[0], usual)


def test_another_voice(codec):
    ids = tokens(40)
    voice = small_voice(18, seed=3)
    other = codec.with_voice(voice)
    codec.stream()  # the prompt that is remembered is not the other voice's
    (wave,) = other.decode([ids])
    np.testing.assert_allclose(np.concatenate(streamed(other, ids)), wave, atol=1e-3)
    assert np.abs(wave - codec.decode([ids])[0]).max() > 0.01
    with pytest.raises(UserError, match=r"the voice has a speaker vector of \[5\]"):
        codec.with_voice(Prompt(voice.ids, voice.mel, np.ones(5, np.float32)))


@pytest.mark.slow
def test_a_minute_costs_the_same_block_for_block(codec, monkeypatch):
    """60 s: each push of 16 tokens calls the flow once and HiFT once, with one compiled program
    each (two of HiFT: its first block is shorter).
    """
    calls = {"flow": [], "hift": []}

    def counted(name, make):
        def with_count(*args):
            program = make(*args)

            def call(*inputs):
                calls[name].append(
                    sum(
                        leaf.nbytes
                        for leaf in flow_stream.jax.tree.leaves(inputs[1:])
                        if hasattr(leaf, "nbytes")
                    )
                )
                return program(*inputs)

            return call

        return with_count

    stream = codec.stream()
    programs = (
        flow_stream.compiled_push(CONFIG.flow, codec.plan),
        hift_stream.compiled_push(CONFIG.hift),
    )
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
    # what goes in, the state included, does not grow
    assert len(set(calls["flow"])) == 1 and len(set(calls["hift"][1:])) == 1


@pytest.mark.slow
def test_no_seams(codec):
    """Where blocks meet, the spectrum changes as it does there in one go and no more than
    elsewhere; blocks spoken one by one show.
    """
    # Without noise, one token for ever: a smooth mel. At 150 Hz for ever: three periods a frame.
    params, ids, frame = small_params(), np.full(64, 7, np.int32), 480
    params["hift"]["f0_predictor"]["out"]["kernel"][:] = 0
    codec = CosyVoice2Codec(CONFIG, params, codec.voice, StreamPlan(**FAST))

    def flux(wave):
        """Change of the log spectrum from each frame to the next; of three neighbours the largest."""
        spectra = np.fft.rfft(
            wave[: len(wave) // frame * frame].reshape(-1, frame) * np.hanning(frame)
        )
        change = np.linalg.norm(np.diff(np.log(np.abs(spectra) + 1e-2), axis=0), axis=1)
        return np.max([change[:-2], change[1:-1], change[2:]], axis=0)

    parts = streamed(codec, ids)
    whole, ours = flux(codec.decode([ids])[0]), flux(np.concatenate(parts))
    apart = flux(
        np.concatenate(
            [wave for at in range(0, 64, 16) for wave in streamed(codec, ids[at : at + 16])]
        )
    )
    joints, cuts = (
        np.cumsum([len(part) for part in parts[:-1]]) // frame - 2,
        np.arange(16, 64, 16) * TOKEN // frame - 2,
    )
    np.testing.assert_allclose(ours[joints], whole[joints], atol=0.02 * whole.mean())
    assert ours[joints].mean() < np.quantile(whole, 0.9) < apart[cuts].min() / 3


def test_encode_gives_a_token_for_every_part_of_a_wave(codec):
    rng = np.random.default_rng(0)
    lengths = [0, 1, 100, 960, 961, 1199, 1200, 1201, 24_000, 24_700]
    waves = [0.1 * rng.normal(size=n).astype(np.float32) for n in lengths]
    ids = codec.encode(waves)
    assert [len(row) for row in ids] == [-(-n // TOKEN) for n in lengths]
    assert all(row.dtype == np.int32 for row in ids)
    # S3's own ids wherever S3 gives that many.
    for row in (3, 6, 7, 8, 9):
        np.testing.assert_array_equal(
            ids[row], codec._tokenizer.encode([resample(waves[row], 24_000, 16_000)])[0]
        )
    np.testing.assert_array_equal(codec.encode(waves[-1:])[0], ids[-1])


def test_what_cannot_be_is_refused(codec):
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
