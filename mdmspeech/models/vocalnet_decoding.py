"""Decoding VocalNet's speech generator: next token or several a step, the whole text at once
(`predict`) or as it comes in (`push`).

A cycle feeds the last 1 + modules tokens to the decoder and hands its states on from module to
module, every stage with its own K/V cache; each stage draws one token. With no module that is
next-token decoding; the very first cycle reads one position, sos. All functions are pure, with
static shapes: one `lax.while_loop` over cycles, rows with their own lengths, and a row's tokens are
the same alone and in any batch. The loop is not that of `decoding.autoregressive`: there all rows
draw their n-th token together, one a forward; here each stands at its own place and may end inside
a cycle.

What the reference does in decoding, against its own training forward, is kept, because published
weights were measured with it: text is causal; every MTP module reads the text's states of the
decoder itself, not of the module before; where a group of tokens ends inside a cycle, the next
cycle feeds again what the caches already hold, at later positions; text that comes later takes
positions that earlier speech has used.

B batch, G text states of one push, T = 1 + modules positions of a cycle, L tokens, S cache slots
(speech first, text behind it), V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mdmspeech.decoding.sampling import GREEDY, SamplingConfig, sample, step_keys
from mdmspeech.errors import UserError
from mdmspeech.models.vocalnet import VocalNet
from mdmspeech.nn.attention import KVCache


@dataclasses.dataclass(frozen=True)
class VocalNetDecodingConfig:
    """Static options of a decoding; they shape the compiled program.

    Attributes:
      modules: MTP modules in use, 0 .. config.modules; 0 decodes next tokens. The paper's setting
        is 2, three tokens a cycle.
      max_text, max_tokens: room for text states and for tokens; a row that has used up its room for
        tokens is done.
      penalty, penalty_window: compatibility with the reference's repetition penalty, off by
        default: a logit is divided by `penalty` once for *each* time its id occurs among the last
        `penalty_window` tokens, and a negative logit (which that makes likelier) as well. In `push`
        the window does not reach behind the call; in `predict` it takes in sos.
      penalise_modules: the modules' logits too. The reference's defaults: next tokens none; MTP 2
        over 5 tokens, without the modules; streaming 2 over 6, with.
    """

    modules: int = 2
    max_text: int = 256
    max_tokens: int = 1024
    sampling: SamplingConfig = GREEDY
    penalty: float = 1.0
    penalty_window: int = 0
    penalise_modules: bool = False

    def __post_init__(self) -> None:
        if self.modules < 0 or self.max_text < 1 or self.max_tokens < 1:
            raise UserError(
                f"{self}: modules must be 0 or more, max_text and max_tokens at least 1"
            )
        if self.penalty <= 0 or self.penalty_window < 0:
            raise UserError(
                f"penalty {self.penalty}, penalty_window {self.penalty_window}: "
                "give a penalty above 0 and a window of 0 (off) or more"
            )


@struct.dataclass
class VocalNetState:
    """What has been read and said. `caches`: one tuple a stage; `written_BK`: speech positions in
    each stage's caches.
    """

    projector: tuple[KVCache, ...]
    caches: tuple[tuple[KVCache, ...], ...]
    text_B: jax.Array  # text entries of the decoder, bos included
    written_BK: jax.Array
    tokens_BL: jax.Array  # sos, then all tokens so far, then pad
    # of each token: the best logit's lead over the second, before any penalty; 0 for sos and pad
    margin_BL: jax.Array
    count_B: jax.Array  # of tokens_BL, sos included
    done_B: jax.Array


@struct.dataclass
class VocalNetTokens:
    """What a call brought: tokens_BL (eos included, then pad), how many, margin_BL (as in
    `VocalNetState`), done_B (eos or no room).
    """

    tokens_BL: jax.Array
    count_B: jax.Array
    margin_BL: jax.Array
    done_B: jax.Array


def start(
    model: VocalNet, params: Any, options: VocalNetDecodingConfig, batch: int
) -> VocalNetState:
    """A state that has read bos. UserError: more modules than the model has."""
    c = model.config
    if options.modules > c.modules:
        raise UserError(f"modules={options.modules}: this model has {c.modules} MTP modules")
    width, speech = 1 + options.modules, _speech_slots(model, options)
    dtype = jax.tree.leaves(params)[0].dtype
    caches = lambda count, slots: (
        (KVCache.zeros(batch, slots, c.num_heads, c.head_dim, dtype),) * count
    )
    state = VocalNetState(
        projector=caches(c.projector_num_layers, options.max_text),
        caches=tuple(
            caches(c.num_layers if k == 0 else 1, speech + 1 + options.max_text)
            for k in range(width)
        ),
        text_B=jnp.zeros(batch, jnp.int32),
        written_BK=jnp.zeros((batch, width), jnp.int32),
        tokens_BL=jnp.full((batch, 1 + options.max_tokens), c.pad, jnp.int32).at[:, 0].set(c.sos),
        margin_BL=jnp.zeros((batch, 1 + options.max_tokens)),
        count_B=jnp.ones(batch, jnp.int32),
        done_B=jnp.zeros(batch, bool),
    )
    bos_B1D = model.apply(
        {"params": params}, jnp.full((batch, 1), c.bos, jnp.int32), method="embed"
    )
    return _read(model, params, options, state, bos_B1D, jnp.ones(batch, jnp.int32))


def read(
    model: VocalNet,
    params: Any,
    options: VocalNetDecodingConfig,
    state: VocalNetState,
    text_BGE: jax.Array,
    new_B: jax.Array,
) -> VocalNetState:
    """Reads the first `new_B` of G text states of each row (0: none). The caller sees to it that
    they fit into `max_text`.
    """
    if text_BGE.shape[1] > options.max_text:
        raise UserError(
            f"{text_BGE.shape[1]} text states at once, but max_text={options.max_text}; raise it"
        )
    seen_B = state.text_B - 1
    positions_BG = seen_B[:, None] + jnp.arange(text_BGE.shape[1])[None, :]
    mask_BGS = jnp.arange(options.max_text)[None, None, :] <= positions_BG[:, :, None]
    x_BGD, projector = model.apply(
        {"params": params},
        text_BGE,
        positions_BG,
        mask_BGS,
        state.projector,
        seen_B,
        method="project",
    )
    return _read(
        model, params, options, dataclasses.replace(state, projector=projector), x_BGD, new_B
    )


def speak(
    model: VocalNet,
    params: Any,
    options: VocalNetDecodingConfig,
    state: VocalNetState,
    limit_B: jax.Array,
    keys_B: jax.Array,
    window_from: int | None = None,
) -> tuple[VocalNetState, VocalNetTokens]:
    """Draws up to `limit_B` tokens a row, fewer if eos comes.

    Args:
      keys_B: typed keys, one a request; a token's key is its request's folded with its place
        (unused when greedy).
      window_from: the first place the repetition penalty may look back to, sos being 0; None: where
        this call begins.
    """
    width, slots, how = 1 + options.modules, _speech_slots(model, options), options.sampling
    begin_B = state.count_B
    window_B = begin_B if window_from is None else jnp.full_like(begin_B, window_from)

    def wanting(state):
        return ~state.done_B & (state.count_B - begin_B < limit_B)

    def cycle(state):
        feed_B = jnp.minimum(state.count_B, width)
        at_BT = (state.count_B - feed_B)[:, None] + jnp.arange(width)[None, :]
        ids_BT = jnp.take_along_axis(
            state.tokens_BL, jnp.minimum(at_BT, options.max_tokens), axis=1
        )
        x_BTD = model.apply({"params": params}, ids_BT, method="embed")
        caches = list(state.caches)
        for k in range(width):
            active_B, written_B = wanting(state), state.written_BK[:, k]
            place_BT = written_B[:, None] + jnp.arange(width)[None, :]
            positions_BT, mask_BTS = (
                state.text_B[:, None] + place_BT,
                _seen(place_BT, state.text_B, slots, options),
            )
            x_BTD, caches[k] = model.apply(
                {"params": params},
                k,
                x_BTD,
                positions_BT,
                mask_BTS,
                caches[k],
                written_B,
                method="stage",
            )
            last_B1D = jnp.take_along_axis(x_BTD, (feed_B - 1)[:, None, None], axis=1)
            logits_BV = model.apply({"params": params}, k, last_B1D, method="logits")[:, 0]
            chosen_BV = logits_BV
            if options.penalty_window and (k == 0 or options.penalise_modules):
                chosen_BV = _penalised(logits_BV, state, window_B, options)
            token_B = sample(
                chosen_BV, step_keys(keys_B, state.count_B), how.temperature, how.top_k, how.top_p
            )
            state = dataclasses.replace(
                state, written_BK=state.written_BK.at[:, k].add(jnp.where(active_B, feed_B, 0))
            )
            state = _append(state, token_B, logits_BV, active_B, model.config.eos)
        full_B = state.written_BK[:, 0] + width > slots
        return dataclasses.replace(state, caches=tuple(caches), done_B=state.done_B | full_B)

    state = jax.lax.while_loop(lambda state: wanting(state).any(), cycle, state)
    return state, _since(state, begin_B, model.config.pad)


def predict(
    model: VocalNet,
    params: Any,
    options: VocalNetDecodingConfig,
    text_BNE: jax.Array,
    text_lens_B: jax.Array,
    keys_B: jax.Array,
) -> VocalNetTokens:
    """Whole texts [B, N, E] of `text_lens_B` states -> their tokens, until eos or
    `options.max_tokens` (exactly; the reference ends its last cycle first).
    """
    state = read(
        model, params, options, start(model, params, options, len(text_BNE)), text_BNE, text_lens_B
    )
    limit_B = jnp.full(len(text_BNE), options.max_tokens)
    return speak(model, params, options, state, limit_B, keys_B, window_from=0)[1]


def push(
    model: VocalNet,
    params: Any,
    options: VocalNetDecodingConfig,
    state: VocalNetState,
    text_BGE: jax.Array,
    new_B: jax.Array,
    limit_B: jax.Array,
    keys_B: jax.Array,
) -> tuple[VocalNetState, VocalNetTokens]:
    """Streaming: reads the next `new_B` text states, then says up to `limit_B` tokens:
    config.speech_group, and what is left with the last group.

    Pad every push to the same G (config.text_group), and one compiled program serves all of them.
    """
    return speak(
        model,
        params,
        options,
        read(model, params, options, state, text_BGE, new_B),
        limit_B,
        keys_B,
    )


def _read(model, params, options, state, x_BGD, new_B):
    """Projected text (or bos) into the caches of all stages; the modules read the decoder's states,
    as the reference has it.
    """
    slots = _speech_slots(model, options)
    positions_BG = state.text_B[:, None] + jnp.arange(x_BGD.shape[1])[None, :]
    slot_S = jnp.arange(slots + 1 + options.max_text)[None, None, :]
    mask_BGS = (slot_S >= slots) & (slot_S - slots <= positions_BG[:, :, None])
    at_B = slots + state.text_B
    stage = lambda k, x_BGD: model.apply(
        {"params": params}, k, x_BGD, positions_BG, mask_BGS, state.caches[k], at_B, method="stage"
    )
    states_BGD, decoder = stage(0, x_BGD)
    modules = tuple(stage(k, states_BGD)[1] for k in range(1, 1 + options.modules))
    return dataclasses.replace(state, caches=(decoder, *modules), text_B=state.text_B + new_B)


def _seen(place_BT, text_B, slots, options):
    """bool [B, T, S]: speech up to a position's own slot, and all text read so far. Text lies last,
    so that the padding of a push falls off the end.
    """
    slot_S = jnp.arange(slots + 1 + options.max_text)[None, None, :]
    return jnp.where(
        slot_S < slots, slot_S <= place_BT[:, :, None], slot_S - slots < text_B[:, None, None]
    )


def _append(state, token_B, logits_BV, active_B, eos):
    # beyond the end: dropped
    rows_B, at_B = (
        jnp.arange(len(token_B)),
        jnp.where(active_B, state.count_B, state.tokens_BL.shape[1]),
    )
    best_B2 = jax.lax.top_k(logits_BV, 2)[0]
    count_B = state.count_B + active_B
    return dataclasses.replace(
        state,
        tokens_BL=state.tokens_BL.at[rows_B, at_B].set(token_B, mode="drop"),
        margin_BL=state.margin_BL.at[rows_B, at_B].set(best_B2[:, 0] - best_B2[:, 1], mode="drop"),
        count_B=count_B,
        done_B=state.done_B | (active_B & (token_B == eos)) | (count_B == state.tokens_BL.shape[1]),
    )


def _since(state, begin_B, pad):
    """The tokens from place `begin_B` on, moved to the front."""
    at_BL = begin_B[:, None] + jnp.arange(state.tokens_BL.shape[1] - 1)[None, :]
    new_BL = at_BL < state.count_B[:, None]
    take = lambda x_BL, rest: jnp.where(
        new_BL, jnp.take_along_axis(x_BL, jnp.where(new_BL, at_BL, 0), axis=1), rest
    )
    return VocalNetTokens(
        take(state.tokens_BL, pad),
        state.count_B - begin_B,
        take(state.margin_BL, 0.0),
        state.done_B,
    )


def _penalised(logits_BV, state, window_B, options):
    at_BW = state.count_B[:, None] - 1 - jnp.arange(options.penalty_window)[None, :]
    ids_BW = jnp.take_along_axis(state.tokens_BL, jnp.maximum(at_BW, 0), axis=1)
    seen_BW = (at_BW >= window_B[:, None]).astype(jnp.float32)
    times_BV = jnp.zeros_like(logits_BV).at[jnp.arange(len(ids_BW))[:, None], ids_BW].add(seen_BW)
    return logits_BV / options.penalty**times_BV


def _speech_slots(model: VocalNet, options: VocalNetDecodingConfig) -> int:
    """Enough for `max_tokens` in groups of config.speech_group: each group may feed up to `modules`
    tokens again, and a cycle writes its whole width.
    """
    groups = -(-options.max_tokens // model.config.speech_group) + 1
    return options.max_tokens + groups * options.modules + 1 + options.modules


jit_start = jax.jit(start, static_argnames=("model", "options", "batch"))
jit_push = jax.jit(push, static_argnames=("model", "options"))
jit_predict = jax.jit(predict, static_argnames=("model", "options"))
