"""The share of one host of a pod: the global batch is cut into as many runs of rows as there are
hosts, so that the batches do not depend on their number.
"""

from collections.abc import Sequence
from typing import Any

from mdmspeech.errors import UserError

Shard = tuple[int, int]  # (number of this host, number of hosts)


def host_rows(batch: int, shard: Shard) -> slice:
    """Rows h B/n .. (h+1) B/n of a global batch of B for host h of n. UserError if B does not divide."""
    number, count = shard
    if not 0 <= number < count:
        raise UserError(f"host {number} of {count}: hosts are counted from 0")
    if batch < 1 or batch % count:
        raise UserError(
            f"a batch of {batch} rows does not divide among {count} hosts; make "
            f"data.batch a multiple of {count}"
        )
    return slice(number * batch // count, (number + 1) * batch // count)


class HostShare:
    """Random access to this host's elements of a global sequence whose every `batch` elements are
    one batch: Grain batches it by `batch` / n.
    """

    def __init__(self, elements: Sequence[Any], batch: int, shard: Shard):
        self._elements, self._batch, self._rows = elements, batch, host_rows(batch, shard)

    @property
    def rows(self) -> int:
        """Rows of a batch that are this host's."""
        return self._rows.stop - self._rows.start

    def __len__(self) -> int:
        return len(self._elements) // self._batch * self.rows

    def __getitem__(self, i: int) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        number, row = divmod(int(i), self.rows)
        return self._elements[number * self._batch + self._rows.start + row]
