"""`mdmspeech.remote`: the same laws on a disk, in fsspec's memory and on a bucket server, whatever
happens on the way.
"""

import hashlib
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from etils import epath
from ml_collections import ConfigDict

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.remote import objects, retrying
from tests.support.bucket_server import bucket_server, reached


@pytest.fixture(scope="module")
def server():
    with bucket_server("b", "other") as proxy:
        yield proxy


@pytest.fixture
def gs(server):
    server.reset()
    with reached(server):
        yield server


@pytest.fixture(params=["disk", "memory", "gs"])
def place(request, tmp_path):
    """An empty folder of each kind."""
    if request.param == "disk":
        return str(tmp_path / "new")
    if request.param == "gs":
        request.getfixturevalue("gs")
    return f"{request.param}://b/{tmp_path.name}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("path", "names", "joined"),
    [
        ("gs://b", ["run", "config.json"], "gs://b/run/config.json"),
        ("gs://b/", ["run/steps", "1"], "gs://b/run/steps/1"),
        ("gs://b/run/", [], "gs://b/run"),
        ("s3://b/a b", ["c?d#e"], "s3://b/a b/c?d#e"),
        ("memory://b/run", ["x"], "memory://b/run/x"),
        ("hf://datasets/who/what", ["data/0.parquet"], "hf://datasets/who/what/data/0.parquet"),
        ("https://host/x?sig=1/2", ["y"], "https://host/x/y?sig=1/2"),
        (epath.Path("gs://b/run"), ["x"], "gs://b/run/x"),
        ("/data/run", ["x", "y/z"], "/data/run/x/y/z"),
        ("run", ["x"], "run/x"),
        ("file:///data/run", ["x"], "/data/run/x"),
    ],
)
def test_joined_names(path, names, joined):
    assert remote.join(path, *names) == joined
    if names:
        last = names[-1].split("/")[-1]
        assert remote.name(joined) == last
        assert remote.join(remote.parent(joined), last) == joined
    assert remote.is_remote(joined) == ("://" in joined)


@pytest.mark.parametrize("name", ["../up", "a/../../b", "/absolute", "gs://elsewhere/x", ".."])
@pytest.mark.parametrize("path", ["gs://b/run", "/data/run"])
def test_no_name_leads_out_of_the_folder(path, name):
    with pytest.raises(ValueError, match="not a name below"):
        remote.join(path, name)


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("gs:/b/x", "write gs://b/x"),
        ("s3:/b", "write s3://b"),
        ("/data/run/gs:/b/x", "write gs://b/x"),
        ("memory:/b/x", "write memory://b/x"),
        ("https:/host/x", "write https://host/x"),
        ("gs://", "write gs://BUCKET/FOLDER"),
        ("gs:///", "write gs://BUCKET/FOLDER"),
    ],
)
def test_what_pathlib_leaves_of_a_url_is_no_local_path(path, cure):
    for call in (remote.is_remote, remote.exists, remote.read_bytes, remote.local_copy):
        with pytest.raises(UserError, match=cure):
            call(path)


@pytest.mark.parametrize("path", ["C:/data", "a:b/c", "x/gs", "./gs/b", "a//b", "/gs/b/x"])
def test_local_paths_stay_local(path):
    assert not remote.is_remote(path)


def test_written_is_read(place):
    path = remote.join(place, "a", "x.json")
    assert not remote.exists(path)
    assert not remote.exists(place)
    for data in (b"", b"\0\xff" * 1000, json.dumps({"a": "é"}).encode()):
        remote.write_bytes(path, data)
        assert remote.read_bytes(path) == data
        assert remote.size(path) == len(data)
    assert remote.read_json(path) == {"a": "é"}
    assert remote.read_range(path, 1, 4) == data[1:4]
    assert remote.read_range(path, 3, 3) == b""
    assert remote.read_range(path, 0, len(data)) == data
    assert remote.sha256(path) == hashlib.sha256(data).hexdigest()
    assert remote.is_file(path) and not remote.is_dir(path)
    assert remote.is_dir(place) and not remote.is_file(place)
    remote.remove(path)
    remote.remove(path)
    assert not remote.exists(path)


def test_names_of_a_folder(place):
    for name in ("b.txt", "a/1", "a/2", "c/d/e", "ü 1"):
        remote.write_bytes(remote.join(place, name), b"x")
    assert remote.list_names(place) == ["a", "b.txt", "c", "ü 1"]
    assert remote.list_names(remote.join(place, "a")) == ["1", "2"]
    assert remote.list_names(remote.join(place, "none")) == []


