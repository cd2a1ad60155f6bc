"""The whole preparation on Beam: exact counts of 1,000 recordings, killed and restarted, one worker or
two. These need apache-beam: `make test-beam`.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.beam
GOOD, BAD, UNITS, KILLS = 970, 30, 16, 5
ROOT = Path(__file__).parents[2]


def command(corpus: Path, root: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "mdmspeech", "data", "--import", str(corpus), "--name", "mine",
        "--root", str(root), "--shards", str(UNITS), "--workers", "1", *more,
    ]  # fmt: skip


def run(corpus: Path, root: Path, *more: str) -> str:
    done = subprocess.run(
        command(corpus, root, *more), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def dataset(root: Path, kind: str = "recordings") -> Path:
    return next((root / "datasets" / kind / "mine").glob("[0-9]*"))


def sums(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def parts(root: Path) -> dict[str, int]:
    """Finished units -> when."""
    work = root / "datasets" / "recordings" / "mine" / ".work"
    return {path.name: path.stat().st_mtime_ns for path in work.glob("part-*.safetensors")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    from planted_corpus import plant

    folder = tmp_path_factory.mktemp("planted") / "corpus"
    return folder, plant(folder, GOOD, BAD)


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return root, run(planted[0], root)


def test_a_thousand_with_thirty_bad_ones_are_counted_exactly(planted, made):
    (_, bad), (root, printed) = planted, made
    assert len(bad) == BAD and f"mine: {GOOD} of {GOOD + BAD:,} records" in printed
    told = json.loads((dataset(root) / "statistics.json").read_text())
    at_import = sum(stage == "import" for stage, _ in bad.values())
    assert told["stages"] == {
        "import": {"in": GOOD + BAD, "out": GOOD + BAD - at_import, "rejected": at_import},
        "clean": {"in": GOOD + BAD - at_import, "out": GOOD, "rejected": BAD - at_import},
    }
    letters = (dataset(root) / "dead_letters.jsonl").read_text().splitlines()
    assert {x["where"]: (x["stage"], x["kind"]) for x in map(json.loads, letters)} == bad
    assert told["records"] == GOOD and len(parts(root)) == UNITS


def test_training_and_tfds_open_it(made):
    import tensorflow_datasets as tfds

    from mdmspeech.data.datasets import corpus

    builder = tfds.builder_from_directory(dataset(made[0]))
    found = set()
    for split in builder.info.splits:
        ours, theirs = corpus.speech(made[0], ("mine",), split), builder.as_data_source(split=split)
        assert len(ours) == len(theirs)
        found |= {theirs[i]["id"].decode() for i in range(len(theirs))}
        record = ours[len(ours) - 1]
        assert len(record["audio"]) == 9600 and record["rate"] == 24_000 and len(record["symbols"])
    assert found == {f"{number:05d}.wav" for number in range(GOOD)}


def test_killed_at_random_moments_and_restarted_it_is_the_same(planted, made, tmp_path):
    draw = random.Random(os.environ.get("MDMSPEECH_SEED", "13"))
    moments = sorted(draw.uniform(0, UNITS + 1) for _ in range(KILLS))
    for moment in moments:
        before = parts(tmp_path)
        running = subprocess.Popen(
            command(planted[0], tmp_path), cwd=ROOT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(parts(tmp_path)) < min(int(moment), UNITS) and running.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        # what was finished before is not made again
        assert before.items() <= parts(tmp_path).items()
    held = parts(tmp_path)
    assert held
    run(planted[0], tmp_path)
    assert held.items() <= parts(tmp_path).items()
    assert sums(dataset(tmp_path)) == sums(dataset(made[0]))


def test_two_workers_write_the_same_bytes(planted, made, tmp_path):
    run(planted[0], tmp_path, "--workers", "2")
    assert sums(dataset(tmp_path)) == sums(dataset(made[0]))


def test_a_finished_one_is_not_made_again(planted, made):
    root, printed = made
    before, files = parts(root), sums(dataset(root))
    assert run(planted[0], root) == printed
    assert parts(root) == before and sums(dataset(root)) == files


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_worker_cannot_do_is_one_line_and_exit_code_2(workers, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "m.jsonl").write_text('{"audio": "a.wav", "text": "a"}\n' * 2)
    done = subprocess.run(
        command(corpus, tmp_path / "root", "--workers", workers),
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr[-2000:]
    assert last.startswith(
        "mdmspeech data: none of the 2 records can be used, first: m.jsonl, line"
    )
    assert "while running" not in last and len(last) < 200
    assert not list((tmp_path / "root").rglob("dataset_info.json"))
