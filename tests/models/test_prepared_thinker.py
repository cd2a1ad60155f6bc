"""A prepared Thinker is the trained one, whatever its family, and drafts do not change what it
writes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.models import generation
from mdmspeech.models.prepared_thinker import PreparedThinker, prepared
from mdmspeech.models.thinker import Thinker, ThinkerConfig

SMALL = ThinkerConfig(
    vocab_size=13, dim=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=24
)
YARN = (("rope_type", "yarn"), ("factor", 4.0), ("original_max_position_embeddings", 8))
CONFIGS = {
    "Llama, YaRN": dataclasses.replace(SMALL, rope_scaling=YARN),
    "Qwen2, scanned": dataclasses.replace(SMALL, qkv_bias=True, scan_layers=True),
    "Qwen3, an output layer": dataclasses.replace(SMALL, qk_norm=True, tie_embeddings=False),
}
extend = jax.jit(generation.extend, static_argnums=0)
verify = jax.jit(generation.verify, static_argnums=0)


def pair(config):
    """(the module, its parameters), (the prepared one, its parameters)."""
    module = Thinker(config)
    params = random_params(module.init, jax.random.key(1), jnp.zeros((1, 2), jnp.int32))["params"]
    params = jax.tree.map(
        lambda x: x * 2 + 0.1 * np.cos(np.arange(x.size)).reshape(x.shape), params
    )
    return (module, params), PreparedThinker.of(config, params)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("which", CONFIGS)
def test_it_is_the_trained_one_and_drops_what_has_no_room(which, rows):
    """Ragged rows, then padded inputs that reach past the end of the cache, then a full row."""
    states = {}
    for model, params in pair(CONFIGS[which]):
        rng, states[model] = np.random.default_rng(0), generation.empty_state(model, rows, 12)
        for new in (5 - np.arange(rows) % 3, 4 + np.arange(rows) % 3, np.full(rows, 3)):
            x_BTD = rng.normal(size=(rows, 6, 16)).astype(np.float32)
            room = 12 - np.asarray(states[model].lengths_B)
            new_B = np.minimum(new, room).astype(np.int32)
            hidden, states[model] = extend(model, params, states[model], x_BTD, new_B)
            states[model, "hidden", int(new[0])] = [hidden[b, :n] for b, n in enumerate(new_B)]
    trained, ours = (key for key in states if not isinstance(key, tuple))
    assert states[ours].lengths_B.max() == 12
    np.testing.assert_array_equal(states[ours].lengths_B, states[trained].lengths_B)
    np.testing.assert_allclose(
        states[ours].logits_BV, states[trained].logits_BV, atol=1e-4, rtol=1e-4
    )
    for key in [key for key in states if isinstance(key, tuple) and key[0] == trained]:
        for one, other in zip(states[ours, *key[1:]], states[key], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def test_what_is_prepared_stays_and_what_is_used_up_goes():
    _, (thinker, params) = pair(SMALL)
    again = PreparedThinker.of(SMALL, params)
    assert again[0] == thinker
    jax.tree.map(np.testing.assert_array_equal, again[1], params)
    (_, trained), _ = pair(SMALL)
    mine = {**trained, "layers": dict(trained["layers"])}
    jax.tree.map(np.testing.assert_array_equal, prepared(mine, use_up=True), params)
    assert not mine["layers"] and len(trained["layers"]) == 2


def test_updates_beside_the_weights_are_refused():
    with pytest.raises(ValueError, match="fuse"):
        pair(dataclasses.replace(SMALL, lora_rank=2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "prepared"])
def test_drafts_are_read_as_far_as_they_are_right(kind):
    model, params = pair(SMALL)[kind == "prepared"]
    rng, seen = np.random.default_rng(3), set()
    for _ in range(6):
        x_BTD = rng.normal(size=(1, 4, 16)).astype(np.float32)
        state = generation.empty_state(model, 1, 16)
        state = extend(model, params, state, x_BTD, np.array([4], np.int32))[1]
        alone, greedy, logits, hidden = state, [], [], []
        for _ in range(5):
            greedy.append(int(jnp.argmax(alone.logits_BV[0])))
            token_B = np.array(greedy[-1:], np.int32)
            _, one, alone = generation.read_token(model, params, alone, token_B)
            logits.append(alone.logits_BV[0])
            hidden.append(one[0])
        for right in range(4):
            drafts = np.array(greedy[:4], np.int32)
            if right < 3:
                wrong = (drafts[1 + right] + 1) % 13 if right else -1
                drafts[1 + right :] = wrong
            count, embedded, states, new = verify(model, params, state, drafts)
            seen.add(int(count))
            # a wrong draft may be right by chance behind a wrong one, never in front of it
            assert int(count) == right + 1 and new.lengths_B.tolist() == [4 + right + 1]
            np.testing.assert_allclose(new.logits_BV[0], logits[right], atol=1e-4)
            np.testing.assert_allclose(states[: right + 1], hidden[: right + 1], atol=1e-4)
            table = params["embedding"]["embedding"]
            np.testing.assert_array_equal(embedded[0], table[greedy[0]])
            # what was wrong leaves nothing behind
            token_B = np.array([greedy[right + 1]], np.int32)
            after = generation.read_token(model, params, new, token_B)[2]
            np.testing.assert_allclose(after.logits_BV[0], logits[right + 1], atol=1e-4)
    assert seen == {1, 2, 3, 4}
