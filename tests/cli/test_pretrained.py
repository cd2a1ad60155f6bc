"""A model is saved, pushed and opened again as the same one, against a Hub on this machine; nothing
is written where it cannot be.
"""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chat_llm import write_llm
from hub_server import TOKEN, environment, files_in, hub_server, point_at, problems_of
from small_published import ENCODER
from small_speech import spelling

import mdmspeech
from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, use_system
from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.interop import hub
from mdmspeech.interop.copying import copy_release
from mdmspeech.interop.loaders import load_tokenizer
from mdmspeech.interop.release import Part, Release, load_release, read_about, save_release
from mdmspeech.interop.sources import load_thinker
from mdmspeech.pretrained import PretrainedAssistant

ROOT = Path(__file__).parents[2]
TEXT = "It is a red apple."


@pytest.fixture(scope="module")
def running():
    with hub_server() as server:
        yield server


@pytest.fixture
def server(running, tmp_path, monkeypatch):
    """An empty Hub, an empty cache, and somebody who is logged in."""
    running.repositories.clear()
    running.forget()
    point_at(running.url, tmp_path / "home", monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    hub._opened.clear()
    hub._told_of.clear()
    return running


@pytest.fixture(scope="module")
def speaks(published):
    return mdmspeech.load(published / "speaks")


@pytest.fixture(scope="module")
def hears(published, tmp_path_factory):
    """A release whose Thinker and encoder are folders somewhere else."""
    config, params = spelling()
    assert config.encoder_dim == ENCODER.dim
    parts = {
        **load_release(published / "speaks").parts,
        "adaptor": Part("spelling_adaptor", config, params),
    }
    pretrained = {"thinker": published / "thinker", "encoder": published / "whisper"}
    release = Release(
        "hears", parts, **{k: str(v) for k, v in pretrained.items()}, examples=(("Hi.", "Hello."),)
    )
    folder = tmp_path_factory.mktemp("hears")
    save_release(folder, release, "# What it is\n")
    return folder


def pushed(server, name):
    repo = server.repositories[name]
    return repo.commits[repo.refs["main"]]


# ---- The same model again -----------------------------------------------------------------------


@pytest.mark.slow
def test_it_says_the_same_after_it_was_pushed_and_opened(server, speaks, published):
    said = speaks.say(TEXT, steps=2)
    url = speaks.push_to_hub("me/speaks", commit_message="First")
    repo = server.repositories["me/speaks"]
    assert url == f"{server.url}/me/speaks/commit/{repo.refs['main']}" and len(repo.commits) == 1
    assert (speaks.repo_id, speaks.commit_hash) == (None, None)

    again = mdmspeech.load("me/speaks")
    assert (again.repo_id, again.commit_hash) == ("me/speaks", repo.refs["main"])
    np.testing.assert_array_equal(again.say(TEXT, steps=2).tokens, said.tokens)
    assert len(said.tokens) > 3
    was, now = (files_in(published / "speaks"), pushed(server, "me/speaks"))
    assert {n for n in was if was[n] != now[n]} <= {
        "config.json",
        "README.md",
    } and was.keys() == now.keys()
    assert json.loads(was["config.json"]) == json.loads(now["config.json"])
    assert not problems_of(now["README.md"].decode())


def test_the_page_of_the_hub(server, published, capsys):
    """docs/hub.md's Python, as it stands there but for the token."""
    server.add("OWNER/NAME", published / "speaks")
    refs = server.repositories["OWNER/NAME"].refs
    refs["v1.0"] = refs["main"]
    text = Path("docs/hub.md")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / text).read_text(), re.M | re.S)
    exec(compile("\n".join(blocks).replace("hf_...", TOKEN), str(text), "exec"), {})
    assert capsys.readouterr().out == f"{refs['main']} 24000 ('speaks',)\n"
    assert files_in(Path("folder")) == pushed(server, "ME/NAME")
    assert server.repositories["ME/NAME"].private


