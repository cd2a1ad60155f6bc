"""ArrayRecord shards: what was written is read, from a disk and from a bucket, and never anything
else.
"""

import itertools
import os
import pickle
import threading
import time

import numpy as np
import pytest

from mdmspeech import remote
from mdmspeech.data.datasets import ranged_reader, read_ahead
from mdmspeech.data.datasets.array_record import Shard, write_shard
from mdmspeech.errors import UserError
from tests.support.bucket_server import bucket_server, reached


@pytest.fixture(scope="module")
def server():
    with bucket_server("b") as proxy:
        yield proxy


@pytest.fixture
def gs(server):
    server.reset()
    with reached(server):
        yield server


@pytest.fixture(params=["disk", "memory", "gs"])
def folder(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path)
    if request.param == "gs":
        request.getfixturevalue("gs")
    return f"{request.param}://b/{tmp_path.name}"


def some_records(count: int, longest: int, seed: int = 0) -> list[bytes]:
    draw = np.random.default_rng(seed)
    return [draw.bytes(int(draw.integers(0, longest + 1))) for _ in range(count)]


RECORDS = some_records(60, 30_000)


def written(path: str, records: list[bytes], options: str) -> None:
    """By array_record's own writer, with options that we do not use ourselves."""
    from array_record.python.array_record_module import ArrayRecordWriter

    local = remote.local(path if not remote.is_remote(path) else f"/tmp/{os.getpid()}.array_record")
    writer = ArrayRecordWriter(str(local), options)
    for record in records:
        writer.write(record)
    writer.close()
    if remote.is_remote(path):
        remote.upload(local, path)
        local.unlink()


def test_written_is_read(folder):
    path = remote.join(folder, "x.array_record-00000-of-00001")
    info = write_shard(path, iter(RECORDS))
    assert (info.records, info.bytes) == (len(RECORDS), remote.size(path))
    assert info.checksum == remote.sha256(path)
    shard = Shard(path)
    order = [int(i) for i in np.random.default_rng(1).permutation(len(RECORDS))]
    assert len(shard) == len(RECORDS)
    assert shard.read(order) == [RECORDS[i] for i in order]
    assert shard.read([7, 7, 3, 7]) == [RECORDS[i] for i in (7, 7, 3, 7)]
    assert shard.read([]) == []
    assert shard.read(np.asarray([59, 0])) == [RECORDS[59], RECORDS[0]]
    shard.prefetch(order)
    assert shard.read(order) == [RECORDS[i] for i in order]
    for wrong in (-1, len(RECORDS), 10**12):
        with pytest.raises(IndexError, match=f"60 records, no record {wrong}"):
            shard.read([0, wrong])
    shard.close()
    shard.close()
    assert shard.read([5]) == [RECORDS[5]]
    again = pickle.loads(pickle.dumps(shard))  # noqa: S301
    assert again.read([6]) == [RECORDS[6]]


@pytest.mark.parametrize(
    ("options", "count", "longest"),
    [
        ("group_size:1", 40, 20_000),
        ("group_size:1,zstd:9", 300, 30),
        ("group_size:7,brotli", 50, 20_000),
        ("group_size:16,snappy", 50, 5_000),
        ("group_size:5,transpose", 31, 20_000),
        ("group_size:1000", 12, 200_000),
        ("group_size:1,pad_to_block_boundary:true", 5, 100_000),
        ("group_size:3,uncompressed", 1, 0),
        ("group_size:1,uncompressed", 40_000, 0),
        ("group_size:1,uncompressed", 20, 65_536 * 3),
    ],
)
def test_files_of_others(options, count, longest):
    records = some_records(count, longest, seed=count)
    written("memory://b/other", records, options)
    shard = Shard("memory://b/other")
    order = [int(i) for i in np.random.default_rng(2).permutation(count)][:500]
    assert len(shard) == count
    assert shard.read(order) == [records[i] for i in order]
    assert shard.read([count - 1]) == [records[-1]]
    shard.close()


def test_no_records(folder):
    path = remote.join(folder, "empty")
    assert write_shard(path, []).records == 0
    assert len(Shard(path)) == 0
    with pytest.raises(IndexError, match="0 records"):
        Shard(path).read([0])


