"""An adaptor that spells: speech states -> letters, which the Thinker reads through its own token
embeddings.

The paper's adaptor (stack_adaptor.py) learns to imitate token embeddings by back-propagating
through the whole Thinker, for millions of utterances. A laptop cannot; but it can learn to spell
with CTC (Graves et al. 2006) in minutes, because Whisper's states already hold the words. The
spelling is tokenised and embedded like typed text, so the Thinker, frozen, hears about as well as
it reads. Letters and not BPE pieces: a word that was never in the training data can be spelled, but
not looked up.

B batch, T encoder states (50 a second), C characters (0 is CTC's blank).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.config_names import renamed_fields
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.transformer import LlamaBlock

BLANK = 0
CHARACTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,?!'-:"
CLASSES = len(CHARACTERS) + 1
_ID = {character: i + 1 for i, character in enumerate(CHARACTERS)}


@renamed_fields
@dataclasses.dataclass(frozen=True)
class CTCConfig:
    """Sizes; `encoder_dim` is the width of the speech encoder, `stack` how many states one position
    of the trunk holds.
    """

    encoder_dim: int = 512
    dim: int = 320
    num_layers: int = 3
    stack: int = 2
    head_dim: int = 64


class CTCAdaptor(nn.Module):
    """States float [B, T, D] and their mask bool [B, T] -> character logits [B, T', C], T' = T
    rounded up to whole stacks.
    """

    config: CTCConfig

    @nn.compact
    def __call__(self, states_BTD: jax.Array, valid_BT: jax.Array) -> jax.Array:
        c = self.config
        batch, length, width = states_BTD.shape
        groups = -(-length // c.stack)
        tail = groups * c.stack - length
        states = jnp.pad(states_BTD * valid_BT[..., None], ((0, 0), (0, tail), (0, 0)))
        valid = jnp.pad(valid_BT, ((0, 0), (0, tail))).reshape(batch, groups, c.stack).any(axis=-1)
        x = nn.Dense(c.dim, name="stack")(states.reshape(batch, groups, c.stack * width))
        heads = c.dim // c.head_dim
        ffn = -(-c.dim * 8 // 3 // 64) * 64
        rope = rope_table(jnp.arange(groups)[None, :], rope_frequencies(c.head_dim, 10_000.0))
        mask = valid[:, None, :] & valid[:, :, None]
        for i in range(c.num_layers):
            x, _ = LlamaBlock(heads, heads, c.head_dim, ffn, name=f"layer_{i}")(x, mask, rope)
        logits = nn.Dense(c.stack * CLASSES, name="characters")(RMSNorm(1e-6, name="norm")(x))
        return logits.reshape(batch, groups * c.stack, CLASSES)


def text_to_ids(text: str) -> np.ndarray:
    """Text -> character ids int32, 1-based; characters outside the table are dropped, runs of
    spaces made one.
    """
    kept = "".join(character for character in text if character in _ID)
    return np.array([_ID[character] for character in " ".join(kept.split())], np.int32)


def ctc_greedy_decode(logits_BTC, valid_BT) -> list[str]:
    """Greedy CTC: best class a state, repeats merged, blanks dropped. Numpy or JAX arrays; one
    string a row.
    """
    best_BT = np.asarray(jnp.argmax(logits_BTC, axis=-1))
    valid_BT = np.asarray(valid_BT)
    texts = []
    for best, valid in zip(best_BT, valid_BT, strict=True):
        best = best[: int(valid.sum())]
        keep = (best != BLANK) & (best != np.concatenate([[-1], best[:-1]]))
        texts.append(" ".join("".join(CHARACTERS[i - 1] for i in best[keep]).split()))
    return texts
