"""Other people's corpora as one kind of record: `registry` finds out what a folder holds and opens
it, `survey` looks through it before anything long starts.

A format a file: `manifest`, `vocalnet`, `ljspeech`, `librispeech`, `libritts`, `vctk`,
`common_voice`, `parquet`, `voice_assistant`, `webdataset`. Under them `corpus` (what all share),
`records` (a record, its audio, what was wrong with one), `checks` (of a record), `tables` (lines
and cells), `files` (where bytes come from).
"""

from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.importers.registry import open_corpus

__all__ = ["BadItem", "Item", "open_corpus"]