def test_nothing_is_opened_before_it_is_needed(gs):
    shard = Shard("gs://b/nowhere", records=10)
    assert len(shard) == 10 and not gs.requests
    with pytest.raises(UserError, match="gs://b/nowhere: there is no such object"):
        shard.read([0])


def test_neighbours_come_in_one_request(gs):
    write_shard("gs://b/near", RECORDS)
    shard = Shard("gs://b/near")
    assert len(shard) == 60
    gs.reset()
    shard.read(range(10, 40))
    assert len(gs.requests) == 1
    gs.reset()
    shard.read([0, 59])
    assert len(gs.requests) == 2
    shard.prefetch([3, 4, 30])
    shard.prefetch([3, 4, 30])
    assert shard.read([30, 3, 4]) == [RECORDS[i] for i in (30, 3, 4)]
    assert len(gs.requests) == 4
    shard.close()


@pytest.mark.parametrize("seed", range(20))
def test_groups_of_ranges(seed):
    """Every range is in one group, in order; no group is long for the sake of little."""
    draw = np.random.default_rng(seed)
    edges = np.cumsum(draw.integers(1, 1 << int(draw.integers(8, 24)), 60)).tolist()
    ranges = list(zip(edges[::2], edges[1::2], strict=True))
    groups = read_ahead.together(ranges)
    assert [each for group in groups for each in group] == ranges
    for group in groups:
        gaps = [later[0] - each[1] for each, later in itertools.pairwise(group)]
        assert max(gaps, default=0) <= 1 << 16
        assert len(group) == 1 or group[-1][1] - group[0][0] <= 8 << 20


