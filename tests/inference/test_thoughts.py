"""A Thinker that thinks: what it writes between <think> and </think> is neither text, nor states
for a voice, nor part of the answer's tokens.

The Thinker is a real one whose layers add nothing and whose output layer is a table of successors:
each token is followed by the one that the script says.
"""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.errors import UserError
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.text.prompts import Prompt
from mdmspeech.text.tokenizer import ChatTokenizer

WORDS = ["Yes", "Ġit", "Ġis", ".", "hm", "Ġwell", "<th", "ink", ">", "</th", "Ġ<", "ĠZ"]
TAGS = ["<think>", "</think>", "\n\n"]
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% "
    "endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
HYBRID = TURNS + (
    "{% if enable_thinking is defined and enable_thinking is false %}{{ "
    "'<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
OPENED = TURNS + "{{ '<think>\n' }}{% endif %}"  # a model that only thinks


def _tokenizer(template, special):
    names = [
        "<|im_start|>",
        "<|im_end|>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *[w for w in WORDS if len(w) > 1],
    ]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names[:2]])
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
    add([AddedToken(tag, special=special, normalized=False) for tag in TAGS[:2]])
    return ChatTokenizer(tokenizer, template, [1])


@functools.cache
def _mind(template, special=False, max_new=8, max_thought=6):
    tokenizer = _tokenizer(template, special)
    size = tokenizer.vocab_size
    config = ThinkerConfig(
        vocab_size=size,
        dim=size,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=2,
        ffn_dim=2,
        tie_embeddings=False,
    )
    params = jax.eval_shape(Thinker(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))[
        "params"
    ]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    params["embedding"]["embedding"], params["norm"]["scale"] = (
        np.eye(size, dtype=np.float32),
        np.ones(size, np.float32),
    )
    return ThinkerRunner(
        config, params, tokenizer, Prompt("Be brief."), max_new=max_new, max_thought=max_thought
    )


def _scripted(thinker, *chains):
    """The same Thinker with each token of a chain followed by the next; the last by the end of the
    turn.
    """
    table = np.zeros((thinker.width, thinker.width), np.float32)
    ids = {
        name: thinker.tokenizer.tokenizer.token_to_id(name)
        for name in [*WORDS, *TAGS, "Ċ", "<|im_end|>"]
    }
    for chain in chains:
        for one, after in zip(chain, [*chain[1:], "<|im_end|>"], strict=True):
            table[ids[one]] = 0
            table[ids[one], ids[after]] = 1
    one = copy.copy(thinker)
    one._params = {**thinker._params, "output": {"weight": jnp.asarray(table.T)}}
    return one


def _answer(thinker, states=False):
    pieces = list(thinker.answer(thinker.read([thinker.question("Hm?")]), states=states))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return "".join(piece.text for piece in pieces), pieces


OBEDIENT = ["\n\n", "Yes", "Ġit", "Ġis", "."]
THINKS = ["\n\n", "<think>", "hm", "Ġwell", "</think>", "Yes", "Ġit", "Ġis", "."]
SPELT = ["\n\n", "<th", "ink", ">", "hm", "</th"]  # never closed
SIGN = ["\n\n", "Yes", "Ġ<", "Ġit", "."]


@pytest.mark.parametrize(
    ("script", "text", "count", "thought", "stopped"),
    [
        (OBEDIENT, "Yes it is.", 4, 0, True),
        (THINKS, "Yes it is.", 4, 4, True),
        (SPELT, "", 0, 5, True),
        (SIGN, "Yes < it.", 4, 0, True),
        (["\n\n", "Yes", "<think>", "hm"], "Yes", 1, 2, True),
        (["\n\n", "Yes", "Ġ<"], "Yes <", 2, 0, True),  # an end that might have become a tag
    ],
)
def test_only_the_answer_comes_out(script, text, count, thought, stopped):
    thinker = _scripted(_mind(HYBRID), script)
    said, pieces = _answer(thinker)
    assert (said, pieces[-1].count, pieces[-1].thought, pieces[-1].stopped) == (
        text,
        count,
        thought,
        stopped,
    )
    assert thinker.answer_many([thinker.question("Hm?")] * 2) == [text.strip()] * 2


