"""Products of factors rounded to bfloat16: values, gradients, and that nothing else is computed."""

import re
from importlib import resources

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.core import FrozenDict

from mdmspeech.errors import UserError
from mdmspeech.models.seq2seq_adaptor import Seq2SeqAdaptor, Seq2SeqConfig
from mdmspeech.models.talker import Talker, TalkerConfig
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.nn.linear import Linear
from mdmspeech.nn.matmul_precision import matmul, matmul_precision
from mdmspeech.nn.stack import LayerStack, remat_policy
from mdmspeech.nn.tracing import attention_backend
from mdmspeech.nn.transformer import LlamaBlock
from mdmspeech.training.flops import count_flops

SHAPES = [((6, 5), (5, 3)), ((2, 3, 5), (5, 4)), ((2, 3, 5), (2, 5, 4)), ((7, 5), (5, 3))]


def rounded(x):
    return np.asarray(x, ml_dtypes.bfloat16).astype(np.float64)


def factors(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("shapes", SHAPES)
def test_a_product_and_its_gradient_are_of_rounded_factors_added_in_float32(shapes):
    x, y = factors(shapes)
    (g,) = factors([jnp.matmul(x, y).shape], seed=1)
    with matmul_precision("bfloat16"):
        out, back = jax.vjp(matmul, x, y)
    dx, dy = back(g)
    X, Y, G = rounded(x), rounded(y), rounded(g)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    close(out, X @ Y)
    close(dx, G @ Y.swapaxes(-1, -2))
    alone = X.swapaxes(-1, -2) @ G
    close(dy, alone if y.ndim == 3 or x.ndim == 2 else alone.sum(0))
    assert out.dtype == dx.dtype == dy.dtype == jnp.float32
    assert np.abs(out - np.asarray(x, np.float64) @ np.asarray(y, np.float64)).max() > 1e-4


@pytest.mark.parametrize(
    "turned", [lambda out: out.swapaxes(-1, -2), lambda out: 2 * out.swapaxes(-1, -2)]
)
@pytest.mark.parametrize("shapes", [((64, 48), (48, 66)), ((3, 64, 48), (3, 48, 66))])
def test_a_transpose_behind_a_product_can_be_computed(shapes, turned):
    """Compiled with it, the product was one that the CPU's runtime has not."""
    x, y = factors(shapes)

    def loss(x, y):
        with matmul_precision("bfloat16"):
            return (turned(matmul(x, y)) ** 2).sum()

    value, (dx, dy) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, y)
    turned_back = jax.jit(
        lambda *args: [d.swapaxes(-1, -2) * 2 for d in jax.grad(loss, (0, 1))(*args)]
    )
    for a, b in zip(turned_back(x, y), (dx, dy), strict=True):
        np.testing.assert_allclose(a, 2 * b.swapaxes(-1, -2), rtol=1e-2, atol=1.0)
    assert float(value) > 0


@pytest.mark.parametrize(("machine", "barriers"), [("cpu", 3), ("tpu", 0)])
def test_what_a_cpu_needs_is_in_no_program_for_another_machine(machine, barriers):
    def loss(x, y):
        with matmul_precision("bfloat16"):
            return matmul(x, y).sum()

    with attention_backend(machine):
        text = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*factors(SHAPES[1])).as_text()
    assert text.count("stablehlo.optimization_barrier") == barriers
    assert ("stablehlo.transpose" in text) == (machine == "cpu")


def test_one_row_and_what_is_not_broadcast():
    (row, many), (y, ys) = factors([(5,), (2, 3, 5)]), factors([(5, 4), (1, 5, 4)])
    with matmul_precision("bfloat16"):
        np.testing.assert_allclose(matmul(row, y), rounded(row) @ rounded(y), rtol=1e-5)
        with pytest.raises(ValueError, match=r"\(2, 3, 5\) and \(1, 5, 4\)"):
            matmul(many, ys)


