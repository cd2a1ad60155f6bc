"""A small random voice, Thinker, encoder and adaptor: real code paths, milliseconds instead of minutes."""

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.text.pronounce import Spoken

CODEC = CompactCodecConfig(
    n_mels=16, encoder_width=16, encoder_layers=1, decoder_width=16, decoder_layers=2, decoder_reach=4, frame_width=16, head_dim=16, phones=4
)
TALKER = TalkerConfig(width=64, layers=2, heads=2, ffn=64, symbols=40, symbol_lookahead=(2, 1))


def spell(text: str) -> Spoken:
    """A toy pronouncer: a letter is a symbol, a space belongs to the word before it, sentences end at full stops."""
    symbols, words, owner = [0], [], [-1]
    for sentence in [part.strip() for part in text.lower().split(".") if part.strip()]:
        parts = sentence.split()
        for n, word in enumerate(parts):
            ids = [1 + (ord(c) - 97) % 30 for c in word] + ([39] if n + 1 < len(parts) else [])
            symbols += ids
            owner += [len(words)] * len(ids)
            words.append(word)
        symbols.append(0)
        owner.append(-1)
    if len(symbols) == 1:
        symbols, owner = [0, 0], [-1, -1]
    return Spoken(np.array(symbols, np.int32), words, np.array(owner, np.int32))


def talker_params(config=TALKER, seed=0):
    """Random parameters: sharper outputs than a fresh network's, and durations of one to three tokens a symbol."""
    params = talker.init(config, jax.random.key(seed))
    params["outputs"]["table"] = params["outputs"]["table"] * 30
    params["anchors"]["duration_out"]["bias"] = jnp.full(1, 0.5)
    params["anchors"]["duration_out"]["kernel"] = params["anchors"]["duration_out"]["kernel"] * 0.3
    return params