def test_what_users_of_other_models_ask_for(speaks):
    assert isinstance(speaks, mdmspeech.PretrainedAssistant) and speaks.voices == ("speaks",)
    assert speaks.sample_rate == speaks.voice().codec.sample_rate == 24_000
    assert speaks.block == speaks.voice().block > 1
    with pytest.raises(AttributeError, match="no attribute 'loads'"):
        mdmspeech.loads  # noqa: B018


def test_what_was_saved_is_saved_again(server, speaks, tmp_path):
    assert speaks.save_pretrained(tmp_path / "one") is None
    url = PretrainedAssistant.from_pretrained(tmp_path / "one").save_pretrained(
        tmp_path / "two", push_to_hub=True, repo_id="me/two", private=True
    )
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two") == pushed(server, "me/two")
    assert url.startswith(f"{server.url}/me/two/commit/") and server.repositories["me/two"].private


def test_how_the_hub_is_asked(server, published, tmp_path):
    server.add("me/speaks", published / "speaks", private=True)
    how = {"token": TOKEN, "cache_dir": tmp_path / "cache"}
    first = PretrainedAssistant.from_pretrained("me/speaks", **how)
    assert (tmp_path / "cache").is_dir() and not (tmp_path / "home").exists()
    server.forget()
    again = PretrainedAssistant.from_pretrained("me/speaks", local_files_only=True, **how)
    assert again.commit_hash == first.commit_hash and not server.requests
    PretrainedAssistant.from_pretrained("me/speaks", force_download=True, **how)
    assert sorted(server.downloads()) == ["codec.safetensors", "config.json", "talker.safetensors"]
    assert set(server.tokens) == {TOKEN, ""}


@pytest.mark.slow
def test_pretrained_parts_that_are_elsewhere_are_put_in(server, hears, tmp_path):
    model = mdmspeech.load(hears)
    url = model.save_pretrained(tmp_path / "whole", push_to_hub=True, repo_id="me/whole")
    again = mdmspeech.load("me/whole", revision=url.rsplit("/", 1)[1])
    about = read_about(tmp_path / "whole")
    assert about.raw["thinker"] == "thinker" and about.raw["encoder"] == "encoder"
    assert set(about.raw["digests"]) == {"thinker", "encoder"}
    assert "# What it is" in (tmp_path / "whole" / "README.md").read_text()
    question = ["What is it?"]
    assert again.answer_many(question) == model.answer_many(question)
    assert again._release.prompt == model._release.prompt
    names = {name for name in pushed(server, "me/whole") if "/" in name}
    assert {
        "thinker/config.json",
        "thinker/model.safetensors",
        "encoder/model.safetensors",
    } <= names
    fetched = {path.name for path in (hub.find("me/whole") / "thinker").iterdir()}
    assert {f"thinker/{name}" for name in fetched} <= names and "tokenizer.json" in fetched


def test_another_thinker_takes_the_place_of_its_own(hears, tmp_path):
    llm = write_llm(tmp_path / "qwen", "qwen3", shards=2)
    mdmspeech.load(hears).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "thinker" / "model.safetensors").is_file()
    mdmspeech.load(hears, thinker=llm).save_pretrained(tmp_path / "saved")
    about = read_about(tmp_path / "saved")
    assert about.prompt.examples == () and read_about(hears).prompt.examples
    inside = {p.name: p.read_bytes() for p in (tmp_path / "saved" / "thinker").iterdir()}
    # nothing of the one before is left
    assert inside == {
        p.name: p.read_bytes()
        for p in llm.iterdir()
        if p.suffix in {".json", ".safetensors", ".txt", ".jinja"}
    }


