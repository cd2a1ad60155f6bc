"""The Talker's losses computed once more in numpy, from a plain forward of the model, and compared
with what the experiment's task gives.

Every setting differs from its default, teacher and student differ, and the output layer runs on
gathered positions (capacity 0.75), as in the shipped
model: a setting that does not arrive, or a place that is counted too often, changes a number.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.cli.experiment import load_config
from mdmspeech.diffusion import masking
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.transformer import LlamaBlock
from mdmspeech.speech_format import BOS, CODES, EOS, MASK, PAD, SOS, VOCAB
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.stages import build
from mdmspeech.training.state import create_frozen
from tests.support.dense_masks import block_causal_mask

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = dict(
    dim=64,
    num_layers=1,
    num_heads=2,
    ffn_dim=64,
    block=4,
    anchors="paced",
    symbols=20,
    symbol_lookahead=(2,),
    output_bias=True,
)
MODEL, ROWS, LENGTH = TalkerConfig(**SMALL), 2, 32
DISTILLATION = dict(iterations=3, a=0.3, temperature=1.5, direction="forward")
OFF_TARGET = dict(label_smoothing=0.1, z_loss=0.01)


def params_of(seed: int, model: TalkerConfig = MODEL):
    """Random, surer than fresh ones, with end tokens among the likeliest and with ids that nobody
    may write above all.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: talker.init(model, key), jax.random.key(0))
    params = jax.tree.map(
        lambda x: jnp.asarray(
            rng.normal(1.0 if x.ndim == 1 else 0.0, 0.3 if x.ndim == 1 else 0.1, x.shape), x.dtype
        ),
        shapes,
    )
    unfair = jnp.zeros(VOCAB).at[EOS].set(12.0).at[jnp.array([BOS, SOS, PAD, MASK])].set(50.0)
    return {**params, "output_bias": params["output_bias"] + unfair}


@pytest.fixture(scope="module")
def student():
    return params_of(0)


@pytest.fixture(scope="module")
def stage_two():
    return params_of(1)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, CODES, (ROWS, LENGTH))
    tokens[0, 30:], tokens[1, 19:24] = EOS, EOS
    return {
        "tokens": jnp.asarray(tokens),
        "valid": jnp.ones((ROWS, LENGTH), bool).at[1, 24:].set(False),
        "symbols": jnp.asarray(rng.integers(0, 20, (ROWS, 12))),
        "symbols_valid": jnp.ones((ROWS, 12), bool).at[1, 6:].set(False),
        "durations": jnp.asarray(rng.uniform(0.01, 4.0, (ROWS, 12)).astype(np.float32)),
    }


@pytest.fixture(scope="module")
def forward(batch):
    """forward(params, ids, block) -> (logits float64 [B, L, V], log-durations): one dense
    block-causal pass over all positions.
    """
    model = talker.Talker(MODEL)

    @jax.jit
    def run(params, ids, seen):
        cond, durations = model.apply(
            {"params": params},
            batch["symbols"],
            batch["symbols_valid"],
            batch["durations"],
            LENGTH,
            method="condition_paced",
        )
        hidden, _ = model.apply({"params": params}, ids, cond, seen, jnp.arange(LENGTH)[None])
        return model.apply({"params": params}, hidden, method="logits"), durations

    def forward(params, ids, block=MODEL.block):
        seen = block_causal_mask(LENGTH, block, batch["valid"])
        return tuple(
            np.asarray(x, np.float64) for x in run(params, jnp.asarray(ids, jnp.int32), seen)
        )

    return forward


def task_of(name, tmp_path, stage_two=None, **settings):
    """The task of an experiment file, in small; `stage_two` is what `init_from` names."""
    config = load_config(str(EXPERIMENTS / f"{name}.py"))
    config.talker = SMALL
    for key, value in settings.items():
        config[key] = value
    return build.make_task(
        config, tmp_path / "run", None, build.Loaders(release=lambda where, part: stage_two)
    )


def drawn_by(schedule, batch):
    """(key, masking in numpy), of a key that hides the first token of the first row: the places
    that only fill up the gathered positions point at it.
    """
    sample = jax.jit(lambda key: schedule.sample(key, batch["valid"], MODEL.block))
    keys = (jax.random.key(seed) for seed in range(20))
    return next(
        (key, jax.tree.map(np.asarray, drawn))
        for key in keys
        if (drawn := sample(key)).mask_BL[0, 0]
    )


def losses_of(task, params, frozen, batch, key):
    return jax.tree.map(
        float, jax.jit(lambda p, f: task.loss(p, f, batch, key, jnp.int32(0)))(params, frozen)
    )


