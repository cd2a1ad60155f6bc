"""What a listener hears of a response that arrives piece by piece: how far playback has come, where
it stalled, how many steps the next block may take, and which words were heard.
"""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from mdmspeech.inference.generation_config import real
from mdmspeech.inference.speech import Word

STEPS = (1, 2, 4, 8, 16)  # forwards a block
STALL = 0.1  # seconds: a shorter gap is no underrun
RESERVE = 0.25  # seconds of speech that shall still be ahead when a block is ready


def seconds_of_response(name: str, value: Any) -> float:
    """A finite number, or a UserError that has its name."""
    return real(name, value, (-1e9, 1e9), "seconds of the response; what is beyond it is its end")


class Playback:
    """A player that starts with the first piece and plays on whenever there is something.

    Attributes:
      audio_s: given to it so far. underruns, underrun_s: how often and how long it had nothing to
        play for more than `STALL` before more came.
    """

    def __init__(self) -> None:
        self.audio_s, self.underruns, self.underrun_s = 0.0, 0, 0.0
        self._ends: float | None = None  # when all there is has been played

    def add(self, now: float, seconds: float) -> None:
        """A piece of so many seconds arrives."""
        late = 0.0 if self._ends is None else now - self._ends
        if late > STALL:
            self.underruns, self.underrun_s = self.underruns + 1, self.underrun_s + late
        self._ends = now + seconds if self._ends is None or late > 0 else self._ends + seconds
        self.audio_s += seconds

    def lead(self, now: float) -> float:
        """Seconds that are still to be played."""
        return 0.0 if self._ends is None else max(self._ends - now, 0.0)

    def played(self, now: float) -> float:
        """Seconds that were played."""
        return self.audio_s - min(self.lead(now), self.audio_s)

    def report(self, now: float, played_s: float) -> None:
        """The player says itself how far it is."""
        self._ends = now + (self.audio_s - min(max(played_s, 0.0), self.audio_s))

    def stop(self, now: float) -> None:
        """Nothing more is played."""
        self._ends = now


def steps_for(lead_s: float, step_s: float, last: int, largest: int = STEPS[-1]) -> int:
    """Forwards for the next block: as many as leave `RESERVE` of what is ahead when it is ready; at
    most twice the last, down at once.

    Args:
      lead_s: seconds of speech that are ahead. step_s: seconds a forward takes. last: forwards of
        the block before; the first takes one, for the sake of the first sound. largest: block size.
    """
    fitting = [s for s in STEPS if s <= min(2 * last, largest) and s * step_s <= lead_s - RESERVE]
    return max(fitting, default=1)


class AdaptiveSteps:
    """`steps_for` block by block: call it before each, and say what the block `took`. A choice stands
    until then: the block may have been decoded with it.

    Attributes:
      chosen: of the blocks so far.

    Args:
      playback: of the response. clock: seconds, of that playback. largest: block size.
    """

    def __init__(self, playback: Playback, clock: Callable[[], float], largest: int) -> None:
        self.chosen: list[int] = []
        self._playback, self._clock, self._largest = playback, clock, largest
        self._next: int | None = None
        self._step_s = 0.0

    def __call__(self) -> int:
        """Forwards for the next block."""
        if self._next is None:
            lead = self._playback.lead(self._clock())
            last = self.chosen[-1] if self.chosen else 0
            self._next = steps_for(lead, self._step_s, last, self._largest)
        return self._next

    def took(self, seconds: float) -> None:
        """The block took so long, its part of the codec's work included."""
        steps = self()
        self.chosen.append(steps)
        self._step_s, self._next = seconds / steps, None


def heard_text(text: str, words: Sequence[Word], played_s: float, audio_s: float) -> str:
    """The beginning of a text of which `played_s` of `audio_s` seconds were heard, up to the word
    that was being said.

    words: those spoken so far and when; a number may be written in one word and spoken in three.
    Without any, the time decides.
    """
    written = list(re.finditer(r"\S+", text))
    if played_s <= 0 or not written:
        return ""
    if words:
        spoken = [_plain(word.text) for word in words]
        begun = sum(word.start < played_s for word in words)
        count = _aligned(spoken, [_plain(word.group()) for word in written], begun)
    else:
        count = math.ceil(len(written) * min(played_s / max(audio_s, 1e-9), 1.0))
    return text[: written[count - 1].end()] if count else ""


def _aligned(spoken: Sequence[str], written: Sequence[str], begun: int) -> int:
    """How many written words the first `begun` spoken ones are; one that has begun counts."""
    before = (0, 0)
    matcher = difflib.SequenceMatcher(None, spoken, written, autojunk=False)
    for a, b, size in matcher.get_matching_blocks():
        if begun <= a:  # in what is said otherwise than it is written
            share = (begun - before[0]) / max(a - before[0], 1)
            return before[1] + math.ceil(share * (b - before[1]))
        if begun <= a + size:
            return b + begun - a
        before = a + size, b + size
    return len(written)


def _plain(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())
