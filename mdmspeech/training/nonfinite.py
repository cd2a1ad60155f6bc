"""Updates whose loss or gradient is no number, and what becomes of them (`train.on_nan`).

stop      the run ends with an error. Started again, it meets the same records: it is for people to
          decide.
skip      the update is left out: the state stays as it was, and the run goes on with the next batch.
rollback  the run goes back to its last checkpoint and on with the records behind those it has read,
          which it never reads again (PaLM, arXiv 2204.02311, section 5.1, did so by hand).

All decide alike: the numbers are those of the whole batch, over all hosts. Which records they were
is written to `<workdir>/nonfinite.jsonl`, all of them; a line of the log names some.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from mdmspeech.training import distributed

MOST_IN_A_ROW = 10  # that are left out, or gone back from: more are no matter of a few records
_NAMED = 32  # records in a message
FILE = "nonfinite.jsonl"


class NonFiniteError(RuntimeError):
    """The loss or the gradient norm is no number. The message names the step and the records; the
    last checkpoint is good.
    """


class NonFinitePolicy:
    """What the loop does with such updates.

    Args:
      on_nan: `train.on_nan`. name: of the task. say: where messages go.
      last_checkpoint: () -> the step of the newest, None if there is none; waits for one that is
        being written.
    """

    def __init__(
        self,
        on_nan: str,
        name: str,
        workdir: Any,
        say: Callable[[str], None],
        last_checkpoint: Callable[[], int | None],
    ):
        self._on_nan, self._name, self._say = on_nan, name, say
        self._file, self._last_checkpoint = epath.Path(workdir) / FILE, last_checkpoint
        self._in_a_row = 0

    @property
    def skips(self) -> bool:
        """Whether the step itself leaves such updates out."""
        return self._on_nan == "skip"

    def fine(self, safe: bool = False) -> None:
        """An update was finite. safe: a state has been saved, so that a rollback makes headway."""
        if safe != self.skips:
            self._in_a_row = 0

    def goes_back(self, step: int, values: Mapping[str, float], ids: Sequence[str]) -> bool:
        """Deals with update `step`, which was not finite; whether to go back to the last checkpoint.
        All processes must call.

        Args:
          ids: of the records that this process had in its batch.

        Raises:
          NonFiniteError: the policy is to stop, or it has been too many in a row.
        """
        records = [name for names in distributed.gather(list(ids)) for name in names]
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        named = ", ".join(records[:_NAMED]) + (" and others" if len(records) > _NAMED else "")
        told = f"records {named}" if records else 'records unknown (give batches an "id")'
        self._in_a_row += 1
        enough = self._in_a_row > MOST_IN_A_ROW
        ended = self._on_nan == "stop" or enough
        self._write(step, "stop" if ended else self._on_nan, values, records)
        if ended:
            why = f" for the {self._in_a_row}th time in a row" if enough else ""
            raise self.error(step, f"({shown}){why}; {told}")
        done = "left out" if self.skips else "going back to the last checkpoint, past these records"
        self._say(f"update {step} is not finite ({shown}): {done}; {told} (all in {FILE})")
        return not self.skips

    def error(self, step: int, what: str) -> NonFiniteError:
        """Says what was found at a step, and from where the run can go on."""
        good = self._last_checkpoint()
        left = "nothing was saved" if good is None else f"the last checkpoint is good (step {good})"
        return NonFiniteError(f"{self._name}: not finite at step {step} {what}; {left}")

    def _write(
        self, step: int, what: str, values: Mapping[str, float], records: Sequence[str]
    ) -> None:
        if not distributed.is_lead():
            return
        numbers = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
        row = {"step": step, "what": what, "values": numbers, "records": list(records)}
        before = self._file.read_text() if self._file.exists() else ""
        self._file.write_text(before + json.dumps(row) + "\n")


def is_finite(values: Mapping[str, float]) -> bool:
    """Whether the update that gave these metrics can be kept."""
    return math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])
