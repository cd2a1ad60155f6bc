"""GGUF: files written here byte by byte or by llama.cpp's own library, every quantisation, names,
rope scaling, and the rotary row order.
"""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import gguf
import jax
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from mdmspeech.errors import UserError
from mdmspeech.interop.gguf import GGUF
from mdmspeech.interop.gguf_thinker import (
    gguf_thinker_config,
    gguf_thinker_tensors,
    tokenizer_files,
    unpermute,
)
from mdmspeech.interop.huggingface import thinker_config, thinker_params
from mdmspeech.interop.sources import open_thinker
from mdmspeech.interop.tensors import pieces, read_tensors
from mdmspeech.text.tokenizer import ChatTokenizer

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


def _string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _write(path, tensors, fields=()):
    """tensors: name -> (shape rows first, type id, bytes). fields: (key, type id, packed value)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(_string(key) + struct.pack("<I", kind) + value for key, kind, value in fields)
    body = b""
    for name, (shape, kind, data) in tensors.items():
        head += (
            _string(name)
            + struct.pack("<I", len(shape))
            + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        )
        head += struct.pack("<IQ", kind, len(body))
        body += data + bytes(-len(data) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + body)
    return path


def _half(value):
    return np.float16(value).tobytes()


def test_metadata(tmp_path):
    fields = [
        ("name", 8, _string("naïve")),
        ("count", 4, struct.pack("<I", 7)),
        ("eps", 6, struct.pack("<f", 0.5)),
        ("flag", 7, b"\x01"),
        ("ids", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)),
        ("words", 9, struct.pack("<IQ", 8, 2) + _string("a") + _string("b c")),
    ]
    found = GGUF(_write(tmp_path / "m.gguf", {}, fields)).metadata
    assert found == {
        "name": "naïve",
        "count": 7,
        "eps": 0.5,
        "flag": True,
        "ids": [1, -2, 3],
        "words": ["a", "b c"],
    }


def test_quantisations(tmp_path):
    rng = np.random.default_rng(0)
    nibbles = rng.integers(0, 16, (4, 32))
    packed = (nibbles[:, :16] | nibbles[:, 16:] << 4).astype(np.uint8)
    octets = rng.integers(-128, 128, (4, 32)).astype(np.int8)
    scale, low = [0.5, -0.25, 2.0, 1.0], [1.0, -3.0, 0.0, 0.5]
    floats = rng.normal(size=(2, 3)).astype(np.float32)
    tensors = {
        "f32": ((2, 3), 0, floats.tobytes()),
        "f16": ((2, 3), 1, floats.astype(np.float16).tobytes()),
        "bf16": ((2, 3), 30, (floats.view(np.uint32) >> 16).astype(np.uint16).tobytes()),
        "q4_0": (
            (2, 64),
            2,
            b"".join(_half(s) + p.tobytes() for s, p in zip(scale, packed, strict=True)),
        ),
        "q4_1": (
            (2, 64),
            3,
            b"".join(
                _half(s) + _half(m) + p.tobytes()
                for s, m, p in zip(scale, low, packed, strict=True)
            ),
        ),
        "q8_0": (
            (2, 64),
            8,
            b"".join(_half(s) + o.tobytes() for s, o in zip(scale, octets, strict=True)),
        ),
    }
    file = GGUF(_write(tmp_path / "q.gguf", tensors))
    read = {name: np.asarray(tensor) for name, tensor in file.tensors.items()}
    column = np.array(scale)[:, None]
    np.testing.assert_array_equal(read["f32"], floats)
    np.testing.assert_array_equal(read["f16"], floats.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(read["bf16"], floats, rtol=2**-7)
    np.testing.assert_array_equal(read["q4_0"], ((nibbles - 8) * column).reshape(2, 64))
    np.testing.assert_array_equal(
        read["q4_1"], (nibbles * column + np.array(low)[:, None]).reshape(2, 64)
    )
    np.testing.assert_array_equal(read["q8_0"], (octets * column).reshape(2, 64))
    for name, tensor in file.tensors.items():
        np.testing.assert_array_equal(tensor[1:2], read[name][1:2])


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q5_0", "IQ4_XS"])
def test_other_quantisations_are_the_librarys(tmp_path, name):
    kind = gguf.GGMLQuantizationType[name]
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    stored = np.random.default_rng(0).integers(0, 256, (6, 2 * block_bytes), dtype=np.uint8)
    file = GGUF(
        _write(tmp_path / "k.gguf", {"w": ((6, 2 * per_block), kind.value, stored.tobytes())})
    )
    wanted = gguf.quants.dequantize(stored, kind)
    np.testing.assert_array_equal(np.asarray(file.tensors["w"]), wanted)
    for first, rows in pieces(file.tensors["w"], 1, 6, size=1):
        np.testing.assert_array_equal(rows, wanted[first : first + len(rows)])


_META = {
    "hidden_size": "add_embedding_length", "num_hidden_layers": "add_block_count",
    "num_attention_heads": "add_head_count",
    "num_key_value_heads": "add_head_count_kv", "head_dim": "add_key_length",
    "intermediate_size": "add_feed_forward_length",
    "rope_theta": "add_rope_freq_base", "rms_norm_eps": "add_layer_norm_rms_eps",
}  # fmt: skip
_FOREIGN = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip


def _converted(path, kind, hf, tensors, quantisation=None):
    """What llama.cpp's converter makes of a Hugging Face model, written with its library."""
    writer = gguf.GGUFWriter(path, kind)
    for name, add in _META.items():
        if hf.get(name) is not None:
            getattr(writer, add)(hf[name])
    for name, value in tensors.items():
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            value = (
                value.reshape(-1, 2, hf["head_dim"] // 2, value.shape[1])
                .swapaxes(1, 2)
                .reshape(value.shape)
            )
        for theirs, ours in _FOREIGN.items():
            name = name.replace(theirs, ours)
        if quantisation and value.ndim > 1 and value.shape[1] % 32 == 0:
            writer.add_tensor(
                name, gguf.quants.quantize(value, quantisation), raw_dtype=quantisation
            )
        else:
            writer.add_tensor(name, np.ascontiguousarray(value))
    if hf.get("rope_scaling"):
        writer.add_rope_scaling_orig_ctx_len(hf["rope_scaling"]["original_max_position_embeddings"])
        writer.add_tensor("rope_freqs.weight", _divisors(hf))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _divisors(hf):
    """llama.cpp's own computation."""
    scaling, dim, out = hf["rope_scaling"], hf["head_dim"], []
    low, high, original = (
        scaling["low_freq_factor"],
        scaling["high_freq_factor"],
        scaling["original_max_position_embeddings"],
    )
    for frequency in 1.0 / (hf["rope_theta"] ** (np.arange(0, dim, 2) / dim)):
        wave = 2 * np.pi / frequency
        if wave < original / high:
            out.append(1.0)
        elif wave > original / low:
            out.append(scaling["factor"])
        else:
            smooth = (original / wave - low) / (high - low)
            out.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(out, np.float32)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_thinker_comes_back_from_a_converted_file(tmp_path, kind):
    name = "hf_llama3" if kind == "llama" else f"hf_{kind}"
    hf = json.loads((GOLDEN / f"{name}.json").read_text())["config"]["hf_config"]
    hf.setdefault("head_dim", hf["hidden_size"] // hf["num_attention_heads"])
    tensors = read_tensors(GOLDEN / f"{name}.safetensors")
    opened = open_thinker(_converted(tmp_path / "m.gguf", kind, hf, tensors), scan_layers=True)
    config = thinker_config({"model_type": kind, **hf}, scan_layers=True)
    scalings = [dict(c.rope_scaling or ()) for c in (opened.config, config)]
    assert scalings[0] == scalings[1]
    jax.tree.map(
        np.testing.assert_array_equal, opened.params(), thinker_params(config, tensors, "")
    )
    rough = GGUF(_converted(tmp_path / "q.gguf", kind, hf, tensors, gguf.GGMLQuantizationType.Q8_0))
    read = gguf_thinker_tensors(rough, gguf_thinker_config(rough))
    for key, value in tensors.items():
        np.testing.assert_allclose(np.asarray(read[key]), value, atol=np.abs(value).max() / 100)


def test_an_unknown_rope_rule_is_refused(tmp_path):
    hf = json.loads((GOLDEN / "hf_llama3.json").read_text())["config"]["hf_config"]
    hf.setdefault("head_dim", hf["hidden_size"] // hf["num_attention_heads"])
    hf["rope_scaling"] = {**hf["rope_scaling"], "high_freq_factor": 3.0}
    file = GGUF(
        _converted(tmp_path / "m.gguf", "llama", hf, read_tensors(GOLDEN / "hf_llama3.safetensors"))
    )
    with pytest.raises(UserError, match="another rule than Llama 3"):
        gguf_thinker_config(file)


def test_bad_files_are_named(tmp_path):
    data = np.ones((2, 64), np.float32).tobytes()
    path = _write(
        tmp_path / "m.gguf",
        {"b": ((1, 64), 0, data[:256]), "a": ((2, 64), 0, data)},
        [("x", 8, _string("y"))],
    )
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(UserError, match="truncated inside a"):
        GGUF(path)
    for cut in (0, 3, 30, 50):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="truncated or no GGUF"):
            GGUF(path)
    path.write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(UserError, match="truncated or no GGUF"):
        GGUF(path)
    with pytest.raises(UserError, match="does not exist"):
        GGUF(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("tensors", "fields", "message"),
    [
        ({"k": ((1, 256), 26, bytes(1024))}, [], "k has quantisation 26"),
        ({"k": ((1, 256), 999, bytes(1024))}, [], "k has quantisation 999, which is not read here"),
        (
            {"k": ((1, 256), 15, bytes(1024))},
            [],
            (
                r"15 .Q8_K., which is not read here; .*llama-quantize "
                r"--allow-requantize FILE.gguf NEW.gguf Q8_0"
            ),
        ),
        (
            {"k": ((1, 32), 24, bytes(32))},
            [],
            (
                r"24 .I8., which is not read here; take another file of the same "
                r"model .F32, F16, BF16, Q8_0, Q6_K"
            ),
        ),
        # Q4_2, long gone
        ({"k": ((1, 32), 4, bytes(64))}, [], "quantisation 4, which is not read here"),
        # Q4_0_4_4, gone too
        ({"k": ((1, 32), 31, bytes(64))}, [], "quantisation 31, which is not read here"),
        ({"k": ((2, 20), 8, bytes(340))}, [], "not whole blocks of 32"),
        ({"k": ((2**40, 2**40), 0, bytes(64))}, [], "truncated inside k"),
        ({"k": ((2**62, 2**62, 32), 12, bytes(64))}, [], "whole blocks|truncated inside k"),
        ({"k": ((1,) * 99, 0, bytes(4))}, [], "99 axes"),
        ({}, [("general.alignment", 4, struct.pack("<I", 0))], "no GGUF"),
        ({}, [("a", 9, struct.pack("<IQ", 4, 2**62))], "no GGUF"),
        ({}, [("a", 9, struct.pack("<IQ", 9, 1) * 100_000)], "no GGUF"),
    ],
)
def test_hostile_files_are_refused_before_anything_is_allocated(tmp_path, tensors, fields, message):
    with pytest.raises(UserError, match=message):
        GGUF(_write(tmp_path / "m.gguf", tensors, fields))


def test_metadata_without_sizes_is_named(tmp_path):
    fields = [("general.architecture", 8, _string("qwen3"))]
    with pytest.raises(UserError, match="no token embedding"):
        open_thinker(_write(tmp_path / "m.gguf", {}, fields))
    with pytest.raises(UserError, match="has no hidden_size"):
        open_thinker(
            _write(tmp_path / "m.gguf", {"token_embd.weight": ((2, 64), 0, bytes(512))}, fields)
        )


def _scaled(path, kind, **entries):
    """A file whose metadata says a rope scaling."""
    fields = {
        "embedding_length": 64,
        "block_count": 1,
        "attention.head_count": 2,
        "feed_forward_length": 64,
        "context_length": 131072,
    }
    packed = [
        ("general.architecture", 8, _string(kind)),
        (f"{kind}.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-6)),
    ]
    packed += [(f"{kind}.{name}", 4, struct.pack("<I", value)) for name, value in fields.items()]
    for name, value in entries.items():
        at = f"{kind}.rope.scaling.{name}"
        text, whole = isinstance(value, str), isinstance(value, int)
        packed.append(
            (
                at,
                8 if text else 4 if whole else 6,
                _string(value) if text else struct.pack("<I" if whole else "<f", value),
            )
        )
    return GGUF(_write(path / "m.gguf", {"token_embd.weight": ((2, 64), 0, bytes(512))}, packed))


def test_rope_scalings_of_the_metadata(tmp_path):
    """As llama.cpp's converter writes them for Qwen's long contexts."""
    found = gguf_thinker_config(
        _scaled(tmp_path, "qwen3", type="yarn", factor=4.0, original_context_length=32768)
    ).rope_scaling
    assert dict(found) == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
    assert dict(
        gguf_thinker_config(_scaled(tmp_path, "qwen3", type="linear", factor=2.0)).rope_scaling
    ) == {"rope_type": "linear", "factor": 2.0}
    assert gguf_thinker_config(_scaled(tmp_path, "qwen3", type="none")).rope_scaling is None
    with pytest.raises(UserError, match="'longrope' is not known; take a model with one of"):
        gguf_thinker_config(_scaled(tmp_path, "qwen3", type="longrope", factor=4.0))


def test_unpermute_turns_pairs_into_halves():
    """Two heads of four rows: interleaved (0, 2, 1, 3) of the half-split order comes back as 0, 1,
    2, 3.
    """
    halves = np.arange(8.0)[:, None]
    interleaved = halves[[0, 2, 1, 3, 4, 6, 5, 7]]
    np.testing.assert_array_equal(unpermute(interleaved, 4), halves)


@pytest.mark.parametrize(
    ("kind", "pieces_of"),
    [
        ("llama-bpe", ["It", "'s", " ", "123", "4", " na", "ï", "ve", " --", "\n\n", "<think>"]),
        (
            "qwen2",
            ["It", "'s", " ", "1", "2", "3", "4", " na", "ï", "ve", " --", "\n\n", "<think>"],
        ),
    ],
)
def test_tokenizers_of_llama_and_qwen_go_out_and_come_in(tmp_path, kind, pieces_of):
    """A vocabulary of bytes and some merges, written into GGUF metadata: text is cut as the family
    does it, and the folder's tokenizer reads the same.
    """
    text, letters = "It's 1234 naïve --\n\n<think>", sorted(pre_tokenizers.ByteLevel.alphabet())
    spelt = lambda piece: pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    ).pre_tokenize_str(piece)[0][0]
    words = [
        spelt(w)
        for w in ("It", "'s", "12", "123", "na", "ve", "--", " --", "\n\n", " n", " na", "ï")
    ]
    merges = [
        (spelt(" "), "n"),
        (spelt(" n"), "a"),
        ("I", "t"),
        ("'", "s"),
        ("1", "2"),
        ("12", "3"),
        ("n", "a"),
        ("v", "e"),
        ("-", "-"),
        (spelt(" "), "--"),
    ]
    merges += [(spelt("\n"), spelt("\n")), tuple(spelt("ï"))]
    tokens = [*letters, *words, "<|im_end|>", "<think>"]
    meta = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": kind, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 2) + [3, 4],
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }  # fmt: skip
    file = SimpleNamespace(metadata=meta)
    for name, content in tokenizer_files(file).items():
        (tmp_path / name).write_text(content)
    chat = ChatTokenizer.from_folder(tmp_path)
    ids = ChatTokenizer.from_gguf(meta).tokenizer.encode(text).ids
    assert [chat.tokenizer.decode([i]) for i in ids] == pieces_of
    assert chat.tokenizer.encode(text).ids == ids and chat.decode(ids) == text
    assert chat.stop_ids == ChatTokenizer.from_gguf(meta).stop_ids == (len(tokens) - 2,)
