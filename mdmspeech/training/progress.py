"""What a person sees while it trains: a bar in a terminal, plain lines in a log file."""

import sys
from typing import TextIO

from tqdm import tqdm

# Shares, shown in percent and with a name people understand;
# all else of a report is a plain number.
_SHARES = {"mfu": "MFU", "data_wait": "data wait", "host": "host", "goodput": "goodput"}


class Progress:
    """Steps done, loss parts, rate and time left.

    Args:
      total: last step of the run.
      start: step it starts from.
      unit: what the rate counts ("tokens").
      limit_s: training seconds after which the run ends anyway; 0 = none. The time left is the
        smaller of the two.
      stream: where to print.
    """

    def __init__(
        self, total: int, start: int, unit: str, limit_s: float = 0.0, stream: TextIO | None = None
    ):
        self._total, self._unit, self._limit_s = total, unit, limit_s
        self._stream = stream or sys.stderr
        self._bar = (
            tqdm(total=total, initial=start, file=self._stream, unit="step", dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )
        self._units = self._steps = 0  # since the last report

    def advance(self, units: int) -> None:
        """One update was done on `units` units."""
        self._units += units
        self._steps += 1
        if self._bar is not None:
            self._bar.update(1)

    def back(self, step: int) -> None:
        """The run is at an earlier step once more."""
        self._units = self._steps = 0
        if self._bar is not None:
            self._bar.n = step
            self._bar.refresh()

    def report(
        self, step: int, values: dict[str, float], since_s: float, elapsed_s: float
    ) -> dict[str, float]:
        """Shows the values of `step`; returns the rates since the last report: {unit}_per_s and
        s_per_step.

        Args:
          since_s: training seconds since the last report; compiling, evaluating and saving are not
            training.
          elapsed_s: training seconds of the whole run.
        """
        since_s = max(since_s, 1e-9)
        s_per_step, rate = since_s / max(self._steps, 1), self._units / since_s
        self._units = self._steps = 0
        parts = "  ".join(_show(name, value) for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(f"{parts}  {rate:,.0f} {self._unit}/s")
        else:
            left = (self._total - step) * s_per_step
            left = min(left, max(self._limit_s - elapsed_s, 0.0)) if self._limit_s else left
            self.say(
                f"step {step}/{self._total}  {parts}  {rate:,.0f} {self._unit}/s  {s_per_step:.3g} "
                f"s/step  left {format_duration(left)}"
            )
        return {f"{self._unit}_per_s": rate, "s_per_step": s_per_step}

    def say(self, line: str) -> None:
        """A message on its own line."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _show(name: str, value: float) -> str:
    share = name.replace("_", " of ") if name.startswith("padding") else _SHARES.get(name)
    return f"{share} {100 * value:.3g} %" if share else f"{name} {value:.4g}"


def format_duration(seconds: float) -> str:
    """ "1:02:03" or "2:03"."""
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
