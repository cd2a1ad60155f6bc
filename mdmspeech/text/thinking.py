"""What a model writes between `<think>` and `</think>` is not its answer: told apart while it
streams, token by token.
"""

from collections.abc import Sequence
from typing import Any

OPEN, CLOSE = "<think>", "</think>"
_HALF = 3  # characters of a tag that nobody writes without meaning one
# after an `OPEN` of the template: an answer without a thought, as Qwen3 writes it
CLOSED_AT_ONCE = f"\n{CLOSE}\n\n"


def opens_thought(prompt: str) -> bool:
    """Whether an answer begins inside a thought after this end of a prompt: its last `<think>` has
    no `</think>`.
    """
    return prompt.rfind(OPEN) > prompt.rfind(CLOSE)


class ThoughtFilter:
    """Passes the answer, keeps thoughts and their tags back; a tag may be spread over any number of
    tokens, or be a part of one.

    Text that might become a tag waits until it is decided. White space after a thought belongs to
    the thought.

    Attributes:
      inside: whether the next text belongs to a thought.

    Args:
      inside: the prompt has opened a thought.
    """

    def __init__(self, inside: bool = False) -> None:
        self.inside = inside
        self._closed = False  # a thought has just ended: white space is still its own
        self._waiting: list[tuple[str, Any]] = []

    def push(self, text: str, token: Any) -> tuple[str, list[Any]]:
        """The next token with the text it completes (perhaps "") -> what is decided to be answer
        now: text, and the tokens it is made of.
        """
        self._waiting.append((text, token))
        shown, tokens = "", []
        while True:
            joined = "".join(text for text, _ in self._waiting)
            if self._closed:
                rest = joined.lstrip()
                self._take(len(joined) - len(rest), keep=False)
                if not rest:
                    return shown, tokens
                self._closed, joined = False, rest
            tags = (CLOSE,) if self.inside else (OPEN, CLOSE)
            found = min(((at, tag) for tag in tags if (at := joined.find(tag)) >= 0), default=None)
            held = _beginning(joined, tags) if found is None else len(joined) - found[0]
            # one more than there is: tokens without a text go along
            cut = len(joined) - held + (held == 0)
            part, these = self._take(cut, keep=not self.inside)
            shown, tokens = shown + part, tokens + these
            if found is None:
                return shown, tokens
            self._take(len(found[1]), keep=False)
            self.inside, self._closed = found[1] == OPEN, found[1] == CLOSE

    def finish(self, text: str = "") -> tuple[str, list[Any]]:
        """The answer has ended, with this text: a "<" that waited to become a tag and did not is
        answer, half a tag and an unfinished thought are not.
        """
        self._waiting.append((text, _TAKEN))
        waiting = "".join(text for text, _ in self._waiting)
        half = _beginning(waiting, (OPEN, CLOSE))
        shown = self._take(
            len(waiting) - (half if half >= _HALF else -1), keep=not (self.inside or self._closed)
        )
        self._waiting.clear()
        return shown

    def _take(self, count: int, keep: bool) -> tuple[str, list[Any]]:
        """Takes `count` characters off the waiting ones, and the tokens that begin in them; a token
        that goes on after them stays, if they are not kept.
        """
        shown, tokens = "", []
        while self._waiting and count > 0:
            text, token = self._waiting[0]
            part, rest = text[:count], text[count:]
            count -= len(part)
            if rest:
                self._waiting[0] = (rest, _TAKEN if keep else token)
            else:
                self._waiting.pop(0)
            if keep:
                shown += part
                tokens += [] if token is _TAKEN else [token]
        return shown, tokens


_TAKEN = object()  # in place of a token whose first part was answer


def _beginning(text: str, tags: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a tag."""
    return max((n for tag in tags for n in range(1, len(tag)) if text.endswith(tag[:n])), default=0)