def test_a_part_that_was_exchanged_is_stored_as_it_is(published, tmp_path):
    opened = load_release(published / "speaks")
    other = dataclasses.replace(opened.parts["codec"], params={**opened.parts["codec"].params})
    leaf = next(iter(other.params))
    other.params[leaf] = _plus(other.params[leaf])
    release = dataclasses.replace(opened, parts={**opened.parts, "codec": other})
    copy_release(tmp_path / "copy", release, changed=("codec",))
    again = load_release(tmp_path / "copy")
    assert read_about(tmp_path / "copy").raw["parts"]["codec"]["dtype"] == "float32"
    flat = lambda part: dict(_leaves(part.params))
    assert all(np.array_equal(v, flat(other)[k]) for k, v in flat(again.parts["codec"]).items())
    assert all(
        np.array_equal(v, flat(opened.parts["talker"])[k])
        for k, v in flat(again.parts["talker"]).items()
    )


def _plus(tree):
    return (
        {k: _plus(v) for k, v in tree.items()}
        if isinstance(tree, dict)
        else tree + np.float32(1e-5)
    )


def _leaves(tree, path=""):
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{path}/{key}")]


# ---- As the library's own mixin -----------------------------------------------------------------

# of configs and cards, which a release brings itself; of patterns, which would push half of one
_NOT_OURS = {"config", "model_card_kwargs", "allow_patterns", "ignore_patterns", "delete_patterns"}


@pytest.mark.parametrize("name", ["from_pretrained", "save_pretrained", "push_to_hub"])
def test_the_arguments_are_those_of_the_mixin(name):
    from huggingface_hub import ModelHubMixin

    theirs, ours = (
        inspect.signature(getattr(kind, name)).parameters
        for kind in (ModelHubMixin, PretrainedAssistant)
    )
    for key, wanted in theirs.items():
        if wanted.kind != inspect.Parameter.VAR_KEYWORD and key not in _NOT_OURS:
            assert ours[key].kind == wanted.kind, key
            if key != "commit_message":
                assert ours[key].default == wanted.default, key


# ---- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repo_id", "token", "told"),
    [
        ("me/speaks", "", "nobody is logged in; `hf auth login`"),
        ("me/speaks", "hf_wrong", "with a token that may write there"),
        ("others/speaks", TOKEN, "You don't have the rights|with a token that may write"),
        ("a/b/c", TOKEN, "name a repository, OWNER/NAME"),
        ("me/speaks@main", TOKEN, "name a repository, OWNER/NAME"),
        ("", TOKEN, "name a repository, OWNER/NAME"),
        ("../me", TOKEN, "name a repository, OWNER/NAME"),
    ],
)
def test_who_may_not_push_is_told(server, speaks, monkeypatch, repo_id, token, told):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=told):
        speaks.push_to_hub(repo_id)
    assert not server.repositories


def test_a_hub_that_fails_is_told(server, speaks, tmp_path):
    with pytest.raises(UserError, match="check the owner's name and the branch"):
        speaks.push_to_hub("me/speaks", branch="gone")
    server.broken = 503
    with pytest.raises(TryAgainError, match="nothing was changed there, try again"):
        speaks.push_to_hub("me/speaks")
    server.broken = 0
    assert "/discussions/" in speaks.push_to_hub("me/speaks", create_pr=True)
    assert not server.repositories["me/speaks"].refs.get("main")


def test_metadata_that_the_hub_does_not_take(server, published, tmp_path):
    release = load_release(published / "speaks")
    save_release(tmp_path / "odd", release, "---\nlicense: my own\n---\n# It\n")
    with pytest.raises(UserError, match=r"refuses it: .*metadata"):
        mdmspeech.load(tmp_path / "odd").push_to_hub("me/odd")
    assert not server.repositories["me/odd"].commits


