"""A trace of a few updates, by config: `train.profile = (first update, how many)` writes
`<workdir>/profile`.

Open it with TensorBoard's profile plugin or XProf (`xprof --logdir <workdir>/profile`), or put the
`.trace.json.gz` in it into ui.perfetto.dev. Every host of a pod writes its own part into the same
folder.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from etils import epath

from mdmspeech.errors import UserError
from mdmspeech.remote import is_remote
from mdmspeech.training.workdir import upload


class ProfileWindow:
    """Starts and stops the trace around the updates that were asked for.

    Args:
      window: (first update, counted from 1 over all resumptions; number of updates). A number of 0
        is off.
      workdir: of the run.
      say: where messages go.
    """

    def __init__(self, window: Any, workdir: Any, say: Callable[[str], None] = print):
        first, number = check_window(window)
        self._first, self._last = first, first + number - 1
        self.folder = epath.Path(workdir) / "profile"
        # The tracer is C++ and knows no object storage.
        self._local = (
            epath.Path(tempfile.mkdtemp(prefix="profile-"))
            if number and is_remote(workdir)
            else self.folder
        )
        self._on, self._say = False, say

    def step(self, update: int) -> contextlib.AbstractContextManager[Any]:
        """Put `update` (from 1) inside this: a run that resumes in the middle of the window traces
        the rest of it.
        """
        if not self._first <= update <= self._last:
            return contextlib.nullcontext()
        if not self._on:
            jax.profiler.start_trace(str(self._local))
            self._on = True
        return jax.profiler.StepTraceAnnotation("train", step_num=update)

    def done(self, update: int) -> None:
        """The numbers of `update` are there."""
        if update >= self._last:
            self.close()

    def close(self) -> None:
        """Writes the trace if one is being taken."""
        if not self._on:
            return
        self._on = False
        jax.profiler.stop_trace()
        if self._local != self.folder:
            upload(Path(self._local), self.folder)
        self._say(f"profile of updates {self._first} to {self._last} is in {self.folder}")


def check_window(window: Any) -> tuple[int, int]:
    """(first update, number of updates) of `train.profile`; a UserError if it is no such pair."""
    try:
        first, number = (int(n) for n in window)
        if number < 0 or (number and first < 1):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(
            f"train.profile is {window!r}: give (first update, number of updates), (0, 0) for none"
        ) from None
    return first, number
