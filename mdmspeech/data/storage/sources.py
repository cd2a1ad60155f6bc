"""Random-access sources over the raw store, by part and split, for Grain."""

from collections.abc import Sequence
from pathlib import Path

from mdmspeech.data.storage.record_store import RecordStore, data_root
from mdmspeech.data.storage.splits import assign
from mdmspeech.errors import UserError

HELD_OUT = 200  # recordings of each part that no training stage sees


class Records:
    """Some records of some stores, in a fixed order: `len`, `[i]`."""

    def __init__(self, stores: Sequence[RecordStore], index: Sequence[tuple[int, int]]):
        self._stores, self._index = stores, list(index)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> dict:
        store, record = self._index[i]
        return self._stores[store][record]

    def fields(self, i: int) -> dict:
        """The record without its audio."""
        store, record = self._index[i]
        return self._stores[store].fields[record]


def speech(
    root: str | Path | None, parts: Sequence[str], split: str, may_be_empty: bool = False
) -> Records:
    """Records of the answer voice. Splits: "train", "val" (what runs are steered by, see `splits`),
    "test"; a record without a `split` field is training data except every n-th one.

    Raises `UserError` when a part is missing, or when the split is empty and may not be.
    """
    stores = [RecordStore(data_root(root) / "raw" / part) for part in parts]
    index = []
    for s, store in enumerate(stores):
        every = max(len(store) // HELD_OUT, 2)
        said = [
            record.get("split", "test" if i % every == 0 else "train")
            for i, record in enumerate(store.fields)
        ]
        found = assign([record.get("text") or str(record["id"]) for record in store.fields], said)
        index += [(s, i) for i, one in enumerate(found) if one == split]
    if not index and not may_be_empty:
        cure = (
            f'add recordings, or "split": "{split}" to some lines of your manifest'
            if any(map(len, stores))
            else "make them with: mdmspeech data"
        )
        raise UserError(
            f"no {split} recordings in {', '.join(parts)} under {data_root(root)}; {cure}"
        )
    return Records(stores, index)


def questions(
    root: str | Path | None,
    split: str,
    hours: float | None = None,
    parts: Sequence[str] = ("kokoro", "questions"),
) -> Records:
    """Spoken questions (16 kHz, many voices) of a split, the first `hours` of them. Parts that are not
    there are left out.
    """
    folders = [data_root(root) / "raw" / part for part in parts]
    stores = [RecordStore(folder) for folder in folders if folder.is_dir()]
    index, seconds = [], 0.0
    for s, store in enumerate(stores):
        said = [record.get("split", "train") for record in store.fields]
        # the corpus's own questions have some; those of other people need not
        if "val" not in said:
            said = assign(
                [record.get("text") or str(record["id"]) for record in store.fields], said
            )
        for i, record in enumerate(store.fields):
            if said[i] != split or (hours is not None and seconds > hours * 3600):
                continue
            index.append((s, i))
            seconds += record["samples"] / record["rate"]
    if not index:
        raise UserError(
            f"no {split} questions under {data_root(root) / 'raw'}; make them with: mdmspeech data"
        )
    return Records(stores, index)
