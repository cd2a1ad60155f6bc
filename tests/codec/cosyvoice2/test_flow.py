"""The whole flow against the reference's arrays: noise, solver, prompt and speaker; and rows in
batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import COSYVOICE2 as GOLDEN
from golden import estimator_config, flow_config, sizes
from measured import close
from official_noise import OFFICIAL_FRAMES, official_noise

from mdmspeech.codec.cosyvoice2.flow import (
    Conditions,
    conditions,
    estimator_of,
    generate,
    solve,
    time_grid,
)
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig, Prompt, batch_of
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimator
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks, chunk_mask
from mdmspeech.codec.cosyvoice2.flow_noise import frame_noise
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_flow import estimator_rules, flow_params
from mdmspeech.interop.rules import import_params
from mdmspeech.interop.tensors import read_tensors

FULL = sizes("flow_full")
CONFIG = flow_config(FULL)
CHUNKS = Chunks(FULL["encoder"]["static_chunk_size"])
_conditions = jax.jit(conditions, static_argnums=0, static_argnames=("chunks", "final"))
_both = jax.jit(  # one program: what depends on the conditions compiles them anyway
    lambda *args, noise, **how: (conditions(*args, **how), generate(*args, noise, **how)),
    static_argnums=0,
    static_argnames=("chunks", "final"),
)
_generate = jax.jit(
    generate,
    static_argnums=0,
    static_argnames=("steps", "guidance", "temperature", "chunks", "final"),
)


@pytest.fixture(scope="module")
def cfm():
    return np.load(GOLDEN / "flow_cfm.npz")


@pytest.fixture(scope="module")
def full():
    return np.load(GOLDEN / "flow_full.npz")


@pytest.fixture(scope="module")
def params():
    return flow_params(CONFIG, read_tensors(GOLDEN / "flow_full.safetensors"), "the flow")


@pytest.fixture(scope="module")
def prompt(full):
    return Prompt(full["in.prompt_token"][0], full["in.prompt_feat"][0], full["in.embedding"][0])


def random_prompt(tokens, seed):
    rng = np.random.default_rng(seed)
    mel = rng.normal(size=(2 * tokens, CONFIG.estimator.num_mels)).astype(np.float32)
    return Prompt(
        rng.integers(0, CONFIG.vocab_size, tokens), mel, rng.normal(size=CONFIG.speaker_dim)
    )


def random_tokens(tokens, seed):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, tokens)


@pytest.mark.parity
def test_official_noise(cfm):
    table = official_noise()
    assert table.shape == (OFFICIAL_FRAMES, 80)
    close("noise table: the frames of flow_cfm", table[:30].T, cfm["in.noise"][0], atol=1e-6)


def test_noise_belongs_to_the_frame():
    keys = jax.random.split(jax.random.key(0), 2)
    index = jnp.array([[0, 1, 2, 3], [7, 8, 9, 10]])
    noise = frame_noise(keys, index, 80)
    np.testing.assert_array_equal(noise[1, 2:], frame_noise(keys[1:], index[1:, 2:], 80)[0])
    assert 0.8 < float(noise.std()) < 1.2 and len(np.unique(noise)) == noise.size
    table = np.arange(6.0)[:, None]
    np.testing.assert_array_equal(frame_noise(jnp.asarray(table), index, 1)[1, :, 0], [1, 2, 3, 4])


@pytest.mark.parity
def test_time_grid(cfm):
    times, widths = time_grid(10)
    close("flow_cfm full.out.traj_t", times, cfm["full.out.traj_t"], atol=3e-7)
    np.testing.assert_allclose(times + widths, [*times[1:], 1.0], atol=1e-6)
    assert len(time_grid(4)[0]) == 4


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("case", ["full", "streaming", "temperature"])
def test_golden_solver(cfm, case):
    given = sizes("flow_cfm")
    config = estimator_config(given)
    frame_first = lambda name: jnp.asarray(cfm[name].swapaxes(1, 2))
    noise, mu, cond, speaker = (
        frame_first("in.noise"),
        frame_first("in.mu"),
        frame_first("in.cond"),
        cfm["in.spks"],
    )
    valid = jnp.asarray(cfm["in.mask"][:, 0] > 0)
    mask = chunk_mask(valid, Chunks(given["static_chunk_size"]) if case == "streaming" else None)
    tree = jax.eval_shape(
        FlowEstimator(config).init,
        jax.random.key(0),
        noise,
        mu,
        speaker,
        cond,
        jnp.zeros(1),
        valid,
        mask,
    )["params"]
    tensors = read_tensors(GOLDEN / "flow_cfm.safetensors")
    params = import_params(
        tensors, estimator_rules(config, theirs="estimator."), tree, "the estimator"
    )
    estimator = estimator_of(FlowConfig(estimator=config), {"estimator": params})
    solver = jax.jit(
        lambda noise: solve(estimator, noise, Conditions(mu, speaker, cond, valid, mask))
    )
    mel, states, _ = solver(0.6 * noise if case == "temperature" else noise)
    close(f"flow_cfm {case}.out.mel", mel.swapaxes(1, 2), cfm[f"{case}.out.mel"], atol=1e-4)
    if case == "full":
        close(
            "flow_cfm full.out.traj_x",
            states[:, 0].swapaxes(1, 2),
            cfm["full.out.traj_x"],
            atol=1e-4,
        )


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(
    "case", ["offline", "stream_final", "stream_partial", "offline_partial", "stream_prefix"]
)
def test_golden_flow(full, params, prompt, case):
    tokens = full["in.token"][0]
    length = len(prompt.ids) + len(tokens)  # of the prefix, too: one program for both
    tokens = tokens[: FULL["n_prefix"]] if case == "stream_prefix" else tokens
    batch = batch_of(CONFIG, [tokens], [prompt], length=length)
    how = dict(
        chunks=CHUNKS if "stream" in case else None, final=case in ("offline", "stream_final")
    )
    noise = jnp.asarray(full["in.noise"][0].T)
    given, (got, frames) = _both(CONFIG, params, batch, noise=noise, **how)
    mu, mel = full[f"{case}.out.mu"], full[f"{case}.out.mel"]
    assert int(given.valid_BT.sum()) == mu.shape[2]
    close(f"flow_full {case}.out.mu", given.mu_BTM[0, : mu.shape[2]].T, mu[0], atol=1e-4)
    close("flow_full out.spks", given.speaker_BM, full["out.spks"], atol=1e-5)
    assert frames.tolist() == [mel.shape[2]]
    close(f"flow_full {case}.out.mel", got[0, : mel.shape[2]].T, mel[0], atol=1e-4)
    assert not np.asarray(got[0, mel.shape[2] :]).any()


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("chunks", [None, Chunks(4, left=2, follow_speech=True)], ids=str)
def test_ragged_rows_equal_single_rows(params, chunks):
    """Prompts and texts of different lengths, one without a prompt, in a bucket longer than each;
    noise from each row's key.
    """
    tokens = [random_tokens(n, n) for n in (11, 5)]  # alone, both take 11 with their prompts
    prompts = [random_prompt(n, n) for n in (0, 6)]
    keys = jax.random.split(jax.random.key(1), 2)
    how = dict(steps=3, guidance=0.5, chunks=chunks)
    together, frames = _generate(
        CONFIG, params, batch_of(CONFIG, tokens, prompts, length=16), keys, **how
    )
    assert frames.tolist() == [22, 10]
    for row in range(2):
        alone, _ = _generate(
            CONFIG,
            params,
            batch_of(CONFIG, tokens[row : row + 1], prompts[row : row + 1]),
            keys[row : row + 1],
            **how,
        )
        close(
            "ragged rows equal single rows: flow",
            together[row, : frames[row]],
            alone[0, : frames[row]],
            atol=2e-5,
        )
        assert not np.asarray(together[row, frames[row] :]).any()


@pytest.mark.slow
def test_no_guidance_is_the_conditional_velocity_alone(params, prompt):
    """Guidance is linear in its strength, and at 0 nothing of the unconditional evaluation is left."""
    given = _conditions(CONFIG, params, batch_of(CONFIG, [random_tokens(5, 0)], [prompt]))
    noise = jax.random.normal(jax.random.key(2), given.mu_BTM.shape)
    rows = []

    def estimator(*args):
        rows.append(len(args[0]))
        return estimator_of(CONFIG, params)(*args)

    none, half, whole = (
        jax.jit(lambda g=g: solve(estimator, noise, given, steps=1, guidance=g)[0])()
        for g in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(2 * (half - none), whole - none, atol=2e-5)
    assert float(jnp.abs(whole - none).max()) > 0.1
    assert rows == [1, 2, 2]


def test_bad_input_is_named(params, prompt):
    good = random_tokens(4, 0)
    with pytest.raises(UserError, match="one prompt a row, got 1 rows of tokens and 2 prompts"):
        batch_of(CONFIG, [good], [prompt, prompt])
    with pytest.raises(UserError, match="row 1 has no speech tokens"):
        batch_of(CONFIG, [good, good[:0]], [prompt, prompt])
    with pytest.raises(UserError, match=r"row 0 has token ids from 0 to 300, known are 0 to 299"):
        batch_of(CONFIG, [np.array([0, 300])], [prompt])
    with pytest.raises(UserError, match="whole token ids"):
        batch_of(CONFIG, [np.array([0.5])], [prompt])
    with pytest.raises(UserError, match="row 0 has 11 tokens with its prompt, the bucket only 8"):
        batch_of(CONFIG, [good], [prompt], length=8)
    with pytest.raises(UserError, match=r"mel of \[13, 80\], its tokens need \[14, 80\]"):
        batch_of(CONFIG, [good], [Prompt(prompt.ids, prompt.mel[:13], prompt.speaker)])
    assert len(Prompt(prompt.ids, prompt.mel[:13], prompt.speaker).trimmed().ids) == 6
    with pytest.raises(UserError, match=r"speaker vector of \[5\], needed is \[192\]"):
        batch_of(CONFIG, [good], [Prompt(prompt.ids, prompt.mel, np.ones(5))])
    batch = batch_of(CONFIG, [good], [prompt])
    with pytest.raises(UserError, match="at least 1 Euler step, got 0"):
        generate(CONFIG, params, batch, jax.random.split(jax.random.key(0), 1), steps=0)
    with pytest.raises(UserError, match=r"a noise key a row, \[1\]"):
        generate(CONFIG, params, batch, jax.random.key(0))
    with pytest.raises(UserError, match=r"must be \[frames, 80\]"):
        generate(CONFIG, params, batch, jnp.zeros((80, 30)))
