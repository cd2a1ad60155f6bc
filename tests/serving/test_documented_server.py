"""What docs/serving.md shows runs as it stands, and its tables name what there is."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from plain_http import ask

from mdmspeech.cli import serve
from mdmspeech.serving import page
from mdmspeech.serving.encoders import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
SHOWN = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def shown(running, tmp_path_factory):
    """The server of the page, and a folder with a question."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy(str(resources.files("mdmspeech") / "assets" / "question.wav"), folder)
    with running(model_id="compact") as server:
        yield server, folder


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here: apt-get install curl")
def test_its_commands(shown):
    server, folder = shown
    answers = []
    for line in re.findall(r"^curl .*$", PAGE, re.M):
        command = [*shlex.split(line.replace(SHOWN, server.url)), "--fail-with-body"]
        made = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert made.returncode == 0, (line, made.stdout)
        answers.append(made.stdout)
    speech, heard, chat, metrics = answers
    assert not speech and (folder / "hello.mp3").stat().st_size > 1000
    assert json.loads(heard)["text"] and json.loads(chat)["choices"]
    assert b"mdmspeech_requests_success_total" in metrics


def test_its_example(shown, monkeypatch, capsys):
    server, folder = shown
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    monkeypatch.chdir(folder)
    exec(compile(example.replace(SHOWN, server.url), "docs/serving.md", "exec"), {})
    *samples, transcript = capsys.readouterr().out.splitlines()
    assert samples and all(line.endswith(" samples to play") for line in samples) and transcript


def test_it_names_every_address_flag_format_and_metric(shown):
    server, _ = shown
    for route in server.app.router.routes():
        if route.resource.canonical in set(page.PATHS) - {"/"}:
            continue  # told together
        path = route.resource.canonical.replace("/v1/models/{model}", "/v1/models/NAME")
        assert f" {path}`" in PAGE or f"`{path}`" in PAGE, path
    parser = argparse.ArgumentParser().add_subparsers()
    serve.add(parser)
    flags = [flag for action in parser.choices["serve"]._actions for flag in action.option_strings]
    told_elsewhere = {"-h", "--help", "--voice", "--thinker", "--dtype", "--quiet", "--port"}
    assert [flag for flag in flags if flag not in told_elsewhere and flag not in PAGE] == []
    assert [name for name in FORMATS if f"| {name} |" not in PAGE] == []
    metrics = set(re.findall(r"^mdmspeech_(\w+?)(?:_bucket|_sum|_count|_created)?[ {]",
                             ask(server, "GET", "/metrics")[2].decode(), re.M))  # fmt: skip
    metrics -= {"audio_continuity_ok", "requests_success", "cancels"}  # when they were made
    assert [name for name in metrics if f"_{name}" not in PAGE] == []
