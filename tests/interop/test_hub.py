"""Releases on the Hub, against a Hub on this machine: what is asked for and what is not, without a
network, and what is told when it fails.
"""

import json
import logging
import os
import re
import shutil

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hub_server import TOKEN, hub_server, point_at

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.interop import hub, sources
from mdmspeech.interop.parts import KINDS, StackConfig
from mdmspeech.interop.release import (
    Part,
    Release,
    find_release,
    load_part,
    load_release,
    read_about,
    save_release,
)
from mdmspeech.models.phone_classifier import PhoneClassifierConfig

NAME = "me/voice"
READER = PhoneClassifierConfig(encoder_dim=8, near=1, dim=8, symbols=20)
STACK = StackConfig(encoder_dim=8, out_dim=4, stack=2, hidden_dim=8)


def part(kind, sizes, seed=0):
    """One with random numbers, which nothing is compiled for."""
    draw = np.random.default_rng(seed)
    from flax.traverse_util import unflatten_dict

    shapes = flatten_dict(KINDS[kind].shapes(sizes))
    values = {k: draw.normal(size=v.shape).astype(np.float32) for k, v in shapes.items()}
    return Part(kind, sizes, unflatten_dict(values))


def the_release():
    parts = {
        "adaptor": part("stack_adaptor", STACK, 1),
        "talker": part("phone_reader", READER),
    }
    return Release("voice", parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A release, and beside it files that no release names."""
    folder = tmp_path_factory.mktemp("release")
    save_release(folder, the_release(), "# A card\n")
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "other.safetensors").write_bytes(b"unused")
    return folder


@pytest.fixture(scope="module")
def running():
    with hub_server() as server:
        yield server


@pytest.fixture
def server(running, folder, tmp_path, monkeypatch):
    """With the release as me/voice, and an empty cache in tmp_path."""
    running.repositories.clear()
    running.forget()
    running.add(NAME, folder)
    point_at(running.url, tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    hub._opened.clear()
    hub._told_of.clear()
    return running


def offline(monkeypatch, tmp_path, url="http://127.0.0.1:9"):
    """Nobody answers from here on, as for a new process."""
    point_at(url, tmp_path, monkeypatch)
    hub._opened.clear()
    hub._told_of.clear()


def commits(server):
    return list(server.repositories[NAME].commits)


def changed(folder, where, seed):
    """The same release with another Talker, as files."""
    release = the_release()
    parts = {**release.parts, "talker": part("phone_reader", READER, seed)}
    save_release(where, Release("voice", parts), "# A card\n")
    return {p.name: p.read_bytes() for p in where.iterdir()}


def same(one, other):
    flat = [flatten_dict(each.params) for each in (one, other)]
    return flat[0].keys() == flat[1].keys() and all(
        np.array_equal(flat[0][key], flat[1][key]) for key in flat[0]
    )


# ---- What is fetched ----------------------------------------------------------------------------


def test_only_what_the_config_names_is_fetched(server, folder):
    opened = load_release(NAME)
    assert all(same(opened.parts[n], p) for n, p in load_release(folder).parts.items())
    assert server.downloads() == ["config.json", "adaptor.safetensors", "talker.safetensors"]
    assert {p.name for p in opened.folder.iterdir()} == set(server.downloads())
    assert hub.snapshot_of(opened.folder).commit == commits(server)[0] == opened.folder.name


def test_a_part_is_fetched_when_it_is_read(server):
    about = read_about(NAME)
    assert set(about.parts) == {"adaptor", "talker"} and server.downloads() == ["config.json"]
    load_part(NAME, "talker")
    load_release(NAME, only=("talker",))
    assert server.downloads() == ["config.json", "talker.safetensors"]


def test_the_second_time_asks_once_and_fetches_nothing(server):
    load_release(NAME)
    server.forget()
    hub._opened.clear()
    load_release(NAME)
    assert server.requests == [f"HEAD /{NAME}/resolve/main/config.json"]


def test_what_is_there_is_fetched_anew_if_asked(server):
    for _ in range(2):
        load_release(NAME)
    server.forget()
    load_release(find_release(NAME, access=hub.Access(force_download=True)))
    wanted = ["adaptor.safetensors", "config.json", "talker.safetensors"]
    assert sorted(server.downloads()) == wanted


def test_no_token_leaves_the_hub(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    load_release(NAME)
    seen = dict(zip(server.requests, server.tokens, strict=True))
    assert {bool(token) for request, token in seen.items() if "/cdn/" in request} == {False}
    assert {token for request, token in seen.items() if "/resolve/" in request} == {TOKEN}


@pytest.mark.parametrize("name", ["gone", "/nowhere/at-all", "./me/voice", "a/b/c", ""])
def test_whatever_is_no_such_name_asks_nobody(server, name):
    with pytest.raises(UserError, match="no release"):
        read_about(name)
    assert read_about("compact").thinker == sources.SMOLLM2 and not server.requests


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("me/voice", ("me/voice", None)),
        ("Org-1/a.b_c@v1.0", ("Org-1/a.b_c", "v1.0")),
        ("me/voice@refs/pr/1", ("me/voice", "refs/pr/1")),
        ("voice", None), ("a/b/c", None), ("/a/b", None), ("./a", None), ("../a", None),
        ("~/a", None), ("me/voice@", None), ("me/voi ce", None), ("gs://a/b", None),
        ("hf://me/voice", None), ("a\\b", None), ("-a/b", None), ("a/", None), ("", None),
    ],
)  # fmt: skip
def test_names(name, parsed):
    assert hub.parse(name) == parsed


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_of_that_name_wins(server, folder, tmp_path, inside):
    (tmp_path / NAME).mkdir(parents=True)
    if inside:
        shutil.copytree(folder, tmp_path / NAME, dirs_exist_ok=True)
        assert load_release(NAME).folder.resolve() == (tmp_path / NAME).resolve()
    else:
        with pytest.raises(UserError, match=r"no release 'me/voice' \(config.json not found\)"):
            load_release(NAME)
    assert not server.requests


# ---- Revisions ----------------------------------------------------------------------------------


def test_a_branch_moves_and_a_commit_stays(server, folder, tmp_path):
    first = load_release(NAME)
    second = server.repositories[NAME].commit(changed(folder, tmp_path / "new", 7))
    server.repositories[NAME].refs["v1"] = first.folder.name
    server.forget()
    newest = load_release(NAME)
    assert newest.folder.name == second and not same(newest.parts["talker"], first.parts["talker"])
    # the adaptor is the same file
    assert server.downloads() == ["config.json", "talker.safetensors"]
    for revision in ("v1", first.folder.name):
        again = load_release(find_release(NAME, revision))
        assert again.folder == first.folder == load_release(f"{NAME}@{revision}").folder
        assert same(again.parts["talker"], first.parts["talker"])
    assert hub.snapshot_of(first.folder).name == f"{NAME}@{first.folder.name}"


def test_a_pinned_commit_that_is_there_asks_nobody(server):
    commit = commits(server)[0]
    load_release(f"{NAME}@{commit}")
    server.forget()
    hub._opened.clear()
    load_release(f"{NAME}@{commit}")
    assert not server.requests and hub.snapshot_of(find_release(f"{NAME}@{commit}")).offline == ""


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        (NAME, "gone", "has no revision gone"),
        (f"{NAME}@{'0' * 40}", None, "has no revision 0000"),
        (f"{NAME}@v1", "v2", "two revisions"),
        ("compact", "main", "is of a repository on the Hugging Face Hub, and compact is none"),
    ],
)
def test_revisions_that_are_not_there(server, name, revision, told):
    with pytest.raises(UserError, match=re.escape(told)):
        find_release(name, revision)


# ---- Without a network --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", "HF_HUB_OFFLINE", "503", "429", "local_files_only"])
def test_without_a_network_the_cache_is_opened_and_told(server, tmp_path, monkeypatch, caplog, how):
    before = load_release(NAME)
    offline(monkeypatch, tmp_path, server.url if how != "gone" else "http://127.0.0.1:9")
    access = hub.Access(local_files_only=how == "local_files_only")
    if how == "HF_HUB_OFFLINE":
        point_at(server.url, tmp_path, monkeypatch, offline=True)
    if how.isdecimal():
        server.broken = int(how)
    server.requests.clear()
    again = load_release(find_release(NAME, access=access))
    assert again.folder == before.folder and same(again.parts["talker"], before.parts["talker"])
    assert len(server.requests) == how.isdecimal()
    told = [
        r.getMessage()
        for r in caplog.records
        if r.levelno == logging.WARNING and r.name == hub.__name__
    ]
    assert len(told) == 1 and f"{NAME}: commit {before.folder.name}" in told[0]
    assert "the one in the cache for main" in told[0]


def test_without_a_network_a_part_that_was_never_read_is_missed(server, tmp_path, monkeypatch):
    load_part(NAME, "adaptor")
    offline(monkeypatch, tmp_path)
    load_part(NAME, "adaptor")
    with pytest.raises(
        TryAgainError, match=f"talker.safetensors is not in the cache, and.*download {NAME}"
    ):
        load_part(NAME, "talker")


@pytest.mark.parametrize("how", ["gone", "offline", "local_files_only"])
def test_without_a_network_and_a_copy(server, tmp_path, monkeypatch, how):
    point_at("http://127.0.0.1:9", tmp_path, monkeypatch, offline=how == "offline")
    access = hub.Access(local_files_only=how == "local_files_only")
    with pytest.raises(UserError, match=f"no folder {NAME} here.*hf download {NAME}"):
        find_release(NAME, access=access)
    assert not (tmp_path / "hub").exists()


def test_the_commit_is_told_once(server, caplog):
    caplog.set_level(logging.INFO, logger=hub.__name__)
    load_release(NAME), load_release(NAME)
    told = [r.getMessage() for r in caplog.records if r.name == hub.__name__]
    assert told == [f"{NAME}: commit {commits(server)[0]} of the Hugging Face Hub"]


# ---- Downloads that go wrong --------------------------------------------------------------------


def test_an_interrupted_download_goes_on_where_it_stopped(server, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    # of 10 MB, of which the library keeps whole ones
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    server.cut = {"talker.safetensors"}
    opened = load_part(NAME, "talker")
    assert same(opened, load_part(folder, "talker"))
    half = (folder / "talker.safetensors").stat().st_size // 2
    assert server.starts == [0, half // 100 * 100]


def test_a_wrong_byte_is_fetched_again(server, folder):
    server.corrupt = {"talker.safetensors": 1}
    opened = load_release(NAME)
    assert same(opened.parts["talker"], load_part(folder, "talker"))
    assert server.downloads().count("talker.safetensors") == 2
    assert server.downloads().count("adaptor.safetensors") == 1


def test_a_wrong_byte_that_stays_is_told(server):
    server.corrupt = {"talker.safetensors": 9}
    with pytest.raises(UserError, match=r"talker\.safetensors is not the file that its config"):
        load_release(NAME)
    assert server.downloads().count("talker.safetensors") == 2


def test_a_damaged_copy_is_fetched_again_when_the_hub_answers(
    server, folder, tmp_path, monkeypatch
):
    file = load_release(NAME).folder / "talker.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"?")
    offline(monkeypatch, tmp_path)
    with pytest.raises(TryAgainError, match="with a network it is fetched again by itself"):
        load_release(NAME)
    offline(monkeypatch, tmp_path, server.url)
    assert same(load_part(NAME, "talker"), load_part(folder, "talker"))
    assert file.read_bytes() == good


# ---- Repositories that are none of ours ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("me/nothing", "no folder me/nothing here, and no such repository on the Hugging Face Hub"),
        ("me/secret", "if it is private, log in (`hf auth login`, or HF_TOKEN)"),
        ("me/gated", "is gated: ask for access on its page"),
        ("me/empty", "has no config.json, so it is no whole release of mdmspeech"),
        ("me/llama", "is the config of another model, not of an mdmspeech release"),
        ("me/half", "has no talker.safetensors, so it is no whole release"),
        ("me/python", "names evil.py as a file of its release; only .safetensors and .json"),
        ("me/pickle", "names pytorch_model.bin as a file of its release"),
        ("me/above", "is missing"),
        ("me/elsewhere", "names '/etc' as a part of its system, which is not in it"),
        ("me/bucket", "names 'gs://bucket/x' as a part of its system"),
        ("me/a--b", "is no name of a repository on the Hugging Face Hub"),
    ],
)
def test_what_cannot_be_opened_is_told(server, folder, name, told):
    repositories, config = server.repositories, (folder / "config.json").read_text()
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}

    def with_config(**changes):
        return {**whole, "config.json": json.dumps({**json.loads(config), **changes}).encode()}

    def naming(file):
        parts = json.loads(config)["parts"]
        return with_config(parts={**parts, "talker": {**parts["talker"], "file": file}})

    server.add("me/secret", folder, private=True), server.add("me/gated", folder, gated=True)
    files = {
        "me/empty": {"README.md": b"# soon"},
        "me/llama": {"config.json": b'{"model_type": "llama"}'},
        "me/half": {k: v for k, v in whole.items() if k != "talker.safetensors"},
        "me/python": naming("evil.py"),
        "me/pickle": naming("pytorch_model.bin"),
        "me/above": naming("../config.json"),
        "me/elsewhere": with_config(thinker="/etc"),
        "me/bucket": with_config(thinker="gs://bucket/x"),
    }
    for each, content in files.items():
        repositories[each] = type(repositories[NAME])()
        repositories[each].commit(content)
    with pytest.raises(UserError, match=re.escape(told)):
        load_release(name)
    assert not {"evil.py", "pytorch_model.bin"} & set(server.downloads())


def test_who_is_logged_in_and_was_not_admitted_is_told(server, folder):
    server.add("me/gated", folder, gated=True)
    with pytest.raises(UserError, match="me/gated is gated: ask for access"):
        find_release("me/gated", access=hub.Access(token="hf_other"))
    assert server.tokens == ["hf_other"]


@pytest.mark.parametrize("name", ["me/secret", "me/gated"])
def test_who_is_logged_in_may_read(server, folder, name):
    server.add(name, folder, private=name == "me/secret", gated=name == "me/gated")
    opened = load_release(find_release(name, access=hub.Access(token=TOKEN)))
    assert set(opened.parts) == {"adaptor", "talker"}


# ---- A Thinker inside ---------------------------------------------------------------------------


@pytest.fixture
def system(server, folder):
    """me/system, with thinker/ (a file of each kind) inside."""
    config = json.loads((folder / "config.json").read_text())
    small = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"x" * 9}
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    files["config.json"] = json.dumps({**config, "thinker": "thinker"}).encode()
    files |= {f"thinker/{name}": data for name, data in small.items()}
    files |= {"thinker/modeling.py": b"raise SystemExit", "thinker/pytorch_model.bin": b"pickle"}
    server.repositories["me/system"] = type(server.repositories[NAME])()
    server.repositories["me/system"].commit(files)
    return "me/system"


def test_a_thinker_inside_is_fetched_when_it_is_opened(server, system, tmp_path, monkeypatch):
    opened = load_release(system)
    assert opened.thinker == str(opened.folder / "thinker") and opened.encoder == "whisper-base"
    assert not os.path.exists(f"{opened.thinker}/model.safetensors")
    sources.local(opened.thinker)
    there = {p.name for p in (opened.folder / "thinker").iterdir()}
    assert there == {"config.json", "tokenizer.json", "model.safetensors"}
    server.forget()
    sources.local(load_release(system).thinker)
    assert not server.downloads()
    offline(monkeypatch, tmp_path)
    assert {p.name for p in sources.local(load_release(system).thinker).iterdir()} == there
