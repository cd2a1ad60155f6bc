"""A tiny real transformer in plain jnp (rotary attention, GELU MLP), cached and uncached, for the
tests of `diffusion` and `decoding`: fixtures of every test (conftest.py).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import block_diffusion
from mdmspeech.decoding.state import DecodingConfig, initial_state
from mdmspeech.diffusion.layout import cache_slots

# two filler rows after the mask id
CODES, BOS, SOS, EOS, PAD, MASK, VOCABULARY = 20, 20, 21, 22, 23, 24, 27


@dataclasses.dataclass(frozen=True, eq=False)
class Tiny:
    """`forward` sees all tokens at once under a mask; `step` is the decoders' interface over a K/V
    cache. Same weights.
    """

    params: dict
    dim: int = 16
    heads: int = 2
    layers: int = 2
    vocabulary: int = VOCABULARY

    @classmethod
    def create(cls, seed=0, dim=16, layers=2, sharpness=3.0):
        rng = np.random.default_rng(seed)

        def matrix(rows, columns, gain=1.0):
            return jnp.asarray(rng.normal(size=(rows, columns)) * gain / np.sqrt(rows), jnp.float32)

        params = {
            "embed": matrix(VOCABULARY, dim, np.sqrt(VOCABULARY)),
            "out": matrix(dim, VOCABULARY, sharpness),
        }
        for layer in range(layers):
            params[f"layer{layer}"] = {
                "qkv": matrix(dim, 3 * dim, 1.5),
                "o": matrix(dim, dim),
                "up": matrix(dim, 2 * dim),
                "down": matrix(2 * dim, dim),
            }
        return cls(params, dim=dim, layers=layers)

    def cache(self, batch, slots):
        # Poison instead of zeros: a decoder that reads a slot before writing it is found out.
        head = self.dim // self.heads
        return [jnp.full((2, batch, slots, self.heads, head), 7.0) for _ in range(self.layers)]

    def step(self, cache, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits):
        x_BTD, kept = self._trunk(
            ids_BT, cond_BTD, positions_BT, mask_BTS, self._cached(cache, write_at_B)
        )
        cache = [*kept, *cache[self.layers :]]
        return x_BTD[:, x_BTD.shape[1] - num_logits :] @ self.params["out"], cache

    @staticmethod
    def _cached(cache, write_at_B):
        def attend(layer, k, v):
            write = jax.vmap(
                lambda old, new, at: jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=0)
            )
            kept = jnp.stack(
                [write(cache[layer][0], k, write_at_B), write(cache[layer][1], v, write_at_B)]
            )
            return kept[0], kept[1], kept

        return attend

    def forward(self, ids_BT, cond_BTD, positions_BT, mask_BTT):
        x_BTD, kept = self._trunk(
            ids_BT, cond_BTD, positions_BT, mask_BTT, lambda layer, k, v: (k, v, jnp.stack([k, v]))
        )
        return x_BTD @ self.params["out"], kept

    def _trunk(self, ids_BT, cond_BTD, positions_BT, mask, keys_values):
        x, kept = self.params["embed"][ids_BT] + cond_BTD, []
        for layer in range(self.layers):
            x, keep = self._layer(layer, x, positions_BT, mask, keys_values)
            kept.append(keep)
        return _norm(x), kept

    def _layer(self, layer, x, positions_BT, mask, keys_values):
        batch, length, _ = x.shape
        weights = self.params[f"layer{layer}"]
        q, k, v = jnp.split(_norm(x) @ weights["qkv"], 3, axis=-1)
        q, k, v = (y.reshape(batch, length, self.heads, -1) for y in (q, k, v))
        k, v, keep = keys_values(layer, _rotate(k, positions_BT), v)
        scores = jnp.einsum("bthd,bshd->bhts", _rotate(q, positions_BT), k) / jnp.sqrt(q.shape[-1])
        scores = jnp.where(mask[:, None], scores, -1e30)
        weight = jnp.where(mask[:, None], jax.nn.softmax(scores, axis=-1), 0.0)
        x = x + jnp.einsum("bhts,bshd->bthd", weight, v).reshape(batch, length, -1) @ weights["o"]
        return x + jax.nn.gelu(_norm(x) @ weights["up"]) @ weights["down"], keep


@dataclasses.dataclass(frozen=True, eq=False)
class TinyHeads(Tiny):
    """The same with modules of multi-token prediction behind it, each a layer: a `MultiTokenFn`.
    `step` is its head 0 alone.
    """

    modules: int = 3

    @classmethod
    def create(cls, seed=0, modules=3, layers=2, **sizes):
        model = super().create(seed, layers=layers + modules, **sizes)
        return dataclasses.replace(model, layers=layers, modules=modules)

    def cache(self, batch, slots):
        return Tiny(self.params, dim=self.dim, layers=self.layers + self.modules).cache(
            batch, slots
        )

    def __call__(self, cache, ids_BT, cond_BCD, positions_BT, mask_BTS, write_at_B, heads):
        attend = self._cached(cache, write_at_B)
        states, kept = self._heads(ids_BT, cond_BCD, positions_BT, mask_BTS, attend, heads)
        return states, [*kept, *cache[self.layers + heads - 1 :]]

    def logits(self, states):
        return states @ self.params["out"]

    def forward_heads(self, ids_BL, cond_BLD, heads):
        """Logits [B, L, V] of every head: all tokens at once, no cache."""
        length = ids_BL.shape[1]
        cond_BCD = jnp.pad(cond_BLD, ((0, 0), (0, heads), (0, 0)))
        states, _ = self._heads(
            ids_BL,
            cond_BCD,
            jnp.arange(length)[None],
            jnp.tril(jnp.ones((1, length, length), bool)),
            lambda layer, k, v: (k, v, None),
            heads,
        )
        return [self.logits(x) for x in states]

    def _heads(self, ids_BT, cond_BCD, positions_BT, mask, attend, heads):
        length, kept, states = ids_BT.shape[1], [], []
        x = self.params["embed"][ids_BT]
        for layer in range(self.layers + heads - 1):
            k = max(layer - self.layers + 1, 0)
            if layer == 0 or k:
                x = x + cond_BCD[:, k : k + length]
            x, keep = self._layer(layer, x, positions_BT, mask, attend)
            kept.append(keep)
            if layer >= self.layers - 1:
                states.append(_norm(x))
        return states, kept


def _norm(x):
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def _rotate(x_BTHD, positions_BT):
    half = x_BTHD.shape[-1] // 2
    rate = 100.0 ** (-jnp.arange(half) / half)
    angle = positions_BT[:, :, None, None] * rate[None, None, None, :]
    a, b = x_BTHD[..., :half], x_BTHD[..., half:]
    return jnp.concatenate(
        [a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], axis=-1
    )


@pytest.fixture(scope="session")
def tiny():
    return Tiny.create()


@pytest.fixture(scope="session")
def tiny_heads():
    return TinyHeads.create()


@pytest.fixture(scope="session")
def options():
    return DecodingConfig(block=4, codes=CODES, bos=BOS, eos=EOS, pad=PAD, mask=MASK)


@pytest.fixture(scope="session")
def begin(tiny):
    """begin(request, options, max_len) -> State, with a poisoned cache of the tiny model."""

    def make(request, options, max_len):
        batch = request.steps_B.shape[0]
        return initial_state(
            tiny.cache(batch, cache_slots(max_len, options.block)),
            request,
            options,
            max_len,
            tiny.dim,
        )

    return make


@pytest.fixture(scope="session")
def run_tiny(tiny, begin):
    """run_tiny(request, cond_BLD, options, decoder=decode.decode) -> Result as numpy; compiled once
    for each shape and options.
    """

    @functools.cache
    def compiled(decoder, options):
        return jax.jit(lambda state, cond_BLD: decoder(tiny.step, state, cond_BLD, options))

    def run(request, cond_BLD, options, decoder=block_diffusion.decode):
        result = compiled(decoder, options)(begin(request, options, cond_BLD.shape[1]), cond_BLD)
        return jax.tree.map(np.asarray, result)

    return run


class Scripted:
    """A step whose logits at position l of row b are `logits_BLV[b, l]`, whatever it is shown."""

    def __init__(self, logits_BLV):
        self.logits_BLV = jnp.asarray(logits_BLV, jnp.float32)

    @classmethod
    def ids(cls, ids_BL):
        return cls(9.0 * jax.nn.one_hot(jnp.asarray(ids_BL), VOCABULARY))

    def __call__(self, cache, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits):
        at_BN = positions_BT[:, positions_BT.shape[1] - num_logits :]
        return jnp.take_along_axis(self.logits_BLV, at_BN[:, :, None], axis=1), cache

    def run(self, decoder, request, options, max_len=None, **kwargs):
        batch, length, _ = self.logits_BLV.shape
        state = initial_state((), request, options, max_len or length, 1)
        decode_all = jax.jit(
            lambda state, cond_BLD: decoder(self, state, cond_BLD, options, **kwargs)
        )
        return jax.tree.map(np.asarray, decode_all(state, jnp.zeros((batch, length, 1))))


class ScriptedHeads(Scripted):
    """The same of several heads: head k at position l has the logits of l + k, but for the places
    `wrong_HL[k]`, whose logits come out back to front.
    """

    def __init__(self, logits_BLV, wrong_HL):
        super().__init__(logits_BLV)
        self.wrong_HL = wrong_HL

    def __call__(self, cache, ids_BT, cond_BCD, positions_BT, mask_BTS, write_at_B, heads):
        length = self.logits_BLV.shape[1]
        states = []
        for k in range(heads):
            at_BT = (positions_BT + k) % length
            said = jnp.take_along_axis(self.logits_BLV, at_BT[:, :, None], axis=1)
            states.append(jnp.where(self.wrong_HL[k][at_BT][:, :, None], -said, said))
        return states, cache

    def logits(self, states):
        return states


@pytest.fixture(scope="session")
def scripted():
    return Scripted


@pytest.fixture(scope="session")
def scripted_heads():
    return ScriptedHeads
