"""ArrayRecord files read by ranges of bytes, from any place that `mdmspeech.remote` reads.

Only the ranges of the chunks asked for are fetched. They are laid at their places into an otherwise
empty file in memory, which array_record's own reader then reads: it decodes every kind of chunk and
checks its hash. Only the footer, which tells where chunks begin, is parsed here, after that reader
has found its hash right. Layout: array_record's cpp/layout.proto, and "Riegeli/records file format
specification" in github.com/google/riegeli.
"""

import os
import tempfile
import threading
from typing import Any

from mdmspeech import remote
from mdmspeech.data.datasets.read_ahead import ReadAhead

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
_MAGIC = 0x71930E704FDAE05E
_CODECS = {0x7A: "zstd", 0x62: "brotli", 0x73: "snappy"}
# first fetch from the file's end: the postscript's block, and the footer of some 10,000 records
_TAIL = 4 * _BLOCK


class CorruptShard(Exception):
    """The bytes are not those of a whole ArrayRecord file. The message says what was found."""


def open_reader(path: str) -> Any:
    """array_record's reader of a local file, for random access.

    Raises:
      CorruptShard: not an ArrayRecord file, or not a whole one.
    """
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(
        path, options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15
    )
    if not reader.ok():
        try:
            reader.close()
        except RuntimeError as error:
            raise CorruptShard(str(error)) from error
        raise CorruptShard("it is not an ArrayRecord file")
    return reader


class RangedReader:
    """Reads one remote file. Threads may share it; processes may not.

    array_record 0.8.6 opens gs:// by itself, but not what else fsspec knows; of a shard that it
    could not open it says that it has no records, and from gcp-storage-emulator it reads none.
    """

    def __init__(self, path: str):
        self._path, self._found = path, remote.stat(path)
        size = self._found.size
        if size < 2 * _BLOCK:
            raise CorruptShard(f"it has {size} bytes, no ArrayRecord file is that short")
        start = max(0, size - _TAIL)
        tail = remote.read_range(path, start, size)
        footer = _footer_offset(tail[-_BLOCK:])
        if not 0 < footer < size - _BLOCK:
            raise CorruptShard("its last block does not say where its index is")
        if footer < start:
            tail = remote.read_range(path, footer, start) + tail
            start = footer
        self._tail, self._footer = tail[footer - start :], footer
        self._file = _empty_file(size)
        self._decoding = threading.Lock()
        try:
            os.pwrite(self._file, self._tail, footer)
            self._reader = open_reader(f"/dev/fd/{self._file}")
        except BaseException:
            os.close(self._file)
            raise
        starts, self._group = parse_footer(self._tail[:-_BLOCK], footer)
        self._bounds = [*starts, footer]
        self._chunks = ReadAhead(path, self._found.version)

    def __len__(self) -> int:
        return self._reader.num_records()

    def read(self, indices: list[int]) -> list[bytes]:
        """Records in the order asked for. Raises `CorruptShard`."""
        ranges = self._ranges(indices)
        try:
            return self._decoded(indices, ranges, self._chunks.take(ranges))
        except CorruptShard:
            # what came may be at fault, not what is stored: once more, past what was kept
            now = remote.stat(self._path)
            if now != self._found:
                raise CorruptShard("it was replaced while it was being read") from None
            return self._decoded(indices, ranges, self._chunks.take(ranges))

    def prefetch(self, indices: list[int]) -> None:
        """Starts fetching the chunks of records."""
        self._chunks.start(self._ranges(indices))

    def close(self) -> None:
        """Lets go of the memory. Reads that run come to their end first."""
        with self._decoding:
            self._chunks.forget()
            self._reader.close()
            os.close(self._file)

    def _ranges(self, indices: list[int]) -> list[tuple[int, int]]:
        """Sorted (start, stop) of the chunks that have the records."""
        chunks = sorted({i // self._group for i in indices})
        return [(self._bounds[chunk], self._bounds[chunk + 1]) for chunk in chunks]

    def _decoded(
        self, indices: list[int], ranges: list[tuple[int, int]], chunks: list[bytes]
    ) -> list[bytes]:
        with self._decoding:
            try:
                for (start, _), data in zip(ranges, chunks, strict=True):
                    os.pwrite(self._file, data, start)
                return self._reader.read(indices)
            except RuntimeError as error:
                raise CorruptShard(str(error)) from error
            finally:  # an empty file again, but for its end
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, self._tail, self._footer)


def parse_footer(data: bytes, offset: int) -> tuple[list[int], int]:
    """Where the chunks with records begin, and how many records each has (the last may have fewer).

    data: the bytes of the file from `offset`, where the footer's chunk begins, to the last block.
    """
    plain = _without_block_headers(data, offset)
    length = int.from_bytes(plain[8:16], "little")
    count = int.from_bytes(plain[25:32], "little")
    body = plain[_CHUNK_HEADER : _CHUNK_HEADER + length]
    codec = body[0]
    width, at = _varint(body, 1)
    sizes = _plain(body[at : at + width], codec)
    values = _plain(body[at + width :], codec)
    starts, group, at, place = [], 1, 0, 0
    for number in range(count):
        size, at = _varint(sizes, at)
        if number:  # the first is about the file
            fields = _fields(values[place : place + size])
            starts.append(fields.get(1, 0))
            if number == 1:
                group = fields.get(3, 0)
        place += size
    if group < 1 or starts != sorted(set(starts)) or (starts and starts[-1] >= offset):
        raise CorruptShard("its index does not fit it")
    return starts, group


def _footer_offset(block: bytes) -> int:
    """What the postscript, the file's last block, tells; -1 when it is none."""
    body = block[_BLOCK_HEADER + _CHUNK_HEADER :]
    try:
        width, at = _varint(body, 1)
        size, _ = _varint(body, at)
        fields = _fields(body[at + width : at + width + size])
    except (IndexError, ValueError):
        return -1
    return fields.get(1, -1) if fields.get(2) == _MAGIC else -1


def _without_block_headers(data: bytes, offset: int) -> bytes:
    parts, at = [], 0
    while at < len(data):
        within = (offset + at) % _BLOCK
        if within < _BLOCK_HEADER:
            at += _BLOCK_HEADER - within
            within = _BLOCK_HEADER
        parts.append(data[at : at + _BLOCK - within])
        at += _BLOCK - within
    return b"".join(parts)


def _plain(data: bytes, codec: int) -> bytes:
    if codec == 0:
        return data
    import pyarrow

    size, at = _varint(data, 0)
    return pyarrow.decompress(data[at:], size, codec=_CODECS[codec], asbytes=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> dict[int, int]:
    """The numbers of a protocol buffer message that has only numbers."""
    fields, at = {}, 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7:
            raise ValueError("not a number")
        fields[key >> 3], at = _varint(data, at)
    return fields


def _empty_file(size: int) -> int:
    """A file without a name and with nothing but holes, which take no room: in memory on Linux."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("mdmspeech-shard", os.MFD_CLOEXEC)
    else:
        handle, name = tempfile.mkstemp(prefix="mdmspeech-shard-")
        os.unlink(name)
    os.ftruncate(handle, size)
    return handle
