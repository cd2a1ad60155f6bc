"""Packing at the size of a large corpus: how long a Talker's run takes to its first batch, and how
much memory it holds, with millions of utterances.

Command: python -m experiments.bench_index [--records N] (a minute for 5 million on 2 cores). Not an
  experiment with a config, and no test of speed.

The index is synthetic (lengths drawn like those of our corpus, written to disk as a dataset has
it) and has no shards: what is measured is what grows with the number of records, that is the
columns, the sizes that are packed and the shuffles. Rows are packed, not read. Memory is what the
process has grown by, its own pages (RssAnon) and with those of mapped files (RSS).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mdmspeech.data.datasets.index import write_columns
from mdmspeech.data.datasets.reader import Dataset, Subset
from mdmspeech.data.packing.plan import PackPlan
from mdmspeech.data.pipelines.talker_packed import whole_blocks

BLOCK, ROWS, LENGTH, SYMBOLS = 16, 512, 1024, 640
SHARD = 20_000  # records


def write_index(folder: Path, records: int) -> None:
    """An index of so many utterances; seven seconds are usual, a few last thirty."""
    rng = np.random.default_rng(0)
    tokens = np.clip(rng.lognormal(4.9, 0.5, records), 20, 740).astype(np.int32)
    counts = [min(SHARD, records - first) for first in range(0, records, SHARD)]
    about = {
        "kind": "tokens",
        "width": None,
        "version": "2.0.0",
        "shards": [{"records": n, "bytes": 0, "checksum": ""} for n in counts],
    }
    columns = {"tokens": tokens, "symbols": (tokens * 0.55).astype(np.int32) + 2}
    columns["digest"] = rng.integers(0, 2**32, records, dtype=np.uint32)
    write_columns(folder / "index-train.safetensors", columns, about)


def memory() -> dict[str, int]:
    """Bytes that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if "kB" in line}
    return {"own": int(found["RssAnon"]) * 1024, "with files": int(found["VmRSS"]) * 1024}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--records", type=int, default=5_000_000)
    records = parser.parse_args(arguments).records
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), records)
        before, began = memory(), time.perf_counter()
        source = Subset([Dataset(folder, "train")])
        tokens = whole_blocks(np.asarray(source.counts("tokens")), BLOCK)
        sizes = np.stack([tokens, source.counts("symbols")], axis=1, dtype=np.int32)
        plan = PackPlan({"all": sizes}, {"tokens": LENGTH, "symbols": SYMBOLS}, batch=ROWS, seed=0)
        plan[0]
        first = time.perf_counter() - began
        rates = []
        for stretch in range(5):
            at = time.perf_counter()
            for k in range(1 + 20 * stretch, 21 + 20 * stretch):
                plan[k]
            rates.append(20 / (time.perf_counter() - at))
        at = time.perf_counter()
        plan.fingerprint  # noqa: B018 (computed once: what a checkpoint stores)
        stamp = time.perf_counter() - at
        held = {name: value - before[name] for name, value in memory().items()}
    found = {
        "seconds_to_first_batch": first + stamp,
        "bytes_a_record": held["own"] / records,
        "bytes_a_record_with_files": held["with files"] / records,
        "batches_per_second": statistics.median(rates),
    }
    print(
        f"{records:,} utterances: first batch after {found['seconds_to_first_batch']:.2f} s; "
        f"{found['bytes_a_record']:.0f} bytes an utterance "
        f"({found['bytes_a_record_with_files']:.0f} with mapped files); "
        f"{found['batches_per_second']:.0f} batches/s of {ROWS} rows of {LENGTH} tokens"
    )
    return found


if __name__ == "__main__":
    main()
