"""Converted weights: made once, read from a memory map ever after, made anew when anything about
them changes; and nothing depends on a copy.
"""

import os
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.errors import UserError
from mdmspeech.interop import converted as module
from mdmspeech.interop.converted import converted
from mdmspeech.interop.release import Part, Release, load_release, save_release
from mdmspeech.interop.sources import load_speech_encoder
from mdmspeech.models import talker


@pytest.fixture
def folder(tmp_path):
    module.keep(tmp_path / "copies")
    yield tmp_path / "copies"
    module.keep(None)


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    return file


class Maker:
    def __init__(self, value=1.0):
        self.count, self._value = 0, value

    def __call__(self):
        self.count += 1
        big = np.full((16, 32), self._value, np.float32)
        half = np.arange(7).astype(ml_dtypes.bfloat16)
        return {"layers": {"0": {"kernel": big, "bias": half}}, "scale": np.float32(3) * big[0, :3]}


def copies(folder):
    return sorted(folder.glob("*")) if folder.exists() else []


def test_made_once_and_mapped_ever_after(folder, source):
    first, second = Maker(), Maker()
    made = converted("part", [source], "sizes", first)
    (copy,) = copies(folder)
    before = copy.stat()
    kept = converted("part", [source], "sizes", second)
    assert (first.count, second.count) == (1, 0)
    assert (copy.stat().st_mtime_ns, copy.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert jax.tree.structure(made) == jax.tree.structure(kept)
    for ours, wanted in zip(jax.tree.leaves(kept), jax.tree.leaves(made), strict=True):
        assert ours.dtype == wanted.dtype and not ours.flags.writeable
        np.testing.assert_array_equal(ours, wanted)


def test_the_device_takes_it_without_a_copy(folder, source):
    converted("part", [source], "sizes", Maker())
    kernel = converted("part", [source], "sizes", Maker())["layers"]["0"]["kernel"]
    assert kernel.ctypes.data % 64 == 0
    there = jax.device_put(kernel, jax.devices()[0])
    assert there.unsafe_buffer_pointer() == kernel.ctypes.data


CHANGES = {
    "more bytes": lambda file: file.write_bytes(b"weights, more"),
    "other bytes": lambda file: (file.write_bytes(b"WEIGHTS"), os.utime(file, ns=(1, 1))),
    "an older file": lambda file: os.utime(file, ns=(5, 5)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_is_another_copy_and_the_old_one_goes(folder, source, change):
    converted("part", [source], "sizes", Maker())
    (old,) = copies(folder)
    CHANGES[change](source)
    again = Maker(2.0)
    out = converted("part", [source], "sizes", again)
    assert again.count == 1 and out["layers"]["0"]["kernel"][0, 0] == 2.0
    assert len(copies(folder)) == 1 and not old.exists()


def test_sizes_and_code_make_another_copy(folder, source, monkeypatch):
    converted("part", [source], "sizes", Maker())
    other = Maker()
    converted("part", [source], "other sizes", other)
    monkeypatch.setattr(module, "_code", lambda: "another version")
    newer = Maker()
    converted("part", [source], "other sizes", newer)
    assert other.count == newer.count == 1 and len(copies(folder)) == 1


def test_copies_of_other_files_and_parts_stay(folder, source, tmp_path):
    other = tmp_path / "other.bin"
    shutil.copy2(source, other)
    for what, file in (("part", source), ("part", other), ("prefix", source)):
        converted(what, [file], "sizes", Maker())
    source.write_bytes(b"new")
    converted("part", [source], "sizes", Maker())
    assert len(copies(folder)) == 3


def test_copies_that_nobody_reads_go(folder, source):
    folder.mkdir()
    left, kept = folder / "old-1-1.safetensors", folder / "used-1-1.safetensors"
    left.write_bytes(b"x"), kept.write_bytes(b"x")
    os.utime(left, (1e9, 1e9))
    converted("part", [source], "sizes", Maker())
    assert not left.exists() and kept.exists()


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None], ids=["empty", "other", "cut"])
def test_a_damaged_copy_is_made_anew(folder, source, damage):
    converted("part", [source], "sizes", Maker())
    (copy,) = copies(folder)
    copy.write_bytes(copy.read_bytes()[:-8] if damage is None else damage)
    again = Maker()
    out = converted("part", [source], "sizes", again)
    assert again.count == 1 and out["layers"]["0"]["kernel"][0, 0] == 1.0
    third = Maker()
    converted("part", [source], "sizes", third)
    assert third.count == 0


def nowhere(folder, monkeypatch):
    folder.write_text("a file where a folder should be")


def full(folder, monkeypatch):
    usage = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)


def breaks(folder, monkeypatch):
    def fail(*args, **how):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(module, "write_tensors", fail)


def too_large(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST", 100)


def not_asked(folder, monkeypatch):
    module.keep(None)


@pytest.mark.parametrize("why", [nowhere, full, breaks, too_large, not_asked])
def test_without_a_copy_all_works(folder, source, monkeypatch, why):
    why(folder, monkeypatch)
    again = Maker()
    for _ in range(2):
        out = converted("part", [source], "sizes", again)
        assert out["layers"]["0"]["kernel"][0, 0] == 1.0
    assert again.count == 2
    assert not folder.is_dir() or not copies(folder)


def test_a_missing_file_is_the_makers_error(folder, tmp_path):
    def refuse():
        raise UserError("fetch it again")

    with pytest.raises(UserError, match="fetch it again"):
        converted("part", [tmp_path / "none"], "sizes", refuse)


TALKER = talker.TalkerConfig(dim=64, num_layers=1, num_heads=2, ffn_dim=32, symbols=8)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    params = random_params(talker.init, TALKER, jax.random.key(0))
    save_release(folder, Release("tiny", {"talker": Part("talker_mdm", TALKER, params)}), "card")
    return folder


def test_a_release_is_the_same_from_its_copy(folder, release):
    module.keep(None)
    plain = load_release(release).part("talker").params
    module.keep(folder)
    for _ in range(2):
        jax.tree.map(
            np.testing.assert_array_equal, load_release(release).part("talker").params, plain
        )
    assert len(copies(folder)) == 1


def test_a_release_that_was_altered_is_refused_in_spite_of_its_copy(folder, release, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(release, there)
    load_release(there)
    file = there / "talker.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(7, 7))
    with pytest.raises(UserError, match="SHA-256"):
        load_release(there)


def test_the_encoder_is_read_once(folder):
    module.keep(None)
    plain = load_speech_encoder(official=False).params
    module.keep(folder)
    load_speech_encoder(official=False)
    (copy,) = copies(folder)
    kept = load_speech_encoder(official=False).params
    jax.tree.map(np.testing.assert_array_equal, kept, plain)
    assert copies(folder) == [copy]


def test_other_types_are_other_copies_and_shares_are_none(folder):
    load_speech_encoder(official=False, dtype=ml_dtypes.bfloat16)
    (first,) = copies(folder)
    leaf = jax.tree.leaves(load_speech_encoder(official=False, dtype=ml_dtypes.bfloat16).params)[0]
    assert leaf.dtype == ml_dtypes.bfloat16
    load_speech_encoder(official=False, progress=lambda count: None)  # no copy is asked for
    assert copies(folder) == [first]
