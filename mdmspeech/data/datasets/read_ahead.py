"""Ranges of remote files fetched in parallel and ahead of time, into bounded memory."""

import collections
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mdmspeech import remote
from mdmspeech.remote.retrying import seconds_from

LIMIT = "MDMSPEECH_READ_AHEAD_MB"
_LIMIT_MB = 256.0
_THREADS = 16
# Neighbours are fetched in one request when fewer bytes lie between them, up to so many in all.
_GAP, _LONGEST = 1 << 16, 8 << 20

Range = tuple[int, int]


class _Memory:
    """What all readers of this process have fetched ahead: request -> its future; oldest go first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mdmspeech-read")
        self.held: collections.OrderedDict[Any, Future] = collections.OrderedDict()
        self.bytes = 0


_memory: dict[int, _Memory] = {}
_memory_lock = threading.Lock()


class ReadAhead:
    """The ranges of one version of one file."""

    def __init__(self, path: str, version: str):
        self._path, self._version = path, version
        self._limit = seconds_from(LIMIT, _LIMIT_MB) * 1e6

    def take(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of sorted ranges: those fetched ahead, which are let go of, and the others in
        as few requests as sensible, in parallel.
        """
        memory, ahead = _of_process(), {}
        with memory.lock:
            for each in ranges:
                if future := memory.held.pop(self._key(each), None):
                    memory.bytes -= each[1] - each[0]
                    ahead[each] = future
        missing = [each for each in ranges if each not in ahead]
        fetched = self._submit(memory, missing)
        parts = {each: future.result() for each, future in fetched.items()}
        for each, future in ahead.items():
            try:
                parts[each] = future.result()
            except Exception:  # it may have been long ago
                parts[each] = remote.read_range(self._path, *each)
        return [parts[each] for each in ranges]

    def start(self, ranges: Sequence[Range]) -> None:
        """Starts to fetch sorted ranges, until the memory for it is full."""
        memory = _of_process()
        with memory.lock:
            new = [each for each in ranges if self._key(each) not in memory.held]
            room, wanted = self._limit, []
            for each in new:
                room -= each[1] - each[0]
                if room < 0:
                    break
                wanted.append(each)
            for each, future in self._submit(memory, wanted).items():
                memory.held[self._key(each)] = future
                memory.bytes += each[1] - each[0]
            while memory.bytes > self._limit:
                (_, _, start, stop), future = memory.held.popitem(last=False)
                future.cancel()
                memory.bytes -= stop - start

    def forget(self) -> None:
        """Lets go of what was fetched ahead of this file."""
        memory = _of_process()
        with memory.lock:
            for key in [key for key in memory.held if key[:2] == (self._path, self._version)]:
                memory.held.pop(key).cancel()
                memory.bytes -= key[3] - key[2]

    def _submit(self, memory: _Memory, ranges: Sequence[Range]) -> dict[Range, Future]:
        """A future of each range's bytes; neighbours come in one request."""
        futures = {}
        for group in together(ranges):
            whole = memory.threads.submit(remote.read_range, self._path, group[0][0], group[-1][1])
            for each in group:
                futures[each] = _Part(whole, each[0] - group[0][0], each[1] - group[0][0])
        return futures  # type: ignore[return-value]

    def _key(self, each: Range) -> tuple:
        return self._path, self._version, *each


class _Part:
    """A part of the bytes that a future gives."""

    def __init__(self, whole: Future, start: int, stop: int):
        self._whole, self._start, self._stop = whole, start, stop

    def result(self) -> bytes:
        return self._whole.result()[self._start : self._stop]

    def cancel(self) -> bool:
        return False  # another part of the same request may be wanted


def together(ranges: Sequence[Range]) -> list[list[Range]]:
    """Sorted ranges in groups that are fetched by one request each."""
    groups: list[list[Range]] = []
    for start, stop in ranges:
        last = groups[-1] if groups else []
        if last and start - last[-1][1] <= _GAP and stop - last[0][0] <= _LONGEST:
            last.append((start, stop))
        else:
            groups.append([(start, stop)])
    return groups


def _of_process() -> _Memory:
    with _memory_lock:
        if os.getpid() not in _memory:
            _memory[os.getpid()] = _Memory()
        return _memory[os.getpid()]


def _forget() -> None:
    """In a forked process: threads, and locks they may have held, stay behind."""
    global _memory_lock
    _memory_lock = threading.Lock()
    _memory.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
