"""GGUF: a file written here byte by byte, every quantisation against its definition, and the rotary row order."""

import struct

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.interop.gguf import GGUF, unpermute


def _string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _write(path, tensors, fields=()):
    """tensors: name -> (shape rows first, type id, bytes). fields: (key, type id, packed value)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(_string(key) + struct.pack("<I", kind) + value for key, kind, value in fields)
    body = b""
    for name, (shape, kind, data) in tensors.items():
        head += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
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
    assert found == {"name": "naïve", "count": 7, "eps": 0.5, "flag": True, "ids": [1, -2, 3], "words": ["a", "b c"]}


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
        "q4_0": ((2, 64), 2, b"".join(_half(s) + p.tobytes() for s, p in zip(scale, packed, strict=True))),
        "q4_1": ((2, 64), 3, b"".join(_half(s) + _half(m) + p.tobytes() for s, m, p in zip(scale, low, packed, strict=True))),
        "q8_0": ((2, 64), 8, b"".join(_half(s) + o.tobytes() for s, o in zip(scale, octets, strict=True))),
    }
    file = GGUF(_write(tmp_path / "q.gguf", tensors))
    column = np.array(scale)[:, None]
    np.testing.assert_array_equal(file.tensor("f32"), floats)
    np.testing.assert_array_equal(file.tensor("f16"), floats.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(file.tensor("bf16"), floats, rtol=2**-7)
    np.testing.assert_array_equal(file.tensor("q4_0"), ((nibbles - 8) * column).reshape(2, 64))
    np.testing.assert_array_equal(file.tensor("q4_1"), (nibbles * column + np.array(low)[:, None]).reshape(2, 64))
    np.testing.assert_array_equal(file.tensor("q8_0"), (octets * column).reshape(2, 64))


def test_bad_files_are_named(tmp_path):
    data = np.ones((2, 64), np.float32).tobytes()
    path = _write(tmp_path / "m.gguf", {"a": ((2, 64), 0, data), "k": ((1, 256), 12, bytes(144))}, [("x", 8, _string("y"))])
    with pytest.raises(UserError, match="k has quantisation 12"):
        GGUF(path).tensor("k")
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(UserError, match="truncated inside a"):
        GGUF(path).tensor("a")
    for cut in (0, 3, 30, 50):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="truncated or no GGUF"):
            GGUF(path)
    path.write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(UserError, match="truncated or no GGUF"):
        GGUF(path)
    with pytest.raises(UserError, match="does not exist"):
        GGUF(tmp_path / "none.gguf")


def test_unpermute_turns_pairs_into_halves():
    """Two heads of four rows: interleaved (0, 2, 1, 3) of the half-split order comes back as 0, 1, 2, 3."""
    halves = np.arange(8.0)[:, None]
    interleaved = halves[[0, 2, 1, 3, 4, 6, 5, 7]]
    np.testing.assert_array_equal(unpermute(interleaved, 4), halves)
