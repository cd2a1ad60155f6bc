"""Reading ArrayRecord shards at random from a bucket, against the same from a disk.

Command: python -m experiments.bench_bucket (about a minute on 2 cores; needs the extra `dev`). Not
  an experiment with a config, and no test.

Records are cuts of the shipped question, 2 s of 24 kHz int16 (96 kB), 4 shards of 100, read in
random order in batches of 32, with the next three batches fetched ahead. The bucket is
gcp-storage-emulator behind our proxy, both in a process of their own on this machine: a bucket that
is near, and slow, as one thread of Python serves it. "with work" waits 0.2 s after every batch, as
a training step does; the first three batches are not counted.

Seen, on 2 quiet cores of an AMD EPYC (2026-11-28, medians of three): disk 4,461 records/s, server
759, with 2 % of failures 579; with work 146, 133 and 129: 0.91 and 0.88 of the disk's, the same
records. The bucket is a thread of Python on the same two cores. zstd:1 leaves 70 % of the bytes.
"""

import contextlib
import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdmspeech import remote
from mdmspeech.audio.wave import load_wave
from mdmspeech.data.datasets.array_record import Shard, write_shard

SHARDS, RECORDS, BATCH, AHEAD, UNCOUNTED = 4, 100, 32, 3, 3
SECONDS, RATE = 2, 24_000
QUESTION = Path(__file__).parents[1] / "mdmspeech" / "assets" / "question.wav"


def speech(count: int) -> list[bytes]:
    """Records of speech, each at a loudness and an offset of its own."""
    wave, draw = load_wave(QUESTION, RATE), np.random.default_rng(0)
    wave = np.tile(wave, 1 + SECONDS * RATE // len(wave))
    cuts = [np.roll(wave, int(draw.integers(len(wave))))[: SECONDS * RATE] for _ in range(count)]
    return [(cut * draw.uniform(8_000, 30_000)).astype(np.int16).tobytes() for cut in cuts]


def serve(share: float, address) -> None:
    """A bucket `b` whose requests fail with this share, until the process is ended."""
    from tests.support.bucket_server import bucket_server

    with bucket_server("b") as proxy:
        address.send(proxy.server_address[:2])
        address.recv()
        proxy.share(share, ("503", "429", "reset", "cut", "slow"))
        address.send(None)
        address.recv()


@contextlib.contextmanager
def bucket(share: float, folder: Path):
    """gs://b with the shards of `folder`."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(share, theirs), daemon=True)
    server.start()
    try:
        host, port = ours.recv()
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://{host}:{port}"
        for name in sorted(os.listdir(folder)):
            remote.upload(folder / name, f"gs://b/{name}")
        ours.send(None)
        ours.recv()
        yield "gs://b"
    finally:
        server.terminate()
        server.join()


def rate(folder: str, work: float) -> tuple[float, str]:
    """Records/s after the first batches, and a digest of all that was read."""
    shards = [Shard(remote.join(folder, f"{n}.array_record"), RECORDS) for n in range(SHARDS)]
    order = np.random.default_rng(1).permutation(SHARDS * RECORDS)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    digest, began, counted = hashlib.sha256(), 0.0, 0
    for number, batch in enumerate(batches):
        if number == UNCOUNTED:
            began, counted = time.perf_counter(), 0
        last = number + AHEAD
        for ahead in batches[1:last] if number == 0 else batches[last : last + 1]:
            for shard, wanted in by_shard(shards, ahead):
                shard.prefetch(wanted)
        for shard, wanted in by_shard(shards, batch):
            for record in shard.read(wanted):
                digest.update(record)
        counted += len(batch)
        time.sleep(work)
    seconds = time.perf_counter() - began
    for shard in shards:
        shard.close()
    return counted / seconds, digest.hexdigest()


def by_shard(shards: Sequence[Shard], batch: np.ndarray) -> list[tuple[Shard, list[int]]]:
    """Each shard with its records of a batch."""
    return [
        (shard, (batch[batch // RECORDS == n] % RECORDS).tolist()) for n, shard in enumerate(shards)
    ]


def compression(folder: Path, records: Sequence[bytes]) -> None:
    """Bytes, and seconds to write and to read, by array_record's options."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    print("\n| compression | bytes | write MB/s | read MB/s |\n|---|---|---|---|")
    total = sum(map(len, records))
    for options in ("uncompressed", "snappy", "zstd:1", "zstd:3", "zstd:9"):
        path, start = str(folder / "x"), time.perf_counter()
        writer = ArrayRecordWriter(path, f"group_size:1,{options}")
        for record in records:
            writer.write(record)
        writer.close()
        wrote, start = time.perf_counter() - start, time.perf_counter()
        assert ArrayRecordReader(path, "readahead_buffer_size:0").read_all() == list(records)
        read = time.perf_counter() - start
        size = os.path.getsize(path) / total
        print(f"| {options} | {size:.3f} | {total / wrote / 1e6:.0f} | {total / read / 1e6:.0f} |")
    os.unlink(path)


def main() -> None:
    """Prints two tables."""
    records = speech(SHARDS * RECORDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shards"
        compression(Path(name), records)
        for n in range(SHARDS):
            part = records[n * RECORDS : (n + 1) * RECORDS]
            write_shard(folder / f"{n}.array_record", part)
        print("\n| place | records/s | with work | of the disk's |\n|---|---|---|---|")
        disk, digests = {}, set()
        for place, share in (("disk", None), ("server", 0.0), ("server, 2 % fail", 0.02)):
            with contextlib.ExitStack() as stack:
                at = str(folder) if share is None else stack.enter_context(bucket(share, folder))
                found = {work: rate(at, work) for work in (0.0, 0.2)}
            disk = disk or {work: each[0] for work, each in found.items()}
            digests |= {each[1] for each in found.values()}
            print(
                f"| {place} | {found[0.0][0]:.0f} | {found[0.2][0]:.0f} | "
                f"{found[0.2][0] / disk[0.2]:.3f} |",
                flush=True,
            )
        assert len(digests) == 1, "not the same records"


if __name__ == "__main__":
    main()
