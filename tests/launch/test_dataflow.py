"""The launcher of a preparation: what its dry run prints, quoted so that Dataflow gets it, and what it
refuses.
"""

import argparse
import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_launch import ROOT, files, launch

OURS = ["--name", "prep", "--data", "gs://bucket/a corpus", "--project", "proj", "--region",
    "us-central1", "--image", "registry/x:1", "--service-account", "w@proj.iam"]  # fmt: skip
ASKED = [
    "--import",
    "gs://bucket/raw it's",
    "--name",
    "mine",
    "--option",
    'speaker=a "b"',
    "--tokens",
]


@pytest.fixture(scope="module")
def script():
    result = launch("dataflow", *OURS, "--", *ASKED)
    assert result.returncode == 0 and "nothing was done" in result.stderr
    return result.stdout


def job(script: str) -> list[str]:
    """The words of the command that starts the job."""
    line = next(line for line in script.splitlines() if "bin/mdmspeech" in line)
    return shlex.split(line)


def test_the_steps_come_in_order_and_bash_reads_them(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    position = 0
    for words in ("git ls-files", "Dockerfile", "gcloud builds submit", "python3.11 -m venv",
                  "pip install", "mdmspeech data"):  # fmt: skip
        position = script.index(words, position)


def test_the_job_gets_what_was_asked_for_and_where(script):
    words = job(script)
    assert words[1 : 2 + len(ASKED)] == ["data", *ASKED]
    rest = words[2 + len(ASKED) :]
    assert rest[:5] == [
        "--root",
        "gs://bucket/a corpus",
        "--runner",
        "DataflowRunner",
        "--beam-args",
    ]
    arguments = shlex.split(rest[5])
    for expected in ("--project=proj", "--region=us-central1", "--job_name=prep",
                     "--sdk_container_image=registry/x:1", "--sdk_location=container",
                     "--temp_location=gs://bucket/a corpus/dataflow/temp",
                     "--service_account_email=w@proj.iam"):  # fmt: skip
        assert expected in arguments


def test_mdmspeech_data_takes_the_command(script):
    """As its own parser reads it, up to the corpus, which is not there."""
    from mdmspeech.cli import data

    words, parser = job(script), argparse.ArgumentParser()
    data.add(parser.add_subparsers())
    given = parser.parse_args(words[1:])
    assert given.source == ASKED[1] and given.runner == "DataflowRunner" and given.tokens
    assert "--job_name=prep" in shlex.split(given.beam_args)


@pytest.mark.beam
def test_beam_takes_its_arguments(script):
    from apache_beam.options.pipeline_options import PipelineOptions

    arguments = shlex.split(job(script)[-1])
    known = PipelineOptions(arguments).get_all_options(drop_default=True)
    for word in arguments:
        name, _, value = word.removeprefix("--").partition("=")
        assert str(known[name]) == value, word


def test_one_version_of_beam_everywhere(script):
    (dockerfile,) = [text for path, text in files(script).items() if path.endswith("Dockerfile")]
    versions = set(re.findall(r"beam_python3.11_sdk:([\d.]+)|apache-beam==([\d.]+)", dockerfile))
    (version,) = {a or b for a, b in versions}
    assert f"apache-beam[gcp]=={version}" in job_install(script)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lower = re.search(r"apache-beam>=([\d.]+)", config["options.extras_require"]["beam"])
    assert version.startswith(lower[1])
    assert "-c constraints.txt" not in dockerfile


def job_install(script: str) -> list[str]:
    return shlex.split(
        next(line for line in script.splitlines() if "pip install" in line and "[gcp]" in line)
    )


@pytest.mark.parametrize(
    ("ours", "asked", "told"),
    [
        (["--name", "Prep"], ASKED, "lower case"),
        (["--data", "/disk/corpus"], ASKED, "share no disk"),
        (["--data", "bucket/corpus"], ASKED, "share no disk"),
        (["--temp", "/tmp"], ASKED, "--temp /tmp"),
        (["--max-workers", "0"], ASKED, "must be 1 or more"),
        (["--disk", "-1"], ASKED, "must be 1 or more"),
        ([], ["--name", "mine"], "say what to prepare"),
        ([], ["--import", "/disk/raw"], "copy it to a bucket"),
        ([], ["--import=/disk/raw"], "copy it to a bucket"),
        ([], ["--import"], "copy it to a bucket"),
        ([], [*ASKED, "--root", "gs://b/c"], "--root follows from"),
        ([], [*ASKED, "--runner=FlinkRunner"], "--runner follows from"),
        ([], [*ASKED, "--beam-args", "--x"], "--beam-args follows from"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line_and_exit_code_2(ours, asked, told):
    result = launch("dataflow", *OURS, *ours, "--", *asked)
    assert result.returncode == 2 and told in result.stderr and not result.stdout