def test_a_folder_of_something_else_stays_as_it_is(speaks, published, tmp_path):
    (tmp_path / "notes.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else than a release"):
        speaks.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is the release itself"):
        speaks.save_pretrained(published / "speaks")
    with pytest.raises(UserError, match="private is for pushing"):
        speaks.save_pretrained(tmp_path / "new", private=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_release_on_a_full_disk_stays_as_it_was(speaks, tmp_path, monkeypatch):
    speaks.save_pretrained(tmp_path / "saved")
    before = files_in(tmp_path / "saved")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mdmspeech.interop.copying.shutil.copyfile", full)
    with pytest.raises(UserError, match="no space left on device"):
        speaks.save_pretrained(tmp_path / "saved")
    assert files_in(tmp_path / "saved") == before


# ---- On the command line ------------------------------------------------------------------------


def test_a_verb_takes_the_name_and_prints_the_commit(server, published, tmp_path, capsys):
    commit = server.add("me/speaks", published / "speaks")
    out = ["-o", str(tmp_path / "a.wav"), "--steps", "2"]
    assert main(["say", TEXT, "--model", "me/speaks", *out]) == 0
    err = capsys.readouterr().err
    assert err.count(f"mdmspeech: me/speaks: commit {commit} of the Hugging Face Hub\n") == 1
    assert (tmp_path / "a.wav").stat().st_size > 1000
    for name, told in {
        "me/gone": "no such repository",
        "me/speaks@v2": "has no revision v2",
    }.items():
        assert main(["say", TEXT, "--model", name, *out]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_release_pushes_and_takes_a_base_from_the_hub(server, published, tmp_path):
    """In a process of its own, which reads the environment as a user's does."""
    server.add("me/speaks", published / "speaks")
    where = {**os.environ, **environment(server.url, tmp_path / "home"), "HF_TOKEN": TOKEN}
    argv = [
        "release",
        "--base",
        "me/speaks@main",
        "-o",
        "made",
        "--push",
        "me/made",
        "--license",
        "mit",
    ]
    run = [sys.executable, "-m", "mdmspeech", *argv, "--datasets", "me/data"]
    done = subprocess.run(run, env=where, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"pushed: {server.url}/me/made/commit/" in done.stdout
    assert "mdmspeech: me/speaks: commit" in done.stderr
    assert pushed(server, "me/made") == files_in(tmp_path / "made")
    card = (tmp_path / "made" / "README.md").read_text()
    assert "license: mit" in card and "- me/data" in card and not problems_of(card)


@pytest.mark.parametrize("how", ["logged out", "a Thinker elsewhere"])
def test_release_refuses_to_push_before_it_writes(
    server, hears, tmp_path, capsys, monkeypatch, how
):
    monkeypatch.setenv("HF_TOKEN", "" if how == "logged out" else TOKEN)
    assert main(["release", "--base", str(hears), "-o", "made", "--push", "me/made"]) == 2
    told = {"logged out": "nobody is logged in", "a Thinker elsewhere": "which others do not have"}
    assert told[how] in capsys.readouterr().err
    assert not (tmp_path / "made").exists() and not server.requests


def test_parts_of_a_system_from_the_hub_are_trained(server, system):
    """As of the folder that its other processes find in the cache."""
    commit = server.add("me/system", system)
    config = load_config(str(Path(__file__).parents[2] / "experiments" / "talker_8b.py"))
    use_system(config, "me/system")
    hub._opened.clear()
    folder = Path(config.init_from)
    assert folder.name == commit and config.weights.thinker == str(folder / "thinker")
    server.forget()
    assert set(load_release(folder).parts) == set(load_release(system).parts)
    opened = load_thinker(config.weights.thinker)
    assert opened.config == load_thinker(system / "thinker").config
    assert load_tokenizer(config.weights.tokenizer).encode(TEXT) == opened.tokenizer.encode(TEXT)
    assert not server.requests


def test_a_system_is_assembled_of_parts_from_the_hub(server, published, tmp_path):
    server.add("me/speaks", published / "speaks")
    argv = [
        "assemble",
        "-o",
        "made",
        "--thinker",
        str(published / "thinker"),
        "--codec",
        "me/speaks",
    ]
    assert (
        main(
            [
                *argv,
                "--talker",
                "me/speaks",
                "--talker-sizes",
                "",
                "--encoder",
                str(published / "whisper"),
            ]
        )
        == 0
    )
    about = read_about(tmp_path / "made")
    assert set(about.parts) >= {"codec", "talker", "adaptor"} and "adaptor" in about.untrained
    assert not problems_of((tmp_path / "made" / "README.md").read_text())
