"""CosyVoice2's LM in our Talker: all of it is consumed, nothing is left over, and with blocks of
one token it is the same model.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import PrefixReader, PrefixText
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.interop.cosyvoice2_lm import (
    COSYVOICE2_LM,
    SPEECH_ROWS,
    lm_params,
    lm_rules,
    lm_shapes,
)
from mdmspeech.interop.huggingface import thinker_params
from mdmspeech.models import talker
from mdmspeech.models.talker import Talker
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.speech_format import BOS, CODES, EOS, MASK, PAD, START

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = dataclasses.replace(
    COSYVOICE2_LM, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_dim=48, text_vocab_size=40
)
TEXT = "llm.model.model."


def manifest(config):
    """Names and shapes of llm.pt, as PyTorch writes them."""
    width, kv = config.dim, config.num_kv_heads * config.dim // config.num_heads
    tensors = {
        f"{TEXT}embed_tokens.weight": (config.text_vocab_size, width),
        f"{TEXT}norm.weight": (width,),
        "speech_embedding.weight": (6564, width),
        "llm_embedding.weight": (2, width),
        "llm_decoder.weight": (6564, width),
        "llm_decoder.bias": (6564,),
    }
    for layer in range(config.num_layers):
        name = f"{TEXT}layers.{layer}."
        for part, rows in {"q": width, "k": kv, "v": kv}.items():
            (
                tensors[f"{name}self_attn.{part}_proj.weight"],
                tensors[f"{name}self_attn.{part}_proj.bias"],
            ) = (rows, width), (rows,)
        tensors[f"{name}self_attn.o_proj.weight"] = (width, width)
        for part in ("gate", "up"):
            tensors[f"{name}mlp.{part}_proj.weight"] = (config.ffn_dim, width)
        tensors[f"{name}mlp.down_proj.weight"] = (width, config.ffn_dim)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{norm}.weight"] = (width,)
    return tensors


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    drawn = {
        name: rng.normal(size=shape).astype(np.float32) / np.sqrt(shape[-1])
        for name, shape in manifest(SMALL).items()
    }
    drawn |= {name: 1 + value for name, value in drawn.items() if "norm.weight" in name}
    drawn["llm_decoder.weight"] *= 8
    return drawn


@pytest.fixture(scope="module")
def params(tensors):
    return lm_params(SMALL, tensors, "llm.pt")


def test_every_tensor_of_the_published_file_has_its_place():
    places = lm_shapes(COSYVOICE2_LM)
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict(places).items()}
    rules = lm_rules(COSYVOICE2_LM)
    shapes = {r.name: (flat[r.path], r.axes) for r in rules}
    assert {
        n: tuple(s[a.index(i)] for i in range(len(s))) if a else s for n, (s, a) in shapes.items()
    } == manifest(COSYVOICE2_LM)
    assert len(rules) == len(flat) == 6 + 24 * 12
    qwen2 = 494_032_768  # Qwen2-0.5B with its tied embedding
    expected = qwen2 + 6564 * (2 * 896 + 1) + 2 * 896
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(places))
        == sum(np.prod(s) for s in manifest(COSYVOICE2_LM).values())
        == expected
    )


def test_every_parameter_of_ours_is_filled(params):
    shapes = jax.eval_shape(lambda key: talker.init(SMALL, key), jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(
        lambda leaf: leaf.shape, shapes
    )


def test_the_output_layer_of_the_text_is_let_go(tensors, params):
    tied = tensors | {"llm.model.lm_head.weight": tensors[f"{TEXT}embed_tokens.weight"]}
    jax.tree.map(np.testing.assert_array_equal, lm_params(SMALL, tied, "llm.pt"), params)
    with pytest.raises(UserError, match=r"lm_head\.weight is \[3, 32\]"):
        lm_params(SMALL, tensors | {"llm.model.lm_head.weight": np.zeros((3, 32))}, "llm.pt")


def test_another_file_is_told_by_all_its_differences(tensors):
    other = {
        name: value for name, value in tensors.items() if not name.startswith("llm_embedding")
    } | {"flow.weight": np.zeros(2)}
    with pytest.raises(
        UserError,
        match=(
            r"llm\.pt does not fit.*1 missing \(llm_embedding\.weight\).*1 unknown "
            r"\(flow\.weight\)"
        ),
    ):
        lm_params(SMALL, other, "llm.pt")


TEXTS, SPEECH = [5, 9, 2, 30], [100, 6000, 3, 77, 41, 6560]


@pytest.fixture(scope="module")
def reference(tensors):
    """reference(speech): logits [7, 6564] of theirs by the book, what follows each of
    [task, speech]: Qwen2, which is our Thinker (tests/models), over [sos, text, task, speech].
    """
    qwen = ThinkerConfig(
        SMALL.text_vocab_size,
        SMALL.dim,
        SMALL.num_layers,
        SMALL.num_heads,
        SMALL.num_kv_heads,
        SMALL.head_dim,
        SMALL.ffn_dim,
        1e6,
        None,
        1e-6,
        qkv_bias=True,
    )
    weights = thinker_params(
        qwen,
        {n.removeprefix("llm.model."): t for n, t in tensors.items() if n.startswith(TEXT)},
        "qwen",
    )
    states = jax.jit(
        lambda x: Thinker(qwen).apply({"params": weights}, x, method="states")[0][
            0, 1 + len(TEXTS) :
        ]
    )
    (sos, task), read = (
        tensors["llm_embedding.weight"],
        tensors[f"{TEXT}embed_tokens.weight"][TEXTS],
    )

    def run(speech):
        spoken = np.zeros((6, SMALL.dim), np.float32)  # what comes later is not seen
        spoken[: len(speech)] = tensors["speech_embedding.weight"][np.array(speech, int)]
        found = np.asarray(states(jnp.asarray(np.concatenate([[sos], read, [task], spoken])[None])))
        return found @ tensors["llm_decoder.weight"].T + tensors["llm_decoder.bias"][None]

    return run


def test_it_is_the_same_model(reference, params):
    count = 1 + len(TEXTS)
    ids = jnp.asarray([[BOS, *SPEECH]])
    causal = jnp.tril(jnp.ones((1, count + 7, count + 7), bool))

    @jax.jit
    def logits(params):
        apply = lambda *args, **kwargs: Talker(SMALL).apply({"params": params}, *args, **kwargs)
        before = apply(jnp.asarray([[START, *TEXTS]]), method="prefix")
        hidden, _ = apply(ids, None, causal, jnp.arange(count + 7)[None], before_BND=before)
        return jax.nn.log_softmax(apply(hidden[:, count:], method="logits"))[0]

    expected = np.asarray(jax.nn.log_softmax(reference(SPEECH)))
    ours = np.asarray(logits(params))
    np.testing.assert_allclose(ours[:, :CODES], expected[:, :CODES], atol=2e-5)
    np.testing.assert_allclose(ours[:, [EOS, PAD]], expected[:, [CODES, CODES + 2]], atol=2e-5)
    assert ours[:, [BOS, MASK]].max() < -80 and expected.shape[1] == SPEECH_ROWS


@pytest.mark.slow
def test_blocks_of_one_token_speak_as_it_does_whatever_the_company(reference, params):
    """Greedy next-token decoding by the book, by the next-token decoder over a cache, and by masked
    diffusion with blocks of one; rows of several texts.
    """
    texts = [TEXTS, [7], [1, 2, 3, 4, 5, 6, 7, 8]]
    spoken = []
    for block, mode in ((8, "ntp"), (1, "mdm")):
        engine = TalkerEngine(dataclasses.replace(SMALL, block=block), params, mode)
        heard = [PrefixText(PrefixReader(engine.talker, engine.params), 2, 20) for _ in texts]
        for text, ids in zip(heard, texts, strict=True):
            text.extend(ids)
        inputs = [text.inputs for text in heard]
        spoken.append([new for _, new in engine.decode(inputs, steps=1, target_len=[6, 8, 3])])
    for theirs, ours in zip(*spoken, strict=True):
        np.testing.assert_array_equal(ours.ids_N, theirs.ids_N)
        np.testing.assert_allclose(ours.confidence_N, theirs.confidence_N, rtol=1e-3)
    said = []
    for at in range(6):
        said.append(int(reference(said)[at, :CODES].argmax()))
    assert spoken[0][0].ids_N.tolist() == said and len(set(said)) > 3
