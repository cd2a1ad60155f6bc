"""How each documented command is tried. One that matches none of these tables is a failure."""

import re
import shlex

from documented import (
    MARKDOWN,
    docstring_commands,
    experiments,
    markdown_commands,
    notebook_commands,
    notebooks,
)

# Ways of the pages' blocks; the way from published checkpoints has lines of its own.
BLOCKS = {
    "16 kHz wave -> Whisper encoder": "data",
    '{"audio": "wavs/0001.wav"': "data",
    "make ": "make",
    ".venv/bin/mdmspeech chat your.wav ": "talk",
    ".venv/bin/mdmspeech chat question.wav --thinker ": "parse",
    '.venv/bin/mdmspeech say "Masked diffusion can talk." ': "talk",
    ".venv/bin/mdmspeech say - ": "talk",
    ".venv/bin/mdmspeech data --manifest my/manifest.jsonl --name mine": "own voice",
    '.venv/bin/mdmspeech say "This is my voice now." ': "own voice",
    ".venv/bin/mdmspeech train --config experiments/": "train",
    ".venv/bin/mdmspeech plan ": "plan",
    ".venv/bin/mdmspeech cost ": "parse",
    ".venv/bin/mdmspeech serve": "parse",  # tests/serving
    ".venv/bin/mdmspeech talk": "parse",  # tests/serving/terminal
    "python launch/": "launch",
    "mdmspeech ": "parse",
    "[#####       ] listening": "data",  # what `talk` looks like
    "you: ": "data",
    "it:  ": "data",
    "(first sound ": "data",
    "curl -s http://127.0.0.1:8000/": "served",  # tests/serving/test_documented_server.py
    "pip install ": "not ours",
    ".venv/bin/pip install ": "not ours",
    ".venv/bin/hf download ": "not ours",
    "docker ": "container",  # tests/serving/test_container.py
    "gcloud storage cp ": "not ours",
    "$M ": "published checkpoints",
    "M=.venv/bin/mdmspeech": "published checkpoints",
}
# Ways of the commands in running text and in docstrings: some are incomplete, some not ours.
OTHERS = {
    r"make [\w-]+( \w+=\S+)*": "make",
    r"mdmspeech --help": "parse",
    r"mdmspeech( (assemble|convert|preflight|release|voice))?": "verb",
    (
        r"mdmspeech train --config experiments/\w+\.py(:\w+)?( --workdir \S+)?( "
        r"--data \S+)?( --set \S+)*"
    ): "train",
    (
        r"(python -m )?mdmspeech (eval|data|release|convert|plan|cost|preflight|train|ladder|bench|"
        r"serve|talk|chat)( .*)?"
    ): "parse",
    r"python -m experiments\.\w+( .*)?": "module",
    r"python -m mdmspeech\.serving\.health": "container",
    r"python -c .*convert_lm.*": "convert_lm",
    r"(hf (download|cache|auth)|pip install) .*": "not ours",
}


def way_of(command: str, block: bool) -> str:
    """How a command is tried. A new kind of command has to be put into a table above."""
    if block:
        ways = {way for start, way in BLOCKS.items() if command.startswith(start)}
    else:
        ways = {
            next((way for pattern, way in OTHERS.items() if re.fullmatch(pattern, command)), "")
        } - {""}
    assert len(ways) == 1, (
        f"{command!r} is documented and tried in {len(ways)} ways: "
        "say in tests/cli/documented_ways.py how it is to be tried"
    )
    return ways.pop()


def shown() -> dict[str, str]:
    """Every documented command -> its way."""
    found = {}
    for path in MARKDOWN:
        commands = markdown_commands(path)
        found |= {command: way_of(command, True) for command in commands["block"]}
        found |= {
            command: way_of(command, False)
            for command in commands["inline"]
            if command != "mdmspeech data --manifest"
        }
    for path in experiments():
        found |= {command: way_of(command, False) for command in docstring_commands(path)}
    for path in notebooks():
        found |= {command: way_of(command, False) for command in notebook_commands(path)}
    return found


SHOWN = shown()
of_way = lambda *ways: sorted(command for command, way in SHOWN.items() if way in ways)


def words(command: str) -> list[str]:
    """The arguments after the program."""
    return shlex.split(command.removeprefix("python -m ").replace("[", "").replace("]", ""))[1:]