def test_what_is_read_ahead_is_bounded(gs, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_READ_AHEAD_MB", "0.1")
    write_shard("gs://b/ahead", RECORDS)
    shard = Shard("gs://b/ahead")
    for start in range(0, 60, 5):
        shard.prefetch(range(start, start + 5))
        memory = read_ahead._of_process()
        held = sum(key[3] - key[2] for key in memory.held)
        assert held == memory.bytes <= 100_000
    assert shard.read(range(60)) == RECORDS
    shard.close()
    assert not memory.held and not memory.bytes


def test_what_was_read_takes_no_memory():
    size = write_shard("memory://b/room", RECORDS).bytes
    shard = Shard("memory://b/room")
    assert shard.read(range(60)) == RECORDS
    reader = shard._reader()
    taken = os.fstat(reader._file).st_blocks * 512
    assert taken < len(reader._tail) + 20_000 < size / 2
    shard.close()


def test_threads_share_a_shard():
    write_shard("memory://b/threads", RECORDS)
    shard, wrong = Shard("memory://b/threads"), []

    class Slow:
        """The same reader, which leaves others time to come in between."""

        def __init__(self, reader):
            self._reader = reader

        def __getattr__(self, name):
            return getattr(self._reader, name)

        def read(self, indices):
            time.sleep(0.002)
            return self._reader.read(indices)

    ranged = shard._reader()
    ranged._reader = Slow(ranged._reader)

    def reads(seed):
        draw = np.random.default_rng(seed)
        for _ in range(15):
            wanted = draw.integers(0, 60, 12).tolist()
            if draw.random() < 0.5:
                shard.prefetch(wanted)
            try:
                good = shard.read(wanted) == [RECORDS[i] for i in wanted]
            except UserError:
                good = False
            if not good:
                wrong.append(wanted)

    threads = [threading.Thread(target=reads, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    shard.close()


def test_forked_processes_read_the_same_shard(folder):
    path = remote.join(folder, "fork")
    write_shard(path, RECORDS)
    shard = Shard(path)
    assert shard.read([0, 1, 2]) == RECORDS[:3]
    children = []
    for number in range(2):
        child = os.fork()
        if not child:
            try:
                parents = shard._opened
                good = shard._reader() is not parents and all(
                    shard.read([i, 59 - i]) == [RECORDS[i], RECORDS[59 - i]]
                    for i in range(number, 60, 3)
                )
            except BaseException:
                good = False
            os._exit(0 if good else 1)
        children.append(child)
    for i in range(60):
        assert shard.read([i]) == [RECORDS[i]]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def test_no_record_is_lost_or_repeated_when_requests_fail(gs):
    """Many more failures than on any bad day: 20 %."""
    write_shard("gs://b/fails", RECORDS)
    gs.share(0.2, ("503", "429", "reset", "lost", "cut", "short", "slow"))
    order = np.random.default_rng(3).permutation(60).tolist()
    shard, came = Shard("gs://b/fails"), []
    for start in range(0, 60, 2):
        shard.prefetch(order[start + 2 : start + 4])
        came += shard.read(order[start : start + 2])
    assert came == [RECORDS[i] for i in order]
    assert gs.failed >= 5
    shard.close()


def test_a_failure_that_lasts_is_one_message(server):
    server.reset()
    with reached(server, retry_seconds=0.2):
        write_shard("gs://b/down", RECORDS)
        shard = Shard("gs://b/down")
        assert shard.read([0]) == RECORDS[:1]
        server.always("503")
        shard.prefetch([1, 2])
        with pytest.raises(UserError, match=r"^cannot read gs://b/down: .*503.*tries.*RETRY_SEC"):
            shard.read([1, 2])
        server.reset()
        assert shard.read([1, 2]) == RECORDS[1:3]
        shard.close()


def test_every_changed_byte_is_noticed(tmp_path):
    """No flip of a byte that means something, and no sample of those between, gives a record that
    was not written; and those in records and index are refused.
    """
    records = some_records(6, 90)
    write_shard(tmp_path / "x", records)
    whole = (tmp_path / "x").read_bytes()
    meaning = np.flatnonzero(np.frombuffer(whole, np.uint8)).tolist()
    starts, _ = ranged_reader.parse_footer(
        whole[(footer := ranged_reader._footer_offset(whole[-65536:])) : -65536], footer
    )
    refused = 0
    for at in meaning + list(range(0, len(whole), 997)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        for path in (str(tmp_path / "y"), "memory://b/y"):
            remote.write_bytes(path, bytes(changed))
            shard, said = Shard(path), ""
            try:
                assert shard.read(range(6)) == records
            except UserError as error:
                said = str(error)
            if said:
                assert path.split("/")[-1] in said
                assert "copy it anew" in said
                refused += 1
            else:
                assert not starts[0] <= at < starts[-1] or at % 65536 < 24, at
            shard.close()
    assert refused > len(meaning)


@pytest.mark.parametrize(
    "left", [0, 1, 100, 65_535, 65_536, 131_071, 131_072, 500_000, -65_536, -1]
)
def test_a_file_that_was_cut_short(folder, left):
    path = remote.join(folder, "x")
    info = write_shard(path, RECORDS)
    remote.write_bytes(path, remote.read_bytes(path)[:left])
    with pytest.raises(UserError, match=r"cannot read .*x: .*cut short.*copy it anew") as caught:
        Shard(path, checksum=info.checksum).read([0])
    assert f"expected {info.checksum}, found {remote.sha256(path)}" in str(caught.value)


def test_a_file_of_something_else(folder):
    path = remote.join(folder, "x")
    for data in (b"RIFF" * 50_000, bytes(200_000), os.urandom(200_000), b"{}\n"):
        remote.write_bytes(path, data)
        with pytest.raises(UserError, match=r"cannot read .*x: .*copy it anew"):
            len(Shard(path))


def test_another_number_of_records(folder):
    path = remote.join(folder, "x")
    write_shard(path, RECORDS)
    with pytest.raises(UserError, match=r"x: it has 60 records, not 61"):
        Shard(path, records=61).read([0])


def test_a_missing_file(folder):
    with pytest.raises(UserError, match=r"none: there is no such"):
        len(Shard(remote.join(folder, "none")))


def test_a_file_that_is_replaced_while_it_is_read(gs):
    write_shard("gs://b/replaced", RECORDS)
    shard = Shard("gs://b/replaced")
    assert shard.read([0]) == RECORDS[:1]
    write_shard("gs://b/replaced", [record[::-1] + b"1" for record in RECORDS])
    with pytest.raises(UserError, match=r"gs://b/replaced: it was replaced"):
        shard.read([40])


def test_writing_that_fails_leaves_what_was_there(folder, tmp_path):
    path = remote.join(folder, "x")
    write_shard(path, RECORDS[:3])
    before = remote.read_bytes(path)

    def failing():
        yield from RECORDS[:5]
        raise RuntimeError("the source fails")

    with pytest.raises(RuntimeError, match="the source fails"):
        write_shard(path, failing())
    assert remote.read_bytes(path) == before
    assert remote.list_names(folder) == ["x"]
