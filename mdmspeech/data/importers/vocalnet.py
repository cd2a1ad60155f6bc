"""VocalNet's conversations (https://github.com/SJTU-OmniAgent/VocalNet, "Data Preparation"): a JSON
list, or JSON lines, of {"id", "speech": "SET/audios/1.wav", "conversations": [human, gpt],
"units": "SET/cosyvoice2_tokens/1.npy"}, paths relative to the folder that holds SET.
"""

from collections.abc import Iterator
from typing import Any

from mdmspeech.data.importers import checks
from mdmspeech.data.importers.corpus import Corpus, Part, split_of
from mdmspeech.data.importers.files import is_folder, join, parent, size_of
from mdmspeech.data.importers.manifest import entry_item, first_object, lists
from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.importers.tables import read_objects
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError

_CODECS = ("cosyvoice2", "cosyvoice", "snac", "mimi", "glm4")  # as folders of tokens are called


class VocalNet(Corpus):
    """folder: what the paths are relative to, if neither the list's folder nor the one above."""

    format = "vocalnet"
    looks_like = 'a .json list of {"id", "speech", "conversations"}'
    options = ("folder",)

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        return any("conversations" in first_object(join(root, name)) for name in lists(root, names))

    def list_parts(self) -> list[Part]:
        return [
            Part(name)
            for name in lists(self.root, self.names)
            if "conversations" in first_object(join(self.root, name))
        ]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        for where, entry in read_objects(join(self.root, part.name)):
            try:
                if isinstance(entry, BadRecord):
                    raise entry
                yield self._item(where, entry, part)
            except BadItem as problem:
                yield problem
            except BadRecord as problem:
                yield BadItem(where, str(problem), "line not usable")
            except UserError:  # of the place, not of the record
                raise
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
                reason = f"not the expected layout ({type(error).__name__}: {error})"
                yield BadItem(where, reason, "line not usable")

    def _item(self, where: str, entry: dict[str, Any], part: Part) -> Item | BadItem:
        record = checks.from_vocalnet(entry)
        if isinstance(entry.get("answer_audio"), str):
            record["answer_audio"] = entry["answer_audio"]
        codec = codec_of(record.get("units", ""))
        for name in ("audio", "units", "answer_audio"):
            if name in record:
                record[name] = self._place(record[name])
        split = split_of(part.name) if "split" not in entry else ""
        return entry_item(
            self, where, record, "", split or record["split"], codec, needs_text=False
        )

    def _place(self, path: str) -> str:
        """Where a path of the list leads: from the folder above the list's, as VocalNet lays it
        out, or from the list's own where the set was unpacked under another name.
        """
        if "folder" in self.settings:
            return join(self.settings["folder"], path)
        place, inner = join(parent(self.root), path), path.partition("/")[2]
        if size_of(place) is None and is_folder(join(self.root, parent(inner or path))):
            return join(self.root, inner or path)
        return place


def codec_of(path: str) -> str:
    """Whose tokens a path's words say that they are; "" if they do not."""
    return next((codec for codec in _CODECS if codec in path.lower()), "")
