"""The items of a conversation, as the protocol shows them: what was said, in order, by whom."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from mdmspeech.serving.checks import choice, mapping, text, wrong
from mdmspeech.serving.realtime.audio import Pcm, decode
from mdmspeech.serving.request_error import RequestError, refused

Role = Literal["user", "assistant", "system"]
MOST_ITEMS = 4096
_MOST_PARTS = 64

_KINDS = {
    "user": {"input_text": "text", "input_audio": "audio"},
    "assistant": {"output_text": "text", "text": "text", "output_audio": "transcript"},
    "system": {"input_text": "text"},
}
_TOOLS = "this model calls no tools"


@dataclasses.dataclass
class Item:
    """One.

    Attributes:
      kind: of its content. text: or transcript; None: not known. number: of the session's question or
        response. status: of the protocol. told: whether a client knows of it. doomed: to be deleted
        when it is there.
    """

    id: str
    role: Role
    kind: str
    text: str | None = None
    status: str = "completed"
    number: int | None = None
    told: bool = False
    doomed: bool = False

    def shown(self) -> dict[str, Any]:
        """As an `item`."""
        key = "text" if self.kind.endswith("text") else "transcript"
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": [{"type": self.kind, key: self.text}] if self.kind else [],
        }


class Items:
    """Of one conversation.

    Args:
      new_id: makes ids.
    """

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self._items: dict[str, Item] = {}
        self._new_id = new_id

    def add(self, role: Role, kind: str, text: str | None = None, item_id: str = "") -> Item:
        """One more, at the end. RequestError: there are too many."""
        if len(self._items) >= MOST_ITEMS:
            raise RequestError(f"a conversation has at most {MOST_ITEMS} items; delete some")
        item = Item(item_id or self._new_id("item"), role, kind, text)
        self._items[item.id] = item
        return item

    def __contains__(self, item: Item) -> bool:
        return item.id in self._items

    def last(self) -> Item | None:
        """The one at the end."""
        return self._items[next(reversed(self._items))] if self._items else None

    def tell(self, item: Item) -> str | None:
        """It is there, behind all others that are: the id of the one before it."""
        item.told = True
        others = [one.id for one in self._items.values() if one.told and one is not item]
        if item.id in self._items:
            self._items[item.id] = self._items.pop(item.id)
        return others[-1] if others else None

    def find(self, item_id: Any, param: str = "item_id", code: str | None = None) -> Item:
        """RequestError: there is none."""
        if not isinstance(item_id, str):
            raise wrong(param, item_id, "the id of an item")
        if item_id not in self._items:
            raise RequestError(
                f"there is no item {item_id[:60]!r}", param, code=code or "item_not_found"
            )
        return self._items[item_id]

    def numbered(self, role: Role, number: int) -> Item | None:
        """The one with the session's number of a question or response."""
        return next(
            (
                one
                for one in reversed(self._items.values())
                if one.role == role and one.number == number
            ),
            None,
        )

    def remove(self, item: Item) -> None:
        """It was never said."""
        self._items.pop(item.id, None)

    def check_place(self, previous: Any) -> None:
        """An item can only be put at the end. RequestError: another place."""
        if previous is None:
            return
        if not isinstance(previous, str):
            raise wrong("previous_item_id", previous, "the id of the last item")
        last = self.last()
        if previous != ("root" if last is None else last.id):
            if previous != "root":
                self.find(previous, "previous_item_id")
            raise refused(
                "previous_item_id", "items are put at the end: leave it out, or name the last one"
            )

    def check_new(self, item_id: Any) -> str:
        """An id that a client gives, or "" if it gives none."""
        if item_id is None:
            return ""
        given = text(64, empty=False)("item.id", item_id)
        if given in self._items:
            raise RequestError(
                f"there is an item {given!r} already", "item.id", code="item_already_exists"
            )
        return given


@dataclasses.dataclass(frozen=True)
class NewItem:
    """What a client wants to have been said. sound: samples int16 [N]; None: it is `text`."""

    role: Role
    text: str
    sound: np.ndarray | None = None


def read_item(given: Any, most: int) -> NewItem:
    """Of `conversation.item.create`. most: characters.

    RequestError: one that cannot be honoured.
    """
    item = mapping("item", given)
    kind = item.get("type", "message")
    if kind != "message":
        if not isinstance(kind, str):
            raise wrong("item.type", kind, '"message"')
        raise refused("item.type", f"there are messages; of {kind[:40]!r} {_TOOLS}")
    role = choice(*_KINDS)("item.role", item.get("role"))
    parts = item.get("content")
    if not isinstance(parts, list) or not 1 <= len(parts) <= _MOST_PARTS:
        raise wrong("item.content", parts, f"a list of 1 to {_MOST_PARTS} parts")
    texts, sounds = [], []
    for at, part in enumerate(parts):
        where = f"item.content[{at}]"
        found = mapping(where, part)
        kind = found.get("type")
        if kind == "input_image":
            raise refused(f"{where}.type", "this model sees no images")
        if not isinstance(kind, str) or kind not in _KINDS[role]:
            raise wrong(f"{where}.type", kind, " or ".join(f'"{one}"' for one in _KINDS[role]))
        name = _KINDS[role][kind]
        if name == "audio":
            sounds.append(Pcm().push(decode(found.get("audio"), f"{where}.audio")))
        else:
            texts.append(text(most)(f"{where}.{name}", found.get(name)))
    if texts and sounds:
        raise refused("item.content", "texts and sound in one item: make an item of each")
    if sounds:
        return NewItem("user", "", np.concatenate(sounds))
    said = " ".join(texts)
    if not any(character.isalnum() for character in said):
        raise RequestError("there are no words in the item", "item.content", code="invalid_value")
    return NewItem(role, said)
