"""HiFT block by block: any partition of the frames gives the samples of one-shot vocoding; and the
reference's cross-faded pieces.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hift_crossfade import Carried, call
from measured import close, same

from mdmspeech.codec.cosyvoice2 import hift, hift_stream
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_hift import hift_params
from mdmspeech.interop.tensors import read_tensors

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cosyvoice2"
SIZES = json.loads((FIXTURES / "hift.json").read_text())["config"]
GOLDEN = HiFTConfig(
    base_channels=SIZES["base_channels"],
    overtones=SIZES["nb_harmonics"],
    f0_channels=SIZES["f0_channels"],
)
# Every kind of layer, but few of each: compiling is what takes time here.
CONFIG = HiFTConfig(
    num_mels=12,
    base_channels=16,
    resblock_kernels=(3, 7),
    source_kernels=(3, 7, 5),
    dilations=(1, 3),
    f0_channels=8,
    f0_num_layers=2,
    overtones=3,
)
FRAME, LATE = CONFIG.frame_samples, hift_stream.delay_samples(CONFIG)
KEY = jax.random.key(3)
LONGEST = 200  # frames


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(FIXTURES / "token2wav_stream.npz"))


@pytest.fixture(scope="module")
def golden_params():
    return hift_params(GOLDEN, read_tensors(FIXTURES / "hift.safetensors"), "the fixture")


@pytest.fixture(scope="module")
def params():
    """Random parameters, biases included, with a pitch that moves around 100 Hz and pauses."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.05
        return (
            scale * rng.normal(size=leaf.shape) + ("alpha" in jax.tree_util.keystr(path))
        ).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(lambda: hift.init(CONFIG, KEY)))
    params["decoder"]["post"]["kernel"] *= 0.5
    params["f0_predictor"]["out"] = {
        "kernel": 200.0 * params["f0_predictor"]["out"]["kernel"],
        "bias": np.float32([60]),
    }
    return params


@pytest.fixture(scope="module")
def steady(params):
    """The same at a constant 150 Hz: no rounding of F0 that could add up in the phase."""
    out = {"kernel": 0 * params["f0_predictor"]["out"]["kernel"], "bias": np.float32([150])}
    return {**params, "f0_predictor": {**params["f0_predictor"], "out": out}}


@pytest.fixture(scope="module")
def mel():
    return np.random.default_rng(0).normal(size=(LONGEST, CONFIG.num_mels)).astype(np.float32)


@functools.cache
def compiled():
    return jax.jit(hift.vocode, static_argnums=0)


def one_shot(params, mel_TM, key=KEY, config=CONFIG):
    padded = np.pad(mel_TM, ((0, LONGEST - len(mel_TM)), (0, 0)))[None]
    out = compiled()(config, params, padded, key[None], jnp.array([len(mel_TM)]))
    return np.asarray(out.wave_BN)[0, : len(mel_TM) * FRAME]


def pieces(items, size):
    return [items[at : at + size] for at in range(0, len(items), size)]


def streamed(params, mel_TM, block, piece, config=CONFIG):
    stream = hift_stream.WaveStream(config, params, KEY, block)
    out = [stream.push(part) for part in pieces(mel_TM, piece)]
    return np.concatenate([*out, stream.finish()])


def test_the_example_speaks_with_changing_pitch_and_pauses(params, mel):
    out = compiled()(CONFIG, params, mel[None], KEY[None], jnp.array([LONGEST]))
    assert (
        float(jnp.std(out.wave_BN)) > 0.02
        and 0.2 < float(jnp.mean(out.f0_BT > CONFIG.voiced_hz)) < 0.97
    )
    assert float(out.f0_BT.max()) > 150


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(
    ("block", "frames", "piece"), [(16, 200, 16), (5, 96, 7), (16, 3, 1), (5, 20, 20)]
)
def test_streamed_equals_one_shot(params, steady, mel, block, frames, piece):
    mel = mel[:frames]
    close(
        "streamed equals one-shot: HiFT, steady pitch",
        streamed(steady, mel, block, piece),
        one_shot(steady, mel),
        atol=2e-5,
    )
    # A moving F0 is rounded otherwise in other blocks, and the phase adds that up.
    close(
        "streamed equals one-shot: HiFT",
        streamed(params, mel, block, piece),
        one_shot(params, mel),
        atol=1e-3,
    )


@pytest.mark.slow
@pytest.mark.parity
def test_with_the_fixtures_weights(golden, golden_params):
    frames = golden["stream.out.hift_input_mel"][0].T
    whole = one_shot(golden_params, frames, config=GOLDEN)
    close(
        "streamed equals one-shot: HiFT",
        streamed(golden_params, frames, 10, 10, GOLDEN),
        whole,
        atol=1e-3,
    )


