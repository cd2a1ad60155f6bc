"""A small random voice, Thinker, encoder and adaptor: real code paths, milliseconds instead of
minutes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.speech_frontend import ctc_frontend
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.models import talker
from mdmspeech.models.ctc_adaptor import CTCAdaptor, CTCConfig
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.speech_format import EOS
from mdmspeech.text.prompts import Prompt
from mdmspeech.text.pronounce import Spoken
from mdmspeech.text.tokenizer import ChatTokenizer

CODEC = CompactCodecConfig(
    num_mels=16,
    encoder_dim=16,
    encoder_num_layers=1,
    decoder_dim=16,
    decoder_num_layers=2,
    decoder_reach=4,
    frame_dim=16,
    head_dim=16,
    phones=4,
)
TALKER = TalkerConfig(
    dim=64, num_layers=2, num_heads=2, ffn_dim=64, symbols=40, symbol_lookahead=(2, 1)
)


def spell(text: str) -> Spoken:
    """A toy pronouncer: a letter is a symbol, a space belongs to the word before it, sentences end
    at full stops.
    """
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
    """Random parameters: sharper outputs than a fresh network's, and durations of one to three
    tokens a symbol.
    """
    params = jax.jit(talker.init, static_argnums=0)(config, jax.random.key(seed))
    params["outputs"]["table"] = params["outputs"]["table"] * 30
    params["anchors"]["duration_out"]["bias"] = jnp.full(1, 0.5)
    params["anchors"]["duration_out"]["kernel"] = params["anchors"]["duration_out"]["kernel"] * 0.3
    return params


WORDS = [
    "yes", "no", "it", "is", "a", "red", "apple", "and", "very", "good", "answer", ".", "what", "?",
    "system", "user", "assistant", "be", "kind",
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% "
    "endfor %}{% if add_generation_prompt %}<s> assistant {% endif %}"
)
THINKER = ThinkerConfig(
    vocab_size=24, dim=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, ffn_dim=32
)
FIXED = TalkerConfig(
    dim=64, num_layers=2, num_heads=2, ffn_dim=64, anchors="fixed", text_dim=2 * THINKER.dim
)
PREFIX = TalkerConfig(
    dim=64,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=64,
    anchors="prefix",
    text_vocab_size=60,
    structured_codes=False,
    label_shift=True,
    output_bias=True,
)
ENCODER = SpeechEncoderConfig(
    num_mels=80, dim=32, num_layers=1, num_heads=2, ffn_dim=32, max_positions=200
)


def ending_params(config, likely=3):
    """Random parameters of a Talker that does not know its length, with an end token that is `likely`
    enough to be met.
    """
    params = jax.jit(talker.init, static_argnums=0)(config, jax.random.key(0))
    table = params["outputs"]["table"] * 30
    params["outputs"]["table"] = table.at[EOS].set(
        likely * table[100:140].mean(axis=0) + table[EOS]
    )
    if config.anchors == "prefix":
        params["anchors"]["embedding"] = params["anchors"]["embedding"] * 30
    return params


def text_tokenizer() -> ChatTokenizer:
    """Whole words, or their letters: few ids, and none that stands for several texts."""
    letters = list("abcdefghijklmnopqrstuvwxyz'")
    known = [w for w in WORDS if w.isalpha() and len(w) > 1]
    vocabulary = {piece: i for i, piece in enumerate(["<unk>", *letters, *known, ".", "?", "!"])}
    model = models.WordPiece(vocab=vocabulary, unk_token="<unk>", continuing_subword_prefix="")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return ChatTokenizer.of_text(tokenizer.to_str(), "the small tokenizer")


def chat_tokenizer() -> ChatTokenizer:
    """Whole words, two special tokens, a chat template."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    return ChatTokenizer(tokenizer, TEMPLATE, [vocabulary["</s>"]])


@functools.cache
def thinker_params():
    """Of `thinker`, as trained."""
    params = jax.jit(Thinker(THINKER).init)(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))[
        "params"
    ]
    params["embedding"]["embedding"] = params["embedding"]["embedding"] * 40
    return params


def thinker(stop_repetition: bool = False) -> ThinkerRunner:
    """A random Thinker that writes known words, the same again and again if it may, and stops after
    a while.
    """
    return ThinkerRunner(
        THINKER,
        thinker_params(),
        chat_tokenizer(),
        Prompt("be kind"),
        max_new=12,
        stop_repetition=stop_repetition,
    )


def encoder_params():
    return jax.jit(SpeechEncoder(ENCODER).init)(jax.random.key(2), jnp.zeros((1, 8, 80)))["params"]


def spelling():
    """Config and parameters of a small spelling adaptor."""
    config = CTCConfig(encoder_dim=32, dim=64, num_layers=1, stack=2)
    params = jax.jit(CTCAdaptor(config).init)(
        jax.random.key(3), jnp.zeros((1, 8, 32)), jnp.ones((1, 8), bool)
    )["params"]
    params["characters"]["kernel"] = params["characters"]["kernel"] * 20
    return config, params


def codec_params():
    return jax.jit(CompactCodecModel(CODEC).init)(jax.random.key(0))


def small_codec() -> CompactCodec:
    return CompactCodec(CODEC, codec_params())


def assistant(codec: CompactCodec) -> Assistant:
    """Small random parts behind the real interface."""

    def voice(mode):
        return functools.cache(
            lambda: PacedSynthesizer(TALKER, talker_params(), codec, mode=mode, pronounce=spell)
        )

    return Assistant(
        "small",
        {"mdm": voice("mdm"), "ntp": voice("ntp")},
        lambda: ctc_frontend(ENCODER, encoder_params(), *spelling()),
        thinker,
    )


def question(seconds=1.0, rate=16_000, seed=0):
    """Noise that changes: something to hear."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.1 * noise * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def words_if_long(out, valid_BT, row):
    """`finish` of a front end that hears words in recordings of more than a second (a second of
    silence is behind each).
    """
    return None, "what is it ?" if valid_BT[row].sum() > 2.2 * 50 else ""
