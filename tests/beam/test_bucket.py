"""A preparation whose corpus and datasets are in buckets: the same bytes as on a disk, also with
failing requests and after a stop half-way.
"""

import hashlib
from pathlib import Path

import pytest
from plainly import gather, make, prepare, target
from planted_corpus import plant

from mdmspeech import remote
from mdmspeech.data.beam import parts, sources, stages
from mdmspeech.data.beam.finish import finish
from mdmspeech.data.datasets import corpus
from tests.support.bucket_server import bucket_server, reached

STAGES = (stages.Clean(None, carve=True),)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with bucket_server("b") as proxy, reached(proxy, 60), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDMSPEECH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MDMSPEECH_STALL_SECONDS", "20")
        yield proxy


@pytest.fixture(scope="module")
def planted(tmp_path_factory, store):
    folder = tmp_path_factory.mktemp("planted") / "corpus"
    plant(folder, 12, 12)
    for path in folder.iterdir():
        remote.write_bytes(f"gs://b/raw/{path.name}", path.read_bytes())
    return folder


def sums(folder: str) -> dict[str, str]:
    return {
        name: hashlib.sha256(remote.read_bytes(remote.join(folder, name))).hexdigest()
        for name in remote.list_names(folder)
    }


@pytest.mark.slow
def test_from_a_bucket_into_a_bucket_it_is_the_same_as_on_a_disk(planted, store, tmp_path):
    here, there = target(tmp_path, STAGES, 2), target("gs://b/out", STAGES, 2)
    prepare(sources.Source(str(planted)), here, STAGES)
    source = sources.Source("gs://b/raw")
    gathered = gather(source, 2, shuffled=3)
    count = sum(map(len, gathered.values()))
    store.share(0.1, ("503", "reset", "cut"))
    assert make(there, STAGES, {0: gathered[0]}) == [0]
    assert not corpus.is_there(there.root, "recordings", "mine")
    assert make(there, STAGES, gathered) == [1]
    finish(there, ["clean"], count)
    assert store.failed
    store.reset()
    assert sums(there.folder("recordings")) == sums(here.folder("recordings"))
    ours = corpus.speech(there.root, ("mine",), "train")
    assert [r["id"] for r in (ours[0], ours[len(ours) - 1])]
    assert prepare(source, there, STAGES)[0] == []
    # an object that has changed is noticed
    remote.write_bytes("gs://b/raw/00003.wav", Path(planted, "00004.wav").read_bytes())
    changed = [n for n, entries in gathered.items() if "00003.wav" in {e.id for e in entries}]
    assert prepare(source, there, STAGES)[0] == changed
    left = [name for name in remote.list_names(there.work) if name != parts.PUBLISHED]
    assert left == ["part-00000.safetensors", "part-00001.safetensors"]


@pytest.mark.parametrize("name", ["x.bin", "below/x.bin"])
def test_a_copy_in_a_store_or_on_a_disk(name, store, tmp_path):
    for place in (str(tmp_path), "gs://b/copies"):
        remote.write_bytes(remote.join(place, "first"), b"abc")
        remote.write_bytes(remote.join(place, name), b"older")
        remote.copy(remote.join(place, "first"), remote.join(place, name))
        assert remote.read_bytes(remote.join(place, name)) == b"abc"
        with pytest.raises(remote.NotFound):
            remote.copy(remote.join(place, "none"), remote.join(place, name))
        assert remote.read_bytes(remote.join(place, name)) == b"abc"
    with pytest.raises(ValueError, match="different stores"):
        remote.copy(str(tmp_path / "first"), "gs://b/copies/first")