def log_softmax(x):
    return (
        x
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - x.max(-1, keepdims=True)
    )


def nats(logits, batch):
    """Cross-entropy of every position, smoothed, with the z-loss."""
    logp, tokens = log_softmax(logits), np.asarray(batch["tokens"])
    plain = -np.take_along_axis(logp, tokens[..., None], -1)[..., 0]
    return 0.9 * plain - 0.1 * logp.mean(-1) + 0.01 * (logits - logp)[..., 0] ** 2


def roll_out(forward, teacher, noisy, hidden, iterations):
    """(Z, ids): what the teacher says of each hidden token when it reveals it, and what it writes."""
    may_write = np.arange(VOCAB) < CODES
    may_write[EOS] = True
    ids, left, z = noisy.copy(), hidden.copy(), np.zeros((*noisy.shape, VOCAB))
    for iteration in range(iterations):
        logits, _ = forward(teacher, ids)
        chance = np.where(may_write, np.exp(log_softmax(logits)), 0)
        shown = ids.copy()
        for row, first in np.ndindex(ROWS, LENGTH // MODEL.block):
            masked = [
                at for at in range(first * MODEL.block, (first + 1) * MODEL.block) if left[row, at]
            ]
            surest_first = sorted(masked, key=lambda at: -chance[row, at].max())
            for at in surest_first[: -(-len(masked) // (iterations - iteration))]:
                z[row, at], left[row, at] = logits[row, at], False
                shown[row, at] = chance[row, at].argmax()
        ids = shown
    assert not left.any()
    return z, ids


def test_self_distillation(tmp_path, batch, forward, student, stage_two):
    schedule = dict(name="hierarchical", blocks=(0.6, 0.9), tokens=(0.5, 1.0))
    task = task_of(
        "compact_talker_isd",
        tmp_path,
        stage_two,
        init_from="stage_two",
        masking=schedule,
        capacity=0.75,
        distillation=DISTILLATION,
        **OFF_TARGET,
    )
    frozen = create_frozen(task, make_mesh(devices=jax.devices()[:1]))
    # the teacher is stage 2
    jax.tree.map(np.testing.assert_array_equal, frozen["teacher"], stage_two)
    # and the student begins as stage 2
    jax.tree.map(np.testing.assert_array_equal, task.warm_start(student), stage_two)
    key, (hidden, _) = drawn_by(masking.Hierarchical((0.6, 0.9), (0.5, 1.0)), batch)
    losses = losses_of(task, student, frozen, batch, key)

    valid = np.asarray(batch["valid"])
    assert not (hidden & ~valid).any() and hidden.sum() < 0.75 * valid.size
    noisy = np.where(hidden, MASK, np.asarray(batch["tokens"]))
    z, written = roll_out(forward, stage_two, noisy, hidden, DISTILLATION["iterations"])
    ends = (written == EOS)[hidden].mean()
    assert 0.1 < ends < 0.9, f"{ends:.0%}: the teacher writes ends and codes"
    logits, durations = forward(student, noisy)
    p, q = (log_softmax(x / DISTILLATION["temperature"]) for x in (z, logits))
    kl = (np.exp(p) * (p - q)).sum(-1)[hidden].sum()
    ce = nats(logits, batch)[hidden].sum()
    assert abs(kl - ce) > 0.1 * ce
    expected = {"kl": kl, "ce": ce, "token": DISTILLATION["a"] * kl + (1 - DISTILLATION["a"]) * ce}
    for name, total in expected.items():
        np.testing.assert_allclose(losses[name], (total, hidden.sum()), rtol=1e-4, err_msg=name)
    right = (logits.argmax(-1) == np.asarray(batch["tokens"]))[hidden].sum()
    np.testing.assert_allclose(losses["accuracy"], (right, hidden.sum()))
    spoken = np.asarray(batch["symbols_valid"])
    wrong = np.abs(durations - np.log(np.maximum(np.asarray(batch["durations"]), 0.05)))[
        spoken
    ].sum()
    np.testing.assert_allclose(losses["duration"], (wrong, spoken.sum()), rtol=1e-4)
    assert losses["left_out"] == (0, hidden.sum()) and task.weights == {
        "token": 1.0,
        "duration": 0.3,
    }


def test_masked_diffusion(tmp_path, batch, forward, student):
    schedule = dict(name="inverse_t", low=0.3, per="sequence")
    task = task_of("compact_talker", tmp_path, masking=schedule, capacity=0.75, **OFF_TARGET)
    key, (hidden, weight) = drawn_by(masking.InverseT(0.3, "sequence"), batch)
    losses = losses_of(task, student, {}, batch, key)
    assert 0.2 * hidden.size < hidden.sum() < 0.75 * hidden.size and len(np.unique(weight)) > 2
    logits, _ = forward(student, np.where(hidden, MASK, np.asarray(batch["tokens"])))
    np.testing.assert_allclose(
        losses["token"],
        ((weight * nats(logits, batch)).sum(), np.asarray(batch["valid"]).sum()),
        rtol=1e-4,
    )


def test_the_next_token_baseline(tmp_path, batch, forward, student):
    """Position i sees bos and the tokens before i, each with the condition of the place it stands at."""
    task = task_of("compact_talker_ntp", tmp_path, init_from="", **OFF_TARGET)
    # so that one token of the input is seen in the sum
    calm = {**student, "output_bias": jnp.zeros(VOCAB)}
    losses = losses_of(task, calm, {}, batch, jax.random.key(0))
    tokens, valid = np.asarray(batch["tokens"]), np.asarray(batch["valid"])
    logits, _ = forward(
        calm, np.concatenate([np.full((ROWS, 1), BOS), tokens[:, :-1]], axis=1), block=1
    )
    np.testing.assert_allclose(
        losses["token"], (nats(logits, batch)[valid].sum(), valid.sum()), rtol=1e-5
    )


def test_the_multi_token_baseline(tmp_path, batch, stage_two):
    """Module k reads the stage before, un-normed, and the condition k places further, whose token
    it predicts; one output table for all; the k-th loss weighs 0.8^k.
    """
    config = TalkerConfig(**SMALL, mtp_modules=2)
    sizes = {**SMALL, "mtp_modules": 2}
    task = task_of("compact_talker_mtp", tmp_path, stage_two, init_from="stage_two", talker=sizes)
    params = params_of(3, config)
    begun = task.warm_start(params)  # as stage 2, but for the modules, which it does not have
    fresh = {name for name in params if name.startswith("mtp_")}
    for name in params:
        there = params[name] if name in fresh else stage_two[name]
        jax.tree.map(np.testing.assert_array_equal, begun[name], there)
    params["output_bias"] = jnp.zeros(VOCAB)
    losses = losses_of(task, params, {}, batch, jax.random.key(0))
    assert {k: task.weights[k] for k in ("token", "token_1", "token_2")} == pytest.approx(
        {"token": 1.0, "token_1": 0.8, "token_2": 0.64}
    )

    @jax.jit
    def by_hand(params, ids):
        apply = lambda module, name, *args: module.apply({"params": params[name]}, *args)
        cond, _ = talker.Talker(config).apply(
            {"params": params},
            batch["symbols"],
            batch["symbols_valid"],
            batch["durations"],
            LENGTH,
            method="condition_paced",
        )
        layer = LlamaBlock(2, 2, 32, 64, qk_norm=True)
        seen = block_causal_mask(LENGTH, 1, batch["valid"])
        rope = rope_table(jnp.arange(LENGTH)[None], rope_frequencies(32, 10_000.0))
        tables = {
            name: apply(talker.CodeTable(64, True, 1.0), name) for name in ("inputs", "outputs")
        }
        x, _ = apply(layer, "layers_0", tables["inputs"][ids] + cond, seen, rope)
        logits = [apply(RMSNorm(), "norm", x) @ tables["outputs"].T]
        for k in (1, 2):
            later = jnp.concatenate([cond[:, k:], jnp.zeros_like(cond[:, :k])], axis=1)
            x, _ = apply(layer, f"mtp_layers_{k - 1}", x + later, seen, rope)
            logits.append(apply(RMSNorm(), f"mtp_norms_{k - 1}", x) @ tables["outputs"].T)
        return logits

    tokens, valid = np.asarray(batch["tokens"]), np.asarray(batch["valid"])
    shifted = np.concatenate([np.full((ROWS, 1), BOS), tokens[:, :-1]], axis=1)
    for k, logits in enumerate(by_hand(params, jnp.asarray(shifted))):
        logp, tail = log_softmax(np.asarray(logits, np.float64)), f"_{k}" * (k > 0)
        places = [(r, p) for r, p in np.ndindex(ROWS, LENGTH - k) if valid[r, p + k]]
        nats = [-logp[r, p, tokens[r, p + k]] for r, p in places]
        right = [logp[r, p].argmax() == tokens[r, p + k] for r, p in places]
        np.testing.assert_allclose(losses[f"token{tail}"], (sum(nats), len(places)), rtol=1e-4)
        assert losses[f"accuracy{tail}"] == (sum(right), len(places))
