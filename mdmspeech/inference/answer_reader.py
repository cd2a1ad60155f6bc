"""The tokens of one answer, as a Thinker reads them: one after the other, and drafts ahead of them
where the answer seems to repeat what was asked.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mdmspeech.decoding.prompt_lookup import lookup
from mdmspeech.models.generation import ThinkerState

DRAFTS = 3  # tokens that are read ahead, at most


class AnswerReader:
    """Takes the best token, or any other, and reads it; which tokens are best does not depend on
    the drafts.

    Attributes:
      state: what has been read: the question, `ids`, and perhaps right drafts behind them.
      ids: the tokens that were taken.

    Args:
      advance: (state, token [1]) -> ([Emb(y); h] [1, 2D], state). verify: (state, ids [T]) ->
        (count, [Emb(y); h] [T, 2D], state), see `generation.verify`. best: logits [1, V] -> [1].
      state: a one-row state before an answer. context: ids that the answer may repeat; none: no
        drafts. stop_ids: never drafted. states: whether what was read of them is wanted.
    """

    def __init__(
        self,
        advance: Callable,
        verify: Callable,
        best: Callable,
        state: ThinkerState,
        context: Sequence[int] = (),
        stop_ids: Sequence[int] = (),
        states: bool = False,
    ) -> None:
        self.state, self.ids, self._reads = state, list[int](), list[np.ndarray]()
        self._advance, self._verify, self._best = advance, verify, best
        self._begin = int(state.lengths_B[0])
        self._context, self._stop_ids, self._states = list(context), stop_ids, states
        self._ahead: deque[tuple[int, Any]] = deque()  # right drafts, with what was read of each
        self._verified: tuple[Any, list[int], Any] | None = None

    def best(self) -> int:
        """The token that the Thinker would write now."""
        self._look_at_drafts()
        return self._ahead[0][0] if self._ahead else int(self._best(self.state.logits_BV)[0])

    def take(self, token: int, most: int = 0) -> None:
        """The answer goes on with this token, and `most` others may follow it.

        The device may still be reading it when this returns.
        """
        self._look_at_drafts()
        if self._ahead and self._ahead[0][0] != token:
            # what was not taken is not read: columns behind a state's length are free
            self._ahead.clear()
            lengths_B = np.array([self._begin + len(self.ids)], np.int32)
            self.state = dataclasses.replace(self.state, lengths_B=jax.device_put(lengths_B))
        self.ids.append(token)
        if self._ahead:
            self._remember(self._ahead.popleft()[1])
            return
        most = min(most, DRAFTS) if self._context else 0
        drafts = lookup([*self._context, *self.ids], most, self._stop_ids) if most else []
        if drafts:
            unused = [-1] * (DRAFTS - len(drafts))
            count, read_TE, self.state = self._verify(
                state=self.state, ids_T=np.array([token, *drafts, *unused], np.int32)
            )
            self._verified = count, drafts, read_TE
        else:
            read_BE, self.state = self._advance(
                state=self.state, token_B=np.array([token], np.int32)
            )
            self._remember(read_BE)

    def reads(self) -> list[np.ndarray]:
        """[Emb(y); h] of each of `ids`, float32 [1, 2D]; none unless `states`."""
        self._look_at_drafts()
        return self._reads

    def _look_at_drafts(self) -> None:
        """Waits for the device to say which drafts are right, if it was asked."""
        if self._verified is None:
            return
        (count, drafts, read_TE), self._verified = self._verified, None
        # slices of what is on the device would be programs of their own
        rows_TE = np.asarray(read_TE) if self._states else np.zeros((len(drafts) + 1, 0))
        self._remember(rows_TE[:1])
        self._ahead.extend((drafts[i], rows_TE[i + 1 : i + 2]) for i in range(int(count) - 1))

    def _remember(self, read_BE: Any) -> None:
        if self._states:
            self._reads.append(np.asarray(read_BE))