def test_what_is_not_there(place):
    remote.write_bytes(remote.join(place, "x"), b"12345")
    nothing = remote.join(place, "nothing")
    for call in (remote.read_bytes, remote.size, remote.read_json, remote.local_copy):
        with pytest.raises(remote.NotFound, match="nothing"):
            call(nothing)
    with pytest.raises(remote.NotFound, match="nothing"):
        remote.read_range(nothing, 0, 1)
    with pytest.raises(remote.NotFound, match="nothing"):
        remote.upload(nothing if not remote.is_remote(nothing) else "/nothing", nothing)
    for start, stop in ((0, 6), (4, 100), (5, 6), (100, 200)):
        with pytest.raises(UserError, match=r"x: it ends at 5; .*copy it anew"):
            remote.read_range(remote.join(place, "x"), start, stop)


def test_up_and_down(place, tmp_path, monkeypatch):
    # four parts
    monkeypatch.setattr(objects, "_PART", 1 << 18)
    data = os.urandom(900_000)
    (tmp_path / "source").write_bytes(data)
    path = remote.join(place, "x.bin")
    remote.upload(tmp_path / "source", path)
    assert remote.read_bytes(path) == data
    remote.download(path, tmp_path / "below" / "copy")
    assert (tmp_path / "below" / "copy").read_bytes() == data
    assert remote.local_copy(path).read_bytes() == data