def test_voices_get_the_states_of_the_answer_alone():
    """[Emb(y); h] of the answer's tokens and of the end, each once, whatever was thought; h is of
    the position that has consumed y.
    """
    thinker = _mind(HYBRID)
    ids = [
        thinker.tokenizer.tokenizer.token_to_id(name)
        for name in ("Yes", "Ġit", "Ġis", ".", "<|im_end|>")
    ]
    for script in (
        OBEDIENT,
        THINKS,
        ["\n\n", "<think>", "hm", "</think>", "Yes", "Ġit", "Ġis", "."],
    ):
        rows = np.concatenate(
            [
                p.states
                for p in _answer(_scripted(thinker, script), states=True)[1]
                if p.states is not None
            ]
        )
        width = thinker.width
        assert (
            rows[:, :width].argmax(axis=1).tolist() == ids
            and rows[:, width:].argmax(axis=1).tolist() == ids
        )


def test_a_thought_costs_the_answer_nothing():
    """Eight tokens of answer may follow a thought of five, and a thought without an end is ended
    for it.
    """
    thinker = _scripted(
        _mind(OPENED),
        ["Ċ", "hm", "Ġwell", "</think>", "Yes", "Ġit", "Ġis", ".", "Ġ<", "ĠZ", "ink", ">", "</th"],
    )
    said, pieces = _answer(thinker)
    assert said == "Yes it is. < Zink>" and pieces[-1].count == 8 and not pieces[-1].stopped
    endless = _scripted(_mind(OPENED), ["\n\n", "Yes", "Ġit", "."], ["Ċ", "hm", "Ġwell"])
    endless = _scripted_cycle(endless, "Ġwell", "hm")
    said, pieces = _answer(endless)
    assert (said, pieces[-1].count, pieces[-1].stopped) == ("Yes it.", 3, True)
    assert pieces[-1].thought == 6 + 3  # and what ends it: "\n", the tag, "\n\n"
    assert endless.answer_many([endless.question("Hm?")]) == ["Yes it."]


def _scripted_cycle(thinker, one, after):
    ids = [thinker.tokenizer.tokenizer.token_to_id(name) for name in (one, after)]
    table = thinker._params["output"]["weight"].at[:, ids[0]].set(0).at[ids[1], ids[0]].set(1)
    other = copy.copy(thinker)
    other._params = {**thinker._params, "output": {"weight": table}}
    return other


def test_tags_that_are_special_tokens():
    """They are no text for the tokenizer, and still the tags of a thought."""
    tokenizer = _tokenizer(HYBRID, special=True)
    thinker = copy.copy(_mind(HYBRID))
    assert tokenizer.decode([tokenizer.tokenizer.token_to_id("<think>")]) == ""
    thinker.tokenizer = tokenizer
    assert _answer(_scripted(thinker, THINKS))[0] == "Yes it is."


def test_a_text_to_say_stands_after_a_closed_thought():
    """Of a model whose template opens one: in training (`Conversations`), and for the states of a
    text that is given.
    """
    thinker = _mind(OPENED)
    raw = lambda ids: thinker.tokenizer.tokenizer.decode(list(ids), skip_special_tokens=False)
    trained = Conversations(thinker.tokenizer, Prompt("Be brief.")).after
    assert raw(trained).endswith("<think>\n\n</think>\n\n")
    assert [*thinker._after, *thinker._closing] == trained.tolist()
    assert len(_mind(HYBRID)._closing) == 0 and raw(_mind(HYBRID)._after).endswith(
        "<think>\n\n</think>\n\n"
    )


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = _tokenizer(HYBRID, special=False)
    tokenizer.stop_ids = ()
    with pytest.raises(UserError, match="names no end of an answer: set eos_token_id"):
        ThinkerRunner(ThinkerConfig(), {}, tokenizer, Prompt("Be brief."))
