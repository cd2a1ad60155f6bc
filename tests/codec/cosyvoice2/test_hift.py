"""HiFT in one go: every array of the reference fixture, padded rows, long phases, noise."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close, same

from mdmspeech.codec.cosyvoice2 import hift, source
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.hift_layers import OPEN
from mdmspeech.interop.cosyvoice2_hift import hift_params
from mdmspeech.interop.tensors import read_tensors

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cosyvoice2"
SIZES = json.loads((FIXTURES / "hift.json").read_text())["config"]
CONFIG = HiFTConfig(
    base_channels=SIZES["base_channels"],
    overtones=SIZES["nb_harmonics"],
    f0_channels=SIZES["f0_channels"],
)
MODEL = hift.HiFT(CONFIG)
vocode = jax.jit(hift.vocode, static_argnums=0)
apply = jax.jit(MODEL.apply, static_argnames=("method", "mutable", "capture_intermediates"))
FRAMES = 18


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(FIXTURES / "hift.npz"))


@pytest.fixture(scope="module")
def params():
    return hift_params(CONFIG, read_tensors(FIXTURES / "hift.safetensors"), "the fixture")


@pytest.fixture(scope="module")
def mel(golden):
    return golden["in.mel"].swapaxes(1, 2)


def run(params, mel_BTM, noise, *lengths):
    return vocode(CONFIG, params, mel_BTM, noise, jnp.array(lengths or [FRAMES]))


def drawn(seed):
    return source.draw_noise(jax.random.key(seed)[None], 0, FRAMES, CONFIG)


@pytest.mark.slow
@pytest.mark.parity
def test_mel_to_wave(golden, params, mel):
    out = run(params, mel, golden["in.noise"])
    close("hift full.out.f0", out.f0_BT, golden["full.out.f0"], atol=3e-3)
    same("hift full.out.uv", out.f0_BT > CONFIG.voiced_hz, golden["full.out.uv"] > 0)
    close("hift full.out.source", out.source_BN, golden["full.out.source"][:, 0], atol=5e-3)
    close("hift full.out.wave", out.wave_BN, golden["full.out.wave"], atol=1e-3)


@pytest.mark.parity
def test_inside(golden, params, mel):
    _, state = apply(
        {"params": params},
        mel,
        golden["in.noise"],
        hift.whole(mel),
        capture_intermediates=True,
        mutable="intermediates",
    )
    inside = state["intermediates"]
    decoder = {
        name: np.asarray(inside["decoder"][name]["__call__"][0].x_BTC).swapaxes(1, 2)
        for name in ("pre", "post", "spectrum")
    }
    close("hift full.out.conv_pre", decoder["pre"], golden["full.out.conv_pre"], atol=2e-5)
    # These depend on the phase of the source, which the reference itself has to a few 1e-4 only.
    close(
        "hift full.out.conv_post_first64",
        decoder["post"][..., :64],
        golden["full.out.conv_post_first64"],
        atol=1e-3,
    )
    close(
        "hift full.out.source_stft_first64",
        decoder["spectrum"][..., :64],
        golden["full.out.source_stft_first64"],
        atol=1e-3,
    )
    close(
        "hift full.out.harmonics_every8",
        inside["source"]["harmonics"][0][:, ::8],
        golden["full.out.harmonics_every8"],
        atol=5e-4,
    )


@pytest.mark.parity
def test_given_part_of_the_source(golden, params, mel):
    out = vocode(
        CONFIG, params, mel, golden["in.noise"], known_BK=golden["cache.in.cache_source"][:, 0]
    )
    close("hift cache.out.source", out.source_BN, golden["cache.out.source"][:, 0], atol=5e-3)
    close("hift cache.out.wave", out.wave_BN, golden["cache.out.wave"], atol=1e-3)


@pytest.mark.parity
def test_source_of_given_f0(golden, params, mel):
    made = apply(
        {"params": params},
        golden["source.in.f0"],
        golden["in.noise"],
        hift.whole(mel),
        method="excite",
    )
    close(
        "hift source.out.source", made.x_BTC[..., 0], golden["source.out.source"][:, 0], atol=2e-3
    )


@pytest.mark.parity
def test_decoder_of_given_source(golden, params, mel):
    given = golden["decode.in.source"][:, 0]
    part = mel[:, : given.shape[1] // CONFIG.frame_samples]
    wave = apply({"params": params}, part, given, hift.whole(part), method="decode")
    close("hift decode.out.wave", wave.x_BTC[..., 0], golden["decode.out.wave"], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parity
def test_padded_rows_equal_rows_alone(params, mel):
    lengths = [11, 18, 1]
    rows = np.concatenate([mel, mel[:, ::-1], mel])
    noise = jnp.concatenate([drawn(seed) for seed in range(3)])
    spoilt = rows.copy()
    spoilt[0, 11:], spoilt[2, 1:] = 1e3, np.nan  # what is behind the end must not matter
    out = run(params, spoilt, noise, *lengths)
    for row, length in enumerate(lengths):
        samples = length * CONFIG.frame_samples
        alone = run(params, rows[row : row + 1], noise[row : row + 1], length)
        close("ragged rows equal single rows: HiFT", out.wave_BN[row], alone.wave_BN[0], atol=1e-4)
        assert 0.01 < np.abs(alone.wave_BN).max() <= CONFIG.audio_limit
        for padding in (
            out.wave_BN[row, samples:],
            out.source_BN[row, samples:],
            out.f0_BT[row, length:],
        ):
            assert not np.any(padding)
    unpadded = vocode(CONFIG, params, mel[:, :11], noise[:1, : 11 * CONFIG.frame_samples])
    np.testing.assert_allclose(
        out.wave_BN[0, : unpadded.wave_BN.shape[1]], unpadded.wave_BN[0], atol=1e-4
    )


def test_noise_belongs_to_key_and_frame(params, mel):
    f0, keys = np.full((2, FRAMES), 120, np.float32), jax.random.split(jax.random.key(1))
    whole = apply({"params": params}, f0, keys, hift.whole(mel[[0, 0]]), method="excite").x_BTC
    part = apply(
        {"params": params}, f0[1:, :9], keys[1:], hift.whole(mel[:, :9]), method="excite"
    ).x_BTC
    known = 8 * CONFIG.frame_samples  # the last half frame has no next one to head for
    np.testing.assert_array_equal(part[0, :known], whole[1, :known])
    assert np.abs(whole[0] - whole[1]).max() > 1e-3
    noise = source.draw_noise(keys, 0, FRAMES, CONFIG)
    np.testing.assert_allclose(
        apply({"params": params}, f0, noise, hift.whole(mel[[0, 0]]), method="excite").x_BTC,
        whole,
        atol=1e-5,
    )
    np.testing.assert_array_equal(
        source.draw_noise(keys, 5, 2, CONFIG),
        noise[:, 5 * CONFIG.frame_samples : 7 * CONFIG.frame_samples],
    )
    assert abs(float(noise.std()) - 1) < 0.01


def test_phase_stays_exact_in_long_speech(params):
    """A minute of gliding pitch against the same sum in float64."""
    frames, size = 3000, CONFIG.frame_samples
    f0 = (220 + 100 * np.sin(np.arange(frames) / 37)).astype(np.float32)
    silent = np.zeros((1, frames * size, CONFIG.harmonics), np.float32)
    clock = hift.whole(np.zeros((1, frames, 80)))
    _, state = apply(
        {"params": params}, f0[None], silent, clock, method="excite", mutable="intermediates"
    )
    order = np.arange(1, CONFIG.harmonics + 1)
    phase = np.cumsum(f0[:, None].astype(np.float64) * order / CONFIG.sample_rate * size, axis=0)
    centres = (np.arange(frames) + 0.5) * size - 0.5
    last = np.arange((frames - 20) * size, frames * size)
    wanted = np.stack(
        [0.1 * np.sin(2 * np.pi * np.interp(last, centres, row)) for row in phase.T], axis=1
    )
    np.testing.assert_allclose(
        state["intermediates"]["source"]["harmonics"][0][0, last], wanted, atol=1e-3
    )


def test_positions_fit_int32():
    assert 2 * OPEN * HiFTConfig().frame_samples < 2**31


@pytest.mark.slow
def test_gradients_reach_every_part_and_are_finite():
    config = dataclasses.replace(
        CONFIG, base_channels=16, resblock_kernels=(3,), dilations=(3,), f0_num_layers=1
    )
    params = jax.jit(hift.init, static_argnums=0)(config, jax.random.key(0))
    params["f0_predictor"]["out"]["bias"] += 100.0

    def loss(params):
        return jnp.mean(
            jnp.square(
                hift.vocode(config, params, jnp.ones((1, 4, 80)), jax.random.key(0)[None]).wave_BN
            )
        )

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    for part in (
        gradients["f0_predictor"]["out"],
        gradients["source"]["mix"],
        gradients["decoder"]["pre"],
    ):
        assert float(jnp.abs(part["kernel"]).max()) > 0
