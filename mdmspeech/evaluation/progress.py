"""A progress bar with the time left over calls that take many items at once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Made = TypeVar("Made")
BATCH = 32


def in_batches(
    make: Callable[[Sequence[Item]], list[Made]],
    items: Sequence[Item],
    label: str,
    size: int = BATCH,
) -> list[Made]:
    """`make` over all items, `size` at a time, in order."""
    made: list[Made] = []
    with tqdm(total=len(items), desc=label, unit="clip", leave=False) as bar:
        for start in range(0, len(items), size):
            part = items[start : start + size]
            made += make(part)
            bar.update(len(part))
    return made
