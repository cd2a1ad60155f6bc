"""The frozen Thinker's states of the answers, computed once: a dataset beside the tokens, record by
record, so that a Talker with fixed anchors is trained without running the Thinker.

A record has float16 [n, D]: h_i of each id of the answer, its end included, each the state of the
position that has consumed it (docs/method.md, "The Thinker"). They belong to one Thinker and to one
way of writing conversations, which the dataset says of itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from mdmspeech.data.datasets.corpus import Root, folder_of, is_there, open_part, splits_of, tokens
from mdmspeech.data.datasets.reader import Dataset, Subset
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.pipelines.chats_packed import PackedRow
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.errors import UserError

_LENGTH = 256  # ids of a row; longer where a conversation needs it, in steps of so many


def states_name(part: str) -> str:
    """The dataset of states of a part."""
    return f"thinker_{part}"


class WithStates:
    """Random access to records of tokens like `reader.Subset`, each with the "states" of its answer.

    Args:
      records: tokens of a part. states: those of the same part and split.

    Raises:
      UserError: they are of other records; reading one, of another text.
    """

    def __init__(self, records: Any, states: Any, cure: str = ""):
        self.records, self._states, self._cure = records, states, cure
        if len(records) != len(states):
            raise UserError(
                f"the Thinker's states are of {len(states)} records, the tokens of {len(records)}: "
                f"make them again with: {cure}"
            )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([int(i)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several at once."""
        records, states = _read(self.records, numbers), _read(self._states, numbers)
        for record, found in zip(records, states, strict=True):
            if (record["id"], record["text"]) != (found["id"], found["text"]):
                raise UserError(
                    f"the Thinker's states of record {record['id']!r} are those of {found['id']!r}, "
                    f"or of another text: make them again with: {self._cure}"
                )
        return [r | {"states": s["states"]} for r, s in zip(records, states, strict=True)]

    def __getattr__(self, name: str) -> Any:
        # what the tokens tell of themselves: counts, fields, content, ...
        if name.startswith("_") or name == "records":
            raise AttributeError(name)
        return getattr(self.records, name)


def _read(source: Any, numbers: Sequence[int]) -> list[Any]:
    if hasattr(source, "__getitems__"):
        return source.__getitems__(numbers)
    return [source[i] for i in numbers]


def with_states(
    root: Root, part: str, split: str, records: Subset, chat: Conversations, mark: str, width: int
) -> WithStates:
    """The records of a part's tokens with the states that were made of them.

    Args:
      mark: of the Thinker that an experiment names, see `interop.loaders.thinker_mark`. width: its.

    Raises:
      UserError: there are none, or those of another Thinker, tokenizer or prompt; it says how to
        make them.
    """
    cure = f"mdmspeech data --states --thinker DIR --parts {part}"
    if not is_there(root, "states", states_name(part)):
        raise UserError(f"there are no states of a Thinker of {part}; make them with: {cure}")
    states: Dataset = open_part(root, "states", states_name(part), split)
    made_by = {"thinker": mark, "conversation": chat.fingerprint}
    for what, ours in made_by.items():
        if (theirs := states.about.get(what)) != ours:
            words = {"thinker": "another Thinker", "conversation": "other conversations"}[what]
            raise UserError(
                f"{states.folder} was made by {words} ({theirs}) than this experiment's ({ours}): "
                f"give it that Thinker and prompt, or make them again with: {cure}"
            )
    if states.about["width"] != width:
        raise UserError(
            f"{states.folder} has states of width {states.about['width']}, not {width}: make them "
            f"again with: {cure}"
        )
    return WithStates(records, states, cure)


def check_tokens(root: Root, part: str) -> None:
    """A UserError, with the command that makes them, if a part has no tokens to make states for."""
    if not is_there(root, "tokens", part):
        open_part(root, "tokens", part, "train")


def write_thinker_states(
    root: Root,
    part: str,
    chat: Conversations,
    compute: Callable[[np.ndarray, np.ndarray, np.ndarray], Any],
    mark: str,
    width: int,
    rows: int = 16,
) -> dict[str, int]:
    """Writes the states of all tokens of a part; returns the number of states of each split.

    Args:
      compute: (ids, segment, position), int32 [rows, N] -> states [rows, N, D], as
        `preprocessing.thinker_states.states_of` has it. A row begins with the prompt, once, and holds
        as many conversations behind it as fit.

    Raises:
      UserError: the part has no tokens, or a record no text.
    """
    check_tokens(root, part)
    counts = dict.fromkeys(splits_of(root, "tokens", part), 0)

    def records(split: str) -> Iterator[Mapping[str, Any]]:
        source = tokens(root, (part,), split, needs_text=True)
        fields = (source.fields(i) for i in range(len(source)))
        told = f"states of {part}, {split}"
        with tqdm.tqdm(total=len(source), desc=told, unit="utt", mininterval=2.0) as bar:
            for batch in _rows(fields, chat, rows):
                states_BND = np.asarray(compute(*batch.out.values()), np.float16)
                for one, row, start, stop in batch.answers:
                    counts[split] += stop - start
                    yield {**one, "states": states_BND[row, start:stop]}
                bar.update(len(batch.answers))

    about = {"part": part, "thinker": mark, "conversation": chat.fingerprint}
    folder = folder_of(root, "states", states_name(part))
    write_dataset(
        folder, "states", {split: records(split) for split in counts}, width=width, about=about
    )
    return counts


class _Rows:
    """Rows of conversations, see `chats_packed`.

    Attributes:
      out: ids, segment, position, int32 [B, N]. answers: (record, row, first place, place behind the
        last) of every answer, in the order of the records.
    """

    def __init__(self, rows: int, length: int, prompt: np.ndarray):
        names = ("ids", "segment", "position")
        self.out = {name: np.zeros((rows, length), np.int32) for name in names}
        self.answers: list[tuple[Mapping[str, Any], int, int, int]] = []
        self._last, self._prompt = rows - 1, prompt
        self._number, self._row = 0, PackedRow(self.out, 0, prompt)

    def add(self, record: Mapping[str, Any], ids: np.ndarray, answer: int) -> bool:
        """Whether there was a place for a whole conversation, whose answer begins there."""
        own = ids[len(self._prompt) :]
        if self._row.left < len(own) and self._number < self._last:
            self._number += 1
            self._row = PackedRow(self.out, self._number, self._prompt)
        if self._row.left < len(own):
            return False
        self._row.begin()
        self._row.write(own)
        stop = self._row.used
        self.answers.append((record, self._number, stop - len(ids) + answer, stop))
        return True


def _rows(records: Iterable[Mapping[str, Any]], chat: Conversations, count: int) -> Iterator[_Rows]:
    batch = _Rows(count, _LENGTH, chat.before)
    for record in records:
        ids, answer = chat.typed(record["question"], record["text"])
        if batch.add(record, ids, answer):
            continue
        if batch.answers:
            yield batch
        batch = _Rows(count, -(-len(ids) // _LENGTH) * _LENGTH, chat.before)
        batch.add(record, ids, answer)
    if batch.answers:
        yield batch
