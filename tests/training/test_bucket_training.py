"""Real processes that train from a bucket: the run from a disk, bit for bit, though requests fail and
one of them is killed.
"""

import numpy as np
import pytest
from processes import assert_identical, last_row, start_together, steps_saved, wait_until

from mdmspeech.data.datasets import corpus
from mdmspeech.data.datasets.writer import write_dataset
from tests.support.bucket_server import bucket_server, reached

STEPS = 12
OPTIONS = ("--steps", STEPS, "--eval-every", 0, "--heartbeat-s", 10)
FAULTS = ("503", "429", "reset", "cut", "slow")


def write_tokens(root):
    rng = np.random.default_rng(0)
    rows = []
    for n in range(80):
        count = int(rng.integers(5, 40))
        rows.append(
            {
                "id": f"r{n}",
                "text": f"Number {n}.",
                "tokens": rng.integers(0, 6561, count),
                "symbols": rng.integers(0, 100, count // 3 + 1),
                "frames": np.full(count // 3 + 1, 2),
            }
        )
    folder = corpus.folder_of(root, "tokens", "open")
    write_dataset(folder, "tokens", {"train": rows}, shard_bytes=3000)


def trained(workdir, data):
    processes = start_together(workdir, 2, *OPTIONS, "--data", data)
    assert [p.ended() for p in processes] == [0, 0], "\n".join(p.log for p in processes)


@pytest.mark.full  # six processes
def test_two_processes_one_killed_with_failing_requests(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "copies"))
    write_tokens(tmp_path / "corpus")
    trained(tmp_path / "disk", tmp_path / "corpus")
    with bucket_server("b") as proxy, reached(proxy):
        write_tokens("gs://b/corpus")
        proxy.share(0.02, FAULTS)
        workdir = tmp_path / "bucket"
        processes = start_together(workdir, 2, *OPTIONS, "--data", "gs://b/corpus", "--pause", 0.3)
        wait_until(lambda: steps_saved(workdir)[-1:] >= [4], processes)
        processes[1].kill()
        assert processes[0].ended() != 0 and last_row(workdir) < STEPS
        trained(workdir, "gs://b/corpus")
        assert proxy.failed > 0 and any("array_record" in line for line in proxy.requests)
    assert_identical(tmp_path / "disk", workdir)
