"""Watches a slice: asks for it, starts training on it, follows, starts again after a preemption or a
crash, and deletes it at the end. Run by the scripts of queued.py and tpu_vm.py with a file that
has the commands; only these reach the cloud.

What it spends is bounded. Attempts that bring no new checkpoint are counted, whatever they failed
by (no capacity, a key, an installation, a crash), with growing pauses between them; and the hours
that slices of this run were there are added up in the bucket, from the times that the cloud tells,
so that a watcher that is started again goes on with the same budget.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from common import BAD_INPUT, DONE, ENDED, RESUMING, STOPPED

LONGEST_S = 900.0  # pause between attempts
COMMAND_S = 3600.0  # that a command may take, the longest an installation
DELETIONS = 10  # times to try
LINE = "FROM_LINE"  # in `follow`: the first line of the log to show
_KEPT = 10  # logs of earlier watchers


@dataclasses.dataclass(frozen=True)
class Job:
    """Commands are shell words in one text.

    Attributes:
      name, kind: of what is asked for ("queuedResources" or "nodes"), as in the cloud's words when
        it is not there.
      describe: prints its state. created: prints when the slice was made.
      ready, lost, refused: states in which training can start; in which it was taken away; in which
        it was never given.
      start, follow, tails, stop: on the workers. create, delete: of what is asked for.
      progress: prints the run's ledger.json. read_ledger, write_ledger: of the slices (from
        standard input).
      retries, poll (seconds), max_hours, keep: as the launchers' options.
    """

    name: str
    kind: str
    ready: str
    lost: Sequence[str]
    refused: Sequence[str]
    describe: str
    created: str
    create: str
    start: str
    follow: str
    tails: str
    stop: str
    delete: str
    progress: str
    read_ledger: str
    write_ledger: str
    logs: str
    retries: int
    poll: float
    max_hours: float
    keep: bool


class Over(Exception):
    """The end, with the exit code and why."""

    def __init__(self, code: int, why: str):
        super().__init__(why)
        self.code = code


class Watch:
    """One run of the watcher.

    Args:
      sleep, now: of the clock (seconds).
    """

    def __init__(
        self,
        job: Job,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ):
        self._job, self._sleep, self._now = job, sleep, now
        self._slices: list[dict[str, float | None]] = []  # {made, gone}: Unix seconds
        self._unsaved = False
        self._there = False  # seen since it was last deleted from here
        self._heard = True  # the cloud answered, when it was last asked
        self._started = False  # on the slice that is there, by this watcher
        self._line = 1  # of the log, to show next
        self._newest = -1  # step of the newest checkpoint that was seen
        # in a row without a new checkpoint; of these, the last that a preemption may explain
        self._failures = self._doubtful = 0
        self._refusals = self._pauses = 0
        folder = Path(job.logs)
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: -_KEPT + 1]:
            old.unlink()
        stamp = datetime.fromtimestamp(now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        self._log = open(folder / f"{stamp}.log", "a", encoding="utf-8")  # noqa: SIM115

    def run(self) -> int:
        """Until training is done or given up; the exit code: 0, that of the last attempt, or 75 when
        the budget is used up.
        """
        try:
            self._read_ledger()
            self._newest = self._step()
            while True:
                self._look()
        except Over as over:
            self._say(str(over))
            return self._end(over.code)
        except KeyboardInterrupt:
            self._say(
                "no longer watched: what is there goes on, and costs. The same command goes on "
                f"watching it; this deletes it: {self._job.delete}"
            )
            return 130
        finally:
            self._log.close()

    # ---- One look -------------------------------------------------------------------------------

    def _look(self) -> None:
        job = self._job
        self._check_budget()
        state = self._state()
        if state is None:
            self._heard = False
            self._pause()
            return
        if not self._heard:
            self._heard, self._pauses = True, 0
        self._say(f"{job.name}: {state or 'not there'}")
        if state == "" and self._there:
            self._gone()
            raise Over(STOPPED, "it was deleted, not from here: it is not asked for again")
        self._there = state != ""
        if state == job.ready:
            if self._refusals:
                self._refusals = self._pauses = 0
            self._open()
            self._check_budget()
            self._train()
        elif state == "":
            self._gone()
            if not self._do(job.create):
                self._refuse("it is refused")
                return
            self._wait(job.poll)
        elif state in job.lost or state in job.refused:
            self._gone()
            # what is left of it must go before it can be asked for again
            self._there = not self._do(job.delete)
            if state in job.refused:
                self._refuse(f"the request ended as {state}")
            else:
                self._wait(job.poll)
        else:
            self._wait(job.poll)

    def _state(self) -> str | None:
        """In the cloud's words, "" if it is not there; None if the cloud could not be asked, which
        says nothing of the slice.
        """
        job = self._job
        code, out, err = self._ask(job.describe)
        if code == 0 and out.strip():
            return out.split()[0]
        if "NOT_FOUND" in err and f"{job.kind}/{job.name}" in err:
            return ""
        self._say(f"the cloud cannot be asked, so nothing is done: {_last(err) or f'code {code}'}")
        return None

    def _train(self) -> None:
        job = self._job
        if not self._started:
            if not self._do(job.start):
                self._fail(1, "training cannot be started on every worker", doubtful=True)
                return
            self._started, self._line = True, 1
        code = self._follow()
        if code is None:
            self._check_budget()
            self._say("the connection was lost; training goes on")
            self._pause()
            return
        self._started = False
        if code == DONE:
            raise Over(0, "training is done")
        self._do(job.tails)
        self._do(job.stop)
        if code == BAD_INPUT:
            raise Over(code, "it would end the same way again (the lines above say why)")
        self._fail(code, f"training ended with exit code {code}", doubtful=code in RESUMING)

    def _follow(self) -> int | None:
        """Shows the log until training ends; its exit code, None if that was not heard of."""
        code, first = None, self._line
        with self._process(self._job.follow.replace(LINE, str(first)), stderr=None) as process:
            # the budget may end while it shows
            guard = threading.Timer(max(self._left(), 1.0), _kill, [process])
            guard.daemon = True
            guard.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if found := re.fullmatch(rf"{ENDED} (\d+)", line.strip()):
                        code = int(found[1])
                        continue
                    self._line += 1
                    self._tell(line)
            finally:
                guard.cancel()
        if self._line > first:
            self._pauses = 0
        return code

    # ---- What is counted ------------------------------------------------------------------------

    def _fail(self, code: int, what: str, doubtful: bool) -> None:
        """Counts an attempt, unless it brought a checkpoint."""
        if (step := self._step()) > self._newest:
            self._newest = step
            self._failures = self._doubtful = self._pauses = 0
            self._say(f"{what}, after a new checkpoint (step {step}): not counted")
            self._wait(self._job.poll)
            return
        self._failures += 1
        self._doubtful = self._doubtful + 1 if doubtful else 0
        told = f"{what} ({self._failures} without a new checkpoint, {self._job.retries} are borne)"
        if self._failures > self._job.retries:
            raise Over(code, f"{told}: given up")
        self._say(told)
        self._pause()

    def _refuse(self, what: str) -> None:
        self._refusals += 1
        told = f"{what} ({self._refusals} in a row, {self._job.retries} are borne)"
        if self._refusals > self._job.retries:
            raise Over(1, f"{told}: given up")
        self._say(told)
        self._pause()

    def _step(self) -> int:
        """Of the newest checkpoint, by the run's own ledger; -1 if there is none, or none to be seen."""
        out = self._ask(self._job.progress)[1]
        try:
            return max((int(step) for step in json.loads(out)["saved"]), default=-1)
        except (ValueError, KeyError, TypeError):
            return -1

    def _pause(self) -> None:
        """Exponential back-off with jitter."""
        longest = min(LONGEST_S, self._job.poll * 2.0**self._pauses)
        self._pauses = min(self._pauses + 1, 30)
        self._wait(max(self._job.poll, longest) * random.uniform(0.75, 1.25))

    def _wait(self, seconds: float) -> None:
        self._sleep(min(seconds, max(self._left(), 1.0)))

    # ---- The budget -----------------------------------------------------------------------------

    def _left(self) -> float:
        """Seconds of the budget."""
        now = self._now()
        spent = sum((row["gone"] or now) - (row["made"] or now) for row in self._slices)
        return self._job.max_hours * 3600 - spent

    def _check_budget(self) -> None:
        if self._unsaved:
            self._write_ledger()
        if self._left() > 0:
            return
        if self._slices and self._slices[-1]["gone"] is None:
            self._do(self._job.stop)  # it saves
        raise Over(
            STOPPED,
            f"the {self._job.max_hours:g} hours of --max-hours are used up; the same command with "
            "more goes on from the newest checkpoint",
        )

    def _open(self) -> None:
        """Notes the slice that is there, by the time that the cloud says it was made."""
        code, out, err = self._ask(self._job.created)
        made = _seconds(out) if code == 0 else None
        last = self._slices[-1] if self._slices else None
        if last and last["gone"] is None:
            known = last["made"] or 0.0
            if made is None or made == known:
                return
            if made < known:  # it was not told when it was first seen
                last["made"] = made
                self._write_ledger()
                return
            self._gone(made)  # another slice than the one that was there: that ended before
        if made is None:
            self._say(
                f"when the slice was made is not told, so its time counts from now: {_last(err)}"
            )
        self._slices.append({"made": self._now() if made is None else made, "gone": None})
        self._started = False
        self._write_ledger()

    def _gone(self, when: float | None = None) -> None:
        """Notes that the slice is no longer there."""
        if self._slices and self._slices[-1]["gone"] is None:
            self._slices[-1]["gone"] = self._now() if when is None else when
            self._write_ledger()
        self._started = False
        # lost workers and connections were the preemption's fault
        self._failures -= self._doubtful
        self._doubtful = 0

    def _read_ledger(self) -> None:
        """A ledger that cannot be read leaves the budget unknown: nothing is begun then."""
        for _ in range(self._job.retries + 1):
            code, out, err = self._ask(self._job.read_ledger)
            if code and "matched no objects" in err:
                return
            if code == 0:
                try:
                    self._slices = [
                        {"made": float(row["made"]), "gone": row["gone"]} for row in json.loads(out)
                    ]
                    return
                except (ValueError, KeyError, TypeError):
                    err = "it is damaged; delete it to begin a new count"
            self._say(f"cannot read what this run has spent: {_last(err)}")
            self._pause()
        self._say(f"nothing was begun; look at: {self._job.read_ledger}")
        raise SystemExit(1)

    def _write_ledger(self) -> None:
        code, _, err = self._ask(self._job.write_ledger, json.dumps(self._slices))
        self._unsaved = code != 0
        if code:
            self._say(f"what was spent could not be noted, again at the next look: {_last(err)}")

    # ---- The end --------------------------------------------------------------------------------

    def _end(self, code: int) -> int:
        job = self._job
        if job.keep and code != STOPPED:
            self._say(f"kept, as asked, and goes on costing; this deletes it: {job.delete}")
            return code
        for attempt in range(DELETIONS):
            done, _, err = self._ask(job.delete)
            if done == 0 or ("NOT_FOUND" in err and f"{job.kind}/{job.name}" in err):
                self._gone()
                self._say("deleted")
                return code
            self._say(f"it could not be deleted: {_last(err)}")
            self._sleep(min(LONGEST_S, job.poll * 2.0**attempt))
        self._say(f"IT IS STILL THERE AND COSTS. Delete it: {job.delete}")
        return code or 1

    # ---- Commands and words ---------------------------------------------------------------------

    def _do(self, command: str) -> bool:
        """Runs a command whose output people see; whether it succeeded."""
        code, out, _ = self._ask(command, stderr=subprocess.STDOUT)
        self._tell(out)
        return code == 0

    def _ask(
        self, command: str, given: str = "", stderr: int = subprocess.PIPE
    ) -> tuple[int, str, str]:
        """(exit code, output, errors) of a command; one that hangs is ended."""
        with self._process(command, stderr=stderr) as process:
            try:
                out, err = process.communicate(given, timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                _kill(process)
                out, err = process.communicate()
                err = f"{err or ''}no end after {COMMAND_S:.0f} s"
        return process.returncode, out, err or ""

    @contextlib.contextmanager
    def _process(self, command: str, stderr: int | None) -> Iterator[subprocess.Popen[str]]:
        """A session of its own: what it starts (ssh) can be ended with it, and nothing of it can ask
        for a passphrase.
        """
        process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                yield process
            except BaseException:
                _kill(process)
                raise

    def _say(self, line: str) -> None:
        self._tell(f"{datetime.fromtimestamp(self._now(), UTC):%FT%TZ} {line}\n")

    def _tell(self, text: str) -> None:
        for stream in (sys.stdout, self._log):
            stream.write(text)
            stream.flush()


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last(text: str) -> str:
    """The line of an error that says most."""
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "ERROR" in line), lines[-1] if lines else "")[:300]


def _seconds(stamp: str) -> float | None:
    """Unix seconds of a time as the cloud writes it, "2026-11-28T21:03:04.123456789Z"."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", stamp.strip())
    if not found:
        return None
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    return whole.timestamp() + float(found[2] or 0)


def main(argv: list[str] | None = None) -> int:
    """Watches by the commands in the file that is named."""
    (file,) = sys.argv[1:] if argv is None else argv
    return Watch(Job(**json.loads(Path(file).read_text(encoding="utf-8")))).run()


if __name__ == "__main__":
    sys.exit(main())