@pytest.mark.slow
def test_what_is_left_is_rounding(params, mel):
    """In float64 the two are the same, however small the blocks, and with a moving F0."""
    with jax.enable_x64(True):
        wide = functools.partial(
            jax.tree.map, lambda x: jnp.asarray(x, jnp.float64) if x.dtype == np.float32 else x
        )
        frames, mel64, params64 = 30, wide(mel), wide(params)
        whole = np.asarray(
            compiled()(CONFIG, params64, mel64[None, :frames], KEY[None], None).wave_BN
        )[0]
        state = wide(hift_stream.start(CONFIG, KEY[None]))
        step, out = jax.jit(functools.partial(hift_stream.push, CONFIG)), []
        for at in range(frames + LATE // FRAME + 1):
            state, wave = step(params64, state, mel64[None, at : at + 1], np.array([[at < frames]]))
            out.append(np.asarray(wave)[0])
        np.testing.assert_allclose(np.concatenate(out)[LATE : LATE + len(whole)], whole, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parity
def test_rows_end_when_they_end(steady, mel):
    """Three rows in one stream, each as if it were alone; silence before and behind."""
    lengths, block = [40, 13, 0], 8
    keys = jnp.stack([jax.random.key(seed) for seed in (4, 5, 6)])
    state, out = hift_stream.start(CONFIG, keys), []
    step = jax.jit(functools.partial(hift_stream.push, CONFIG))
    for at in range(0, 40 + 24, block):
        valid = at + np.arange(block)[None] < np.array(lengths)[:, None]
        rows = np.stack(
            [mel[at : at + block], mel[at + 50 : at + 50 + block], mel[at : at + block]]
        )
        state, wave = step(steady, state, np.where(valid[..., None], rows, np.nan), valid)
        out.append(np.asarray(wave))
    wave = np.concatenate(out, axis=1)
    assert not wave[:, :LATE].any()
    for row, (length, first) in enumerate(zip(lengths, (0, 50, 0), strict=True)):
        end = LATE + length * FRAME
        if length:
            alone = one_shot(steady, mel[first : first + length], keys[row])
            close(
                "ragged rows equal single rows: HiFT stream", wave[row, LATE:end], alone, atol=2e-5
            )
        assert not wave[row, end:].any()


def flux(wave):
    """Change of the log spectrum from one frame of three pitch periods to the next."""
    frames = wave[: len(wave) // 480 * 480].reshape(-1, 480) * np.hanning(480)
    return np.linalg.norm(np.diff(np.log(np.abs(np.fft.rfft(frames)) + 1e-2), axis=0), axis=1)


def test_no_seams(steady):
    """Spectral flux at the joints is that of one-shot vocoding and no more than elsewhere; blocks
    vocoded by themselves show.
    """
    block = 16
    phase = np.arange(LONGEST)[:, None] / 40 + np.arange(CONFIG.num_mels)[None]
    smooth = np.sin(phase).astype(np.float32)  # so that the only sudden changes are those at joints
    whole = flux(one_shot(steady, smooth))
    ours = flux(streamed(steady, smooth, block, block))
    apart = flux(np.concatenate([one_shot(steady, part) for part in pieces(smooth, block)]))

    def at(joints):
        """The largest flux near each joint."""
        near = joints[(joints > 2 * 480) & (joints < (LONGEST - 2) * FRAME)] // 480
        return lambda values: np.max([values[near - 2], values[near - 1], values[near]], axis=0)

    ends = np.arange(block * FRAME, 2 * LONGEST * FRAME, block * FRAME)
    joint, cut = at(ends - LATE), at(ends)
    np.testing.assert_allclose(joint(ours), joint(whole), atol=0.01 * whole.mean())
    assert joint(ours).mean() < np.quantile(whole, 0.9)
    assert cut(apart).min() > 2 * np.quantile(whole, 0.99)


@pytest.mark.slow
def test_delay_and_state_of_the_published_model():
    """20.3 frames late, and 1.6 MB a row, whatever the block and however long the speech."""
    full = HiFTConfig()
    assert hift_stream.delay_samples(full) == hift_stream.delay_samples(GOLDEN) == 9756
    state = jax.eval_shape(lambda: hift_stream.start(full, jax.random.key(0)[None]))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.layers)) < 2**21
    after, _ = jax.eval_shape(
        functools.partial(hift_stream.push, CONFIG),
        jax.eval_shape(lambda: hift.init(CONFIG, jax.random.key(0))),
        hift_stream.start(CONFIG, KEY[None]),
        jnp.zeros((1, 5, CONFIG.num_mels)),
        jnp.ones((1, 5), bool),
    )
    before = hift_stream.start(CONFIG, KEY[None])
    assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)


@pytest.mark.slow
@pytest.mark.parity
def test_reference_pieces(golden, golden_params):
    """CosyVoice2's own streaming, with its noise: same samples at every call, joints included."""
    mels = np.split(
        golden["stream.out.hift_input_mel"][0].T,
        np.cumsum(golden["stream.out.hift_input_frames"])[:-1],
    )
    carried, waves, f0 = Carried.none(GOLDEN), [], []
    model = hift.HiFT(GOLDEN)
    predict = jax.jit(functools.partial(model.apply, method="predict_f0"))
    for i, mel_TM in enumerate(mels):
        known = len(carried.mel_TM)
        np.testing.assert_array_equal(mel_TM[:known], carried.mel_TM)
        noise = np.resize(golden["in.source_noise"][0], (len(mel_TM) * FRAME, GOLDEN.harmonics))
        predicted = predict({"params": golden_params}, mel_TM[None], hift.whole(mel_TM[None]))
        f0.append(predicted.x_BTC[0, :, 0])
        carried, wave = call(
            GOLDEN, golden_params, carried, mel_TM[known:], noise, last=i == len(mels) - 1
        )
        waves.append(wave)
    same(
        "token2wav_stream stream.out.chunk_samples",
        [len(wave) for wave in waves],
        golden["stream.out.chunk_samples"],
    )
    close(
        "token2wav_stream stream.out.f0", np.concatenate(f0), golden["stream.out.f0"][0], atol=2e-2
    )
    close(
        "token2wav_stream stream.out.wave",
        np.concatenate(waves),
        golden["stream.out.wave"][0],
        atol=1e-2,
    )


def test_wrong_frames_are_refused(params):
    with pytest.raises(UserError, match=r"\[3, 100\] do not fit the vocoder; give \[frames, 12\]"):
        hift_stream.WaveStream(CONFIG, params, KEY).push(np.zeros((3, 100), np.float32))
    with pytest.raises(UserError, match="block of 0"):
        hift_stream.WaveStream(CONFIG, params, KEY, 0)
