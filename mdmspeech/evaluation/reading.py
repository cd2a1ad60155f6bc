"""Is written text read as people read it? A table of written texts and hand-written spoken words
(reading.tsv), spoken by a release and heard by a recogniser.

Word error rates elsewhere count against the words that the program itself made of a text, which
hides a wrong reading ("no." said as "number"). Here the reference was written by hand, so a wrong
reading counts as an error, whoever made it.
"""

import dataclasses
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.scoring import canonical
from mdmspeech.text.normalise import normalise

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

TABLE = "reading.tsv"


@dataclasses.dataclass(frozen=True)
class Row:
    """kind: what is tried ("money"). written: as a user types it. said: the words of a person who
    reads it aloud, with pauses as punctuation.
    """

    kind: str
    written: str
    said: str


def table() -> list[Row]:
    """All rows of the shipped table, in order."""
    lines = (
        (resources.files("mdmspeech") / "evaluation" / TABLE)
        .read_text(encoding="utf-8")
        .splitlines()
    )
    cells = [
        line.split("\t")
        for line in lines
        if line and not line.startswith("#\t") and line.count("\t") == 2
    ]
    return [Row(kind, _plain(written), said) for kind, written, said in cells]


def words(said: str) -> list[str]:
    """Words without case and punctuation, for comparing two readings: "Main Street. It" -> ["main",
    "street", "it"].
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", said.lower())


def evaluate_reading(
    assistant: "Assistant", recogniser: Recogniser, count: int | None = None
) -> dict[str, Any]:
    """Speaks the written texts and counts what is heard against the words by hand.

    Returns: the recogniser's figures over all rows ("wer", "wer_95", "cer", "words"), how many rows
      were read as written down by hand before any sound was made ("read_right" of "count"), the
      word error rate of each kind, and "items" with what was written, wanted and read.
    count: so many rows, spread over the table (None: all).
    """
    rows = [row for row in table() if words(row.said)]
    if count is not None and count < len(rows):
        rows = [
            rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))
        ]
    speeches = in_batches(
        lambda texts: assistant.say_many(texts, seed=0),
        [row.written for row in rows],
        "texts as written",
    )
    rate, waves, said = (
        speeches[0].sample_rate,
        [speech.audio for speech in speeches],
        [row.said for row in rows],
    )
    read = [normalise(row.written) for row in rows]
    kinds = {}
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [n for n, row in enumerate(rows) if row.kind == kind]
        kinds[kind] = recogniser.spoken_errors(
            [waves[n] for n in of_kind], [said[n] for n in of_kind], rate, label=f"reading: {kind}"
        ).report()
    return {
        **recogniser.spoken_errors(waves, said, rate, label="reading: all").report(),
        "count": len(rows),
        "read_right": sum(
            canonical(got) == canonical(row.said) for got, row in zip(read, rows, strict=True)
        ),
        "kinds": kinds,
        "items": [
            {"written": row.written, "wanted": row.said, "read": got}
            for row, got in zip(rows, read, strict=True)
        ],
    }


def _plain(cell: str) -> str:
    cell = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), cell)
    return cell.replace("\\n", "\n").replace("\\t", "\t")