OPERATIONS = {
    "read_bytes": lambda at, _: remote.read_bytes(f"{at}/x"),
    "read_range": lambda at, _: remote.read_range(f"{at}/x", 100, 5000),
    "size": lambda at, _: remote.size(f"{at}/x"),
    "exists": lambda at, _: (remote.exists(f"{at}/x"), remote.exists(f"{at}/none")),
    "list_names": lambda at, _: remote.list_names(at),
    "write_bytes": lambda at, _: (
        remote.write_bytes(f"{at}/y", b"1"),
        remote.read_bytes(f"{at}/y"),
    ),
    "remove": lambda at, _: (remote.remove(f"{at}/x"), remote.exists(f"{at}/x")),
    "upload": lambda at, file: (remote.upload(file, f"{at}/z"), remote.sha256(f"{at}/z")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_passes_is_not_noticed(gs, operation, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "_PART", 1 << 18)
    policy = retrying.RetryPolicy(20, first=0.005)
    monkeypatch.setattr(retrying.RetryPolicy, "from_environment", lambda: policy)
    (tmp_path / "file").write_bytes(os.urandom(600_000))

    def done():
        at = f"gs://b/{operation}"
        gs.reset()
        remote.write_bytes(f"{at}/x", bytes(range(256)) * 100)
        start = len(gs.requests)
        gs.faults = lambda number, *_: fault if number == start + when else ""
        return OPERATIONS[operation](at, tmp_path / "file")

    fault, when = "", 0
    should = done()
    for fault in ("500", "503", "504", "429", "408", "reset", "lost", "cut", "short", "slow"):
        for when in range(4 if operation == "upload" else 2):
            assert done() == should, (fault, when)
            assert gs.failed or when, fault


@pytest.mark.parametrize(
    ("fault", "said"),
    [("503", "HTTP 503"), ("429", "429"), ("cut", "payload"), ("stall", "Timeout"),
     ("reset", "reset"), ("lost", r"reset|disconnected"), ("short", "of 5 bytes")],
)  # fmt: skip
def test_what_lasts_is_one_clear_message(server, fault, said):
    server.reset()
    with reached(server, retry_seconds=0.3):
        remote.write_bytes("gs://b/x", b"12345")
        server.always(fault)
        if fault == "short":
            server.faults = lambda n, method, path: fault if "alt=media" in path else ""
        with pytest.raises(UserError) as caught:
            remote.read_bytes("gs://b/x")
    line = str(caught.value)
    assert re.search(said, line), line
    assert line.startswith("cannot read gs://b/x: ") and "\n" not in line
    assert "MDMSPEECH_RETRY_SECONDS=600" in line
    assert len(server.requests) >= 2


@pytest.mark.parametrize("fault", ["401", "403"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_will_not_pass_is_told_at_once(gs, operation, fault, tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    gs.always(fault)
    with pytest.raises(UserError, match=r"gs://b.*not permitted.*gcloud auth application-default"):
        OPERATIONS[operation]("gs://b/at", tmp_path / "file")
    assert len(gs.requests) <= 4


def test_a_failing_service_is_no_missing_file(server):
    server.always("503")
    with reached(server, retry_seconds=0.05):
        for call in (remote.exists, remote.is_dir, remote.is_file, remote.list_names):
            with pytest.raises(UserError, match=r"gs://b/x: .*503"):
                call("gs://b/x")


def test_no_such_bucket(gs, tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(remote.NotFound, match=r"gs://none/x: there is no bucket gs://none"):
        remote.write_bytes("gs://none/x", b"1")
    with pytest.raises(remote.NotFound, match=r"gs://none/x: there is no bucket gs://none"):
        remote.upload(tmp_path / "file", "gs://none/x")
    with pytest.raises(remote.NotFound, match="no such bucket"):
        remote.list_names("gs://none/x")
    assert not remote.exists("gs://none/x")


@pytest.mark.parametrize(
    ("path", "missing", "said"),
    [("gs://b/x", "gcsfs", "mdmspeech.cloud"), ("s3://b/x", "s3fs", "pip install s3fs"),
     ("nope://b/x", "nothing", "nothing here reads nope://")],
)  # fmt: skip
def test_no_package_for_it(path, missing, said, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "mdmspeech.remote.google_storage", raising=False)
    registry = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(registry, path.split(":")[0], raising=False)
    monkeypatch.setenv("MDMSPEECH_RETRY_SECONDS", "0.1")
    with pytest.raises(UserError, match=said):
        remote.read_bytes(path)


def test_an_upload_that_fails_leaves_what_was_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "_PART", 1 << 18)
    (tmp_path / "file").write_bytes(os.urandom(900_000))
    server.reset()
    with reached(server, retry_seconds=0.2):
        remote.write_bytes("gs://b/up", b"old")
        server.reset()
        server.faults = lambda n, *_: "503" if n >= 3 else ""
        with pytest.raises(UserError, match="gs://b/up"):
            remote.upload(tmp_path / "file", "gs://b/up")
        server.reset()
        assert remote.read_bytes("gs://b/up") == b"old"


def test_a_local_copy_follows_the_object(gs):
    remote.write_bytes("gs://b/c/x.bin", b"1" * 100)
    first = remote.local_copy("gs://b/c/x.bin")
    assert first.name.endswith("x.bin")
    gs.reset()
    assert remote.local_copy("gs://b/c/x.bin") == first
    assert not [line for line in gs.requests if "alt=media" in line]
    remote.write_bytes("gs://b/c/x.bin", b"2" * 100)
    assert remote.local_copy("gs://b/c/x.bin").read_bytes() == b"2" * 100
    remote.write_bytes("gs://other/c/x.bin", b"3" * 100)
    assert remote.local_copy("gs://other/c/x.bin").read_bytes() == b"3" * 100


def test_the_copies_used_longest_ago_go(gs, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_CACHE_GB", "0.0000025")
    copies = {}
    for name in ("a", "b", "a", "c"):
        if name not in copies:
            remote.write_bytes(f"gs://b/lru/{name}", name.encode() * 1000)
        copies[name] = remote.local_copy(f"gs://b/lru/{name}")
    assert {name for name, copy in copies.items() if copy.exists()} == {"a", "c"}
    remote.write_bytes("gs://b/lru/d", b"d" * 2600)
    with pytest.raises(UserError, match=r"gs://b/lru/d.*MDMSPEECH_CACHE_GB"):
        remote.local_copy("gs://b/lru/d")


def test_uses_in_quick_succession_are_of_different_ages(gs, monkeypatch):
    # the stamps of some kernels have ticks of milliseconds: two uses in one would be equally old
    remote.write_bytes("gs://b/tick", b"x")
    stamped = os.utime
    monkeypatch.setattr(os, "utime", lambda file, ns=(10**18, 10**18): stamped(file, ns=ns))
    ages = [remote.local_copy("gs://b/tick").stat().st_mtime_ns for _ in range(3)]
    assert ages == sorted(set(ages))


def test_one_fetches_and_the_others_wait(gs):
    remote.write_bytes("gs://b/once", b"x" * 1000)
    gs.reset()
    copies = []
    threads = [
        threading.Thread(target=lambda: copies.append(remote.local_copy("gs://b/once")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(copies)) == 1 and len(copies) == 6
    assert sum("alt=media" in line for line in gs.requests) == 1


def test_a_forked_process_reads_too(gs):
    remote.write_bytes("gs://b/fork", b"x" * 1000)
    assert remote.read_range("gs://b/fork", 0, 10)
    child = os.fork()
    if not child:
        good = remote.read_range("gs://b/fork", 10, 20) == b"x" * 10
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_paths_of_etils_go_by_the_same_file_system(gs):
    """gcsfs's own class would ask for log-ins that a test has not, and give up on the first 503."""
    from mdmspeech.training.workdir import make_workdir, upload, write_whole

    epath.backend.fsspec_backend._get_filesystem.cache_clear()
    make_workdir(epath.Path("gs://b/run"), ConfigDict({"a": 1}))
    gs.first("503", "reset")
    write_whole(epath.Path("gs://b/run/config.json"), '{"a": 2}')
    assert gs.failed == 2
    assert remote.read_json("gs://b/run/config.json") == {"a": 2}
    upload(Path(__file__).parent / "support", "gs://b/run/support")
    assert remote.is_file("gs://b/run/support/bucket_server.py")
    epath.backend.fsspec_backend._get_filesystem.cache_clear()


def _raised(module, name, *args, **attributes):
    error = pytest.importorskip(module)
    for part in name.split("."):
        error = getattr(error, part)
    made = error(*args)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("passes", "error"),
    [
        (True, lambda: TimeoutError("slow")),
        (True, lambda: ConnectionResetError(104, "reset")),
        (True, lambda: socket.gaierror(-3, "temporary failure in name resolution")),
        (True, lambda: _raised("aiohttp", "ServerDisconnectedError")),
        (True, lambda: _raised("aiohttp", "ClientPayloadError", "half")),
        (True, lambda: _raised("requests", "exceptions.ChunkedEncodingError", "half")),
        (True, lambda: _raised("gcsfs.retry", "HttpError", {"code": 429, "message": "slow down"})),
        (True, lambda: _raised("gcsfs.retry", "HttpError", {"code": 599, "message": ""})),
        (True, lambda: _raised("google.auth.exceptions", "TransportError", "metadata")),
        (True, lambda: OSError(16, "SlowDown")),
        (True, lambda: json.JSONDecodeError("half", "{", 1)),
        (False, lambda: socket.gaierror(-2, "name or service not known")),
        (False, lambda: _raised("gcsfs.retry", "HttpError", {"code": 501, "message": ""})),
        (False, lambda: _raised("gcsfs.retry", "HttpError", {"code": 412, "message": ""})),
        (False, lambda: _raised("aiohttp", "InvalidURL", "x")),
        (False, lambda: FileNotFoundError(2, "x")),
        (False, lambda: PermissionError(13, "x")),
        (False, lambda: OSError("Forbidden: b/b/o")),
        (False, lambda: OSError(28, "no space left")),
        (False, lambda: ValueError("Bad Request")),
        (False, lambda: TypeError("ours")),
        (False, lambda: MemoryError()),
    ],
)
def test_which_errors_pass(passes, error):
    assert retrying.passes(error()) is passes


@pytest.mark.parametrize(
    "text",
    ["Authorization: Bearer ya29.SECRET", "token=SECRET is expired", '{"access_token": "SECRET"}',
     "GET https://host/x?X-Goog-Signature=SECRET&a=1", "https://me:SECRET@host/x failed",
     "X-Amz-Credential=SECRET", "password: SECRET", "Basic SECRET"],
)  # fmt: skip
def test_no_credentials_are_told(text):
    given_up = retrying.GivenUp(OSError(text), 1, 0.0)
    line = str(retrying.told(given_up, "read", "gs://me:SECRET@b/x?sig=SECRET"))
    assert "SECRET" not in line and "gs://b/x" in line


def test_waits_grow_and_differ():
    attempts = retrying.Attempts(retrying.RetryPolicy(budget=1e9, first=1, longest=60))
    waits = [attempts.wait_after(TimeoutError()) for _ in range(300)]
    assert max(waits[:1]) <= 1 and max(waits[:2]) <= 2
    assert 50 < max(waits) <= 60
    assert min(waits[10:]) < 10 and len(set(waits)) == 300


def test_importing_it_is_cheap():
    code = "import sys, mdmspeech.remote as r; r.is_remote('gs://b'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "mdmspeech.remote" in loaded
    assert not {"fsspec", "gcsfs", "aiohttp", "jax", "numpy"} & set(loaded.split())
