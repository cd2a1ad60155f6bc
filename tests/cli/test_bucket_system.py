"""A system, a release or a published checkpoint in a bucket: what is read is what lies there, and of
large weights only what is asked for.
"""

import json

import fsspec
import jax
import numpy as np
import pytest

from mdmspeech import remote
from mdmspeech.cli.experiment import check_start, load_config, use_system
from mdmspeech.errors import UserError
from mdmspeech.interop import loaders, sources
from mdmspeech.interop.release import load_part, load_release, read_about
from mdmspeech.interop.tensors import open_tensors, write_tensors
from mdmspeech.remote import folders
from mdmspeech.training.stages import build, start


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; files of a kilobyte count as large."""
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "_LARGE", 1000)
    yield tmp_path / "cache"
    fsspec.filesystem("memory").store.clear()


def put(folder, url):
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            remote.upload(file, remote.join(url, file.relative_to(folder).as_posix()))
    return url


@pytest.fixture
def read(monkeypatch):
    """(URL, bytes) of every range that is read of a tensor."""
    seen = []
    real = remote.read_range

    def read_range(path, begin, end):
        seen.append((str(path), end - begin))
        return real(path, begin, end)

    monkeypatch.setattr(remote, "read_range", read_range)
    return seen


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_system_in_a_bucket_is_the_one_that_was_put_there(cache, system):
    url = put(system, "memory://bucket/system")
    here, there = load_release(system), load_release(url)
    assert here.parts.keys() == there.parts.keys() and there.prompt == here.prompt
    for name, part in here.parts.items():
        same(part.params, there.parts[name].params)
        same(part.params, load_part(url, name).params)
    about = read_about(url)
    same(
        sources.load_thinker(system / "thinker").params, sources.load_thinker(about.thinker).params
    )
    same(
        sources.load_speech_encoder(system / "encoder").params,
        loaders.load_encoder(f"{url}/encoder", sources.open_speech_encoder(about.encoder).config),
    )
    text = "Good day, how much is it?"
    wanted = loaders.load_tokenizer(str(system / "thinker")).encode(text)
    assert loaders.load_tokenizer(f"{url}/thinker").encode(text) == wanted


def test_an_experiment_names_the_bucket_and_not_the_copy(cache, system):
    url, config = put(system, "memory://bucket/system"), load_config("experiments/talker_8b.py")
    use_system(config, url)
    assert (
        config.weights.thinker == f"{url}/thinker" and config.weights.tokenizer == f"{url}/thinker"
    )
    assert config.init_from == url
    known = build.Loaders(release=loaders.load_part, describe=loaders.describe_part)
    config.init_part = "talker"
    found = start.find_start(config, cache / "run", known)
    assert found.name == url
    same(found.params(), load_part(system, "talker").params)
    check_start(config, cache / "run", url)


def test_of_large_weights_only_the_rows_that_are_wanted_travel(cache, tmp_path, read):
    weights = {
        "a": np.arange(4000, dtype=np.float32).reshape(100, 40),
        "b": np.arange(6, dtype=np.float16),
        "one": np.float32(3),
    }
    write_tensors(
        tmp_path / "m" / "model.safetensors", {n: np.asarray(v) for n, v in weights.items()}
    )
    folder = remote.local_folder(put(tmp_path / "m", "memory://bucket/m"))
    assert read == [], "the header comes with the folder"
    found = open_tensors(folder)
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "a": (100, 40),
        "b": (6,),
        "one": (),
    }
    np.testing.assert_array_equal(found["a"][10:13], weights["a"][10:13])
    assert read == [("memory://bucket/m/model.safetensors", 3 * 40 * 4)]
    for name, value in weights.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value)
    assert (folder / "model.safetensors").stat().st_blocks * 512 < 16_000, "a hole takes no disk"


def test_each_host_reads_its_own_rows(cache, tmp_path, read):
    """A parameter split over two devices of which this host has one."""
    from mdmspeech.interop.rules import TensorRule, _fill

    write_tensors(tmp_path / "m" / "model.safetensors", {"w": np.ones((100, 50), np.float32)})
    tensors = open_tensors(remote.local_folder(put(tmp_path / "m", "memory://bucket/half")))
    share = np.zeros((50, 50), np.float32)
    _fill({((50, 100), (0, 50)): share}, tensors, [TensorRule("w", "w")], None)
    assert share.all() and sum(size for _, size in read) == 50 * 50 * 4


def test_a_changed_object_is_read_anew_and_an_unchanged_one_is_not_fetched_again(cache, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"a": 1}')
    url = put(tmp_path / "m", "memory://bucket/m")
    first = remote.local_folder(url)
    marked = first / "kept"
    marked.write_text("")
    assert remote.local_folder(url) == first and marked.exists()
    remote.write_text(f"{url}/config.json", '{"a": 22}')
    second = remote.local_folder(url)
    assert second != first and json.loads((second / "config.json").read_text()) == {"a": 22}


def test_who_wants_all_bytes_has_the_hole_filled(cache, system):
    url = put(system, "memory://bucket/system")
    file = remote.local_folder(url) / "talker.safetensors"
    assert remote.hole(file) == f"{url}/talker.safetensors"
    assert remote.whole(file).read_bytes() == (system / "talker.safetensors").read_bytes()
    assert remote.hole(file) == "" and remote.hole(file.with_name("adaptor.safetensors"))


def test_where_a_file_came_from(cache, system, tmp_path):
    url = put(system, "memory://bucket/system")
    folder = remote.local_folder(url)
    assert (
        remote.origin(folder) == url and remote.origin(str(folder / "thinker")) == f"{url}/thinker"
    )
    assert remote.origin("gs://b/x") == "gs://b/x" and remote.origin(tmp_path) == str(tmp_path)
    assert remote.local_folder(tmp_path) == tmp_path and remote.hole(tmp_path / "x") == ""


def test_what_cannot_be_read_is_named(cache, system, tmp_path):
    put(system, "memory://bucket/system")
    with pytest.raises(UserError, match=r"nothing at memory://bucket/sistem: give a folder"):
        read_about("memory://bucket/sistem")
    put(system / "thinker", "memory://bucket/other/thinker")
    with pytest.raises(UserError, match=r"config\.json not found"):
        read_about("memory://bucket/other")
    remote.write_bytes("memory://bucket/bad/model.safetensors", b"\xff" * 5000)
    with pytest.raises(
        UserError, match=r"memory://bucket/bad/model\.safetensors is no safetensors"
    ):
        remote.local_folder("memory://bucket/bad")
    changed = remote.read_bytes("memory://bucket/system/talker.safetensors")
    remote.write_bytes("memory://bucket/system/talker.safetensors", changed[:-4] + b"abcd")
    with pytest.raises(UserError, match=r"talker\.safetensors has SHA-256"):
        load_part("memory://bucket/system", "talker")


def test_a_gguf_file_in_a_bucket_is_copied_once(cache, tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF, but broken")
    remote.upload(tmp_path / "small.gguf", "memory://bucket/small.gguf")
    with pytest.raises(UserError, match=r"small\.gguf"):
        sources.open_thinker("memory://bucket/small.gguf")
    assert [file.name for file in cache.iterdir() if file.name.endswith("small.gguf")]
