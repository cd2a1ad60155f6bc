"""The batches of a Talker: how they are laid out, and what fills them.

Packed: utterances stand side by side in a row, each with its own segment number and positions.
Joined: one utterance after another, cut at the end of the row; a row is one utterance to the
attention. `data.layout` of an experiment names one of them, and only this module asks which.

B batch, L speech positions, M symbols, N text tokens of the Thinker.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.training import distributed
from mdmspeech.training.stages.shared import chat_of, mark_of, mixture, tokenizer_of
from mdmspeech.training.stages.stage import Loaders
from mdmspeech.training.stages.start import RANDOM

LAYOUTS = ("packed", "joined")


def batch_spec(sizes: Mapping[str, Any], anchors: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and types of a batch.

    Args:
      sizes: "batch", "length", "layout" of `config.data`; "symbols" with paced anchors, "text" with
        the others; "states" with fixed ones whose Thinker has been run before: its width.
      anchors: "paced", "fixed" or "prefix", see `models.talker.TalkerConfig`.
    """
    joined = sizes.get("layout") == "joined"
    of = lambda width, dtype: jax.ShapeDtypeStruct((sizes["batch"], width), dtype)
    spec = {"tokens": of(sizes["length"], jnp.int32)}
    if joined:
        spec |= {
            "valid": of(sizes["length"], jnp.bool_),
            "symbols_valid": of(sizes["symbols"], jnp.bool_),
        }
    else:
        spec |= {name: of(sizes["length"], jnp.int32) for name in ("segment", "position")}
    if anchors == "paced":
        spec |= {
            "symbols": of(sizes["symbols"], jnp.int32),
            "durations": of(sizes["symbols"], jnp.float32),
        }
        return spec | ({} if joined else {"symbols_segment": of(sizes["symbols"], jnp.int32)})
    spec |= {
        name: of(sizes["text"], jnp.int32) for name in ("text", "text_segment", "text_position")
    }
    if width := sizes.get("states", 0):
        shape = (sizes["batch"], sizes["text"], width)
        spec["states"] = jax.ShapeDtypeStruct(shape, jnp.float16)
    return spec | ({"anchor": of(sizes["length"], jnp.int32)} if anchors == "fixed" else {})


def states_width(config: ConfigDict) -> int:
    """Width of the Thinker's states if they are read from the data (`data.states`), else 0."""
    return int(config.thinker.dim) if config.data.get("states", False) else 0


def is_packed(batch) -> bool:
    """Whether utterances stand side by side in a row, each with a segment number, as `batch_spec`
    has them; or are joined to one, with a mask.
    """
    return "segment" in batch


def valid(batch, of: str = ""):
    """bool [B, L] or, `of` "symbols_", [B, M]: where there is no padding."""
    return batch[f"{of}segment"] > 0 if is_packed(batch) else batch[f"{of}valid"]


class Rows(NamedTuple):
    """Speech tokens of a batch. `segment`: the utterance of each position, 0 = padding; a row of
    joined utterances is one segment. `text_segment` and `text_position`, [B, N], of a text that
    stands before it (prefix anchors)."""

    tokens: jax.Array
    valid: jax.Array
    position: jax.Array
    segment: jax.Array
    text_segment: Any = None  # of a text before the speech
    text_position: Any = None

    @classmethod
    def of(cls, batch):
        tokens = batch["tokens"]
        if is_packed(batch):
            text = (batch.get("text_segment"), batch.get("text_position"))
            return cls(tokens, valid(batch), batch["position"], batch["segment"], *text)
        position = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        return cls(tokens, valid(batch), position, valid(batch).astype(jnp.int32))

    def with_text(self, segment_BT):
        """Segments of the text, then of the speech."""
        return jnp.concatenate([self.text_segment, segment_BT], axis=1)

    def after_text(self, segment_BT, position_BT):
        """Positions likewise: those of an utterance go on where its text ends."""
        lengths_BT = jnp.sum(self.text_segment[:, None, :] == segment_BT[:, :, None], axis=-1)
        return jnp.concatenate([self.text_position, position_BT + lengths_BT], axis=1)


def pipeline(model, root, loaders: Loaders, config: ConfigDict, split: str, seed: int):
    """A Grain pipeline of batches, see `batch_spec`, from the corpus `root`; see
    `Stage.from_config`.

    Raises:
      UserError: `data.layout` is none of the two, or `data.symbols` holds no utterance.
    """
    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.datasets.thinker_states import WithStates, with_states
    from mdmspeech.data.pipelines import random_source, some_tokens, talker_packed
    from mdmspeech.data.pipelines.talker_joined import talker_batches

    data = config.data
    paced = model.anchors == "paced"
    shared = dict(
        batch=data.batch,
        length=data.length,
        block=model.block,
        eos=talker.EOS,
        pad=talker.PAD,
        seed=seed,
        shard=distributed.share(),
    )
    if data.layout == "joined":
        random = tuple(data.parts) == (RANDOM,)
        joined: Any = (
            random_source.RandomSpeech(seed=seed, symbols=model.symbols)
            if random
            else corpus.tokens(root, tuple(data.parts), split)
        )
        if split == "train" and data.get("unique", 0):
            joined = some_tokens.some(joined, data.unique, seed)
        if (least := int(talker_packed.counts_of(joined, "symbols").min())) > data.symbols:
            raise UserError(
                f"data.symbols={data.symbols} is too small: no utterance has fewer "
                f"than {least} symbols"
            )
        return talker_batches(
            joined, symbols=data.symbols, token_seconds=data.token_seconds, **shared
        )
    if data.layout != "packed":
        raise UserError(
            f"data.layout is {data.layout!r}: use 'packed' (utterances side by "
            "side) or 'joined' (one after another, cut)"
        )
    if data.get("unique", 0):
        raise UserError("data.unique goes with data.layout 'joined'; set it to 0 for packed rows")

    width = states_width(config)
    chat: Any = chat_of(config, loaders) if model.anchors == "fixed" else None

    def source(part: str):
        if part == RANDOM:
            speech = random_source.RandomSpeech(
                seed=seed, symbols=model.symbols, token_seconds=data.token_seconds
            )
            if not width:
                return speech
            count = lambda text: len(chat.answer(text))
            return WithStates(speech, random_source.RandomThinkerStates(speech, width, count, seed))
        tokens = corpus.tokens(root, (part,), split, needs_text=not paced)
        if not width:
            return tokens
        return with_states(root, part, split, tokens, chat, mark_of(config, loaders), width)

    texts: dict[str, Callable[[], Any]] = {
        "paced": lambda: talker_packed.PacedText(data.symbols, data.token_seconds),
        "prefix": lambda: talker_packed.PrefixText(data.text, tokenizer_of(config, loaders)),
        "fixed": lambda: (
            partial(talker_packed.FixedStates, width=width) if width else talker_packed.FixedText
        )(data.text, chat, model.block, model.anchors_per_block),
    }
    text = texts[model.anchors]()
    sources = {p: source(p) for p in data.parts}
    plain = [s.records if isinstance(s, WithStates) else s for s in sources.values()]
    corpus.one_codec([s for s in plain if isinstance(s, corpus.Subset)])
    return talker_packed.packed_talker_batches(
        sources,
        text,
        **mixture(data),
        threads=data.threads,
        **shared,
    )
