"""What was said in answers with an id, so that a client can name one instead of sending it again."""

import secrets
import time
from collections.abc import Callable

KEPT_S = 3600  # seconds that an answer can be named
_MOST = 1000  # answers


class AudioMemory:
    """Texts by id; the oldest go first.

    Args:
      clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._texts: dict[str, tuple[float, str]] = {}
        self._clock = clock

    def new_id(self) -> str:
        """One that nobody can guess."""
        return f"audio_{secrets.token_hex(16)}"

    def keep(self, name: str, text: str) -> int:
        """The text of an answer; until when, in seconds since 1970."""
        ends = self._clock() + KEPT_S
        self._texts[name] = ends, text
        while len(self._texts) > _MOST:
            del self._texts[next(iter(self._texts))]
        return int(ends)

    def find(self, name: str) -> str | None:
        """The text; None: there is none, or it was too long ago."""
        ends, text = self._texts.get(name, (0.0, None))
        return text if ends > self._clock() else None
