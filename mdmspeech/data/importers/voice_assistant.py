"""VoiceAssistant-400K (https://huggingface.co/datasets/gpt-omni/VoiceAssistant-400K) and the like:
Parquet rows of split_name (the source), index, round, question, question_audio {bytes, path},
answer, answer_snac ("# seven tokens # seven tokens ..."); `answer_audio` where somebody decoded it.
"""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from mdmspeech.data.importers.corpus import Part
from mdmspeech.data.importers.files import join, parent
from mdmspeech.data.importers.parquet import (
    Parquet,
    clip_of,
    columns_of,
    first_columns,
    is_conversation,
    name_of,
    rows,
    words,
)
from mdmspeech.data.importers.records import BadItem, Item, Units

_SNAC = 7  # tokens of a frame
_COLUMNS = ("split_name", "index", "round", "question", "question_audio", "answer")
_ANSWERS = ("answer_snac", "answer_audio")
_NUMBERS = re.compile(r"[\d\s]*")


class VoiceAssistant(Parquet):
    """A record is one exchange: the question's audio and text, the answer's text and tokens."""

    format = "voice_assistant"
    looks_like = "train-00000-of-00325.parquet with the columns question_audio and answer"
    options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        return is_conversation(first_columns(root, names))

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        path = join(self.root, part.name)
        there = columns_of(path)
        wanted = [name for name in (*_COLUMNS, *_ANSWERS) if name in there]
        for where, row in rows(path, part.name, wanted):
            if isinstance(row, BadItem):
                yield row
                continue
            try:
                yield self._item(where, row, parent(path), part.split)
            except BadItem as problem:
                yield problem

    def _item(self, where: str, row: dict[str, Any], folder: str, split: str) -> Item | BadItem:
        clip = clip_of(where, row["question_audio"], folder)
        name = "-".join(filter(None, (words(row.get(key)) for key in _COLUMNS[:3])))
        if not words(row["answer"]):
            raise BadItem(where, "answer missing or empty", "answer not usable")
        answer = row.get("answer_audio")
        return self.item(
            where,
            name or name_of(clip),
            words(row.get("question")),
            clip,
            answer=words(row["answer"]),
            split=split,
            units=snac_units(where, words(row.get("answer_snac"))),
            answer_audio=clip_of(where, answer, folder) if answer else None,
            fields={"source": words(row.get("split_name"))},
            needs_text=False,
        )


def snac_units(where: str, written: str) -> Units | None:
    """Tokens of SNAC (24 kHz) as that corpus writes them, seven a frame. None if there are none.
    Raises BadItem for anything else.
    """
    values: list[int] = []
    for frame in filter(str.strip, written.strip("[]").split("#")):
        tokens = frame.split() if _NUMBERS.fullmatch(frame) else []
        if len(tokens) != _SNAC:
            reason = f"frame {len(values) // _SNAC + 1} of its tokens is {frame.strip()[:40]!r}"
            raise BadItem(where, f"{reason}, not {_SNAC} numbers", "answer tokens not readable")
        values += map(int, tokens)
    return Units(where, "snac", values=tuple(values), width=_SNAC) if values else None