def test_the_default_is_the_machine_s_own_and_comes_back():
    x, y = factors(SHAPES[0])
    with matmul_precision("bfloat16"):
        matmul(x, y)
    np.testing.assert_array_equal(matmul(x, y), jnp.matmul(x, y))
    half = matmul(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert matmul(half, half.T, jnp.float32).dtype == jnp.float32


def test_half_precision_goes_in_and_out():
    x, y = (z.astype(jnp.bfloat16) for z in factors(SHAPES[0]))
    with matmul_precision("bfloat16"):
        out, back = jax.vjp(matmul, x, y)
        assert matmul(x, y, jnp.float32).dtype == jnp.float32
    assert out.dtype == jnp.bfloat16
    assert {d.dtype for d in back(out)} == {jnp.dtype(jnp.bfloat16)}


def test_another_precision_is_refused():
    told = "'half' is unknown; use one of default, bfloat16"
    with pytest.raises(UserError, match=told), matmul_precision("half"):
        pass


def products(fn, *args):
    """The factors' types of all matrix products in the program."""
    found = re.findall(
        r"dot_general.*?: \((\S+), (\S+)\) -> (\S+)", jax.jit(fn).lower(*args).as_text()
    )
    return [tuple(t.strip("tensor<>").split("x")[-1] for t in types) for types in found]


def test_a_layer_and_its_gradient_multiply_in_bfloat16_only():
    x = jnp.ones((2, 4, 16))
    block = LlamaBlock(num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=24)
    mask = jnp.tril(jnp.ones((2, 4, 4), bool))
    params = block.init(jax.random.key(0), x, mask)

    def loss(params, x, precision):
        with matmul_precision(precision):
            return (block.apply(params, x, mask)[0] ** 2).sum()

    gradient = jax.grad(loss, argnums=(0, 1))
    half = products(lambda p, x: gradient(p, x, "bfloat16"), params, x)
    full = products(lambda p, x: gradient(p, x, "default"), params, x)
    assert len(half) >= 3 * 11  # seven layers, two heads' scores and sums: forward and two backward
    assert set(half) == {("bf16", "bf16", "f32")}
    assert set(full) == {("f32", "f32", "f32")}


@pytest.mark.parametrize("precision", ["default", "bfloat16"])
def test_rematerialisation_keeps_the_products_of_either_precision(precision):
    """Policy "dots" computes hardly any again, "full" all."""
    x = jnp.ones((1, 8, 16))
    kwargs = FrozenDict(num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=24)
    stack = LayerStack(LlamaBlock, kwargs, 2)
    mask = jnp.tril(jnp.ones((1, 8, 8), bool))
    params = stack.init(jax.random.key(0), x, mask)

    def cost(policy):
        def loss(params, x):
            with remat_policy(policy), matmul_precision(precision):
                return (stack.apply(params, x, mask)[0] ** 2).sum()

        return count_flops(jax.grad(loss), params, x)

    none, dots, full = map(cost, ("none", "dots", "full"))
    assert none <= dots < none + 0.2 * (full - none)


@pytest.mark.parametrize(
    "model",
    [
        Thinker(ThinkerConfig(vocab_size=32, dim=16, num_layers=1)),
        Talker(TalkerConfig(dim=16, num_layers=1, num_heads=2, ffn_dim=16, symbols=4)),
        Seq2SeqAdaptor(Seq2SeqConfig(dim=16, num_layers=1, num_heads=2, ffn_dim=16, pieces=8)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_output_layers_obey(model):
    hidden = jnp.ones((2, 3, 16))
    params = model.init(jax.random.key(0), hidden, method="logits")

    def logits(hidden):
        with matmul_precision("bfloat16"):
            return model.apply(params, hidden, method="logits")

    assert products(logits, hidden)[-1] == ("bf16", "bf16", "f32")


def test_a_low_rank_update_stays_in_float32():
    """Its two thin products cost little, and are all that is trained."""
    layer = Linear(12, rank=2)
    x = jnp.ones((3, 16))
    params = layer.init(jax.random.key(0), x)
    with matmul_precision("bfloat16"):
        types = products(layer.apply, params, x)
    assert sorted(types) == [("bf16", "bf16", "f32"), ("f32", "f32", "f32"), ("f32", "f32", "f32")]


@pytest.mark.slow
def test_the_shipped_encoder_hears_the_same():
    """What `mdmspeech data --states --matmul-precision bfloat16` stores is off by one or two percent."""
    from mdmspeech.audio.wave import load_wave
    from mdmspeech.interop.sources import load_speech_encoder
    from mdmspeech.models.speech_encoder import SpeechEncoder, encode_waves

    asked = resources.files("mdmspeech") / "assets" / "fact.wav"
    encoder, wave = load_speech_encoder(), load_wave(str(asked), 16_000)

    def states(precision):
        with matmul_precision(precision):
            run = jax.jit(lambda *of: encode_waves(SpeechEncoder(encoder.config), *of))
            return np.asarray(run(encoder.params, wave[None], np.array([len(wave)]))[0])

    plain, rounded_ = states("default"), states("bfloat16")
    away = np.linalg.norm(rounded_ - plain) / np.linalg.norm(plain)
    assert 0.001 < away < 0.03
