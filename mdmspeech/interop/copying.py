"""A release written again as it was opened: the same files, byte for byte, and what was exchanged
since. What is elsewhere of its system (a Thinker by its path) is put in, so that the folder can be
passed on.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mdmspeech import remote
from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.files import written_whole
from mdmspeech.interop import card as cards
from mdmspeech.interop import hub, sources
from mdmspeech.interop.assembly import ENCODER, THINKER, digest
from mdmspeech.interop.release import (
    CARD,
    CONFIG,
    Release,
    check_destination,
    read_about,
    store_part,
)

_DATA = (".json", ".safetensors", ".jinja", ".txt")


def copy_release(
    folder: str | os.PathLike,
    release: Release,
    *,
    changed: Collection[str] = (),
    thinker: str | os.PathLike | None = None,
) -> list[str]:
    """Writes a release that was opened from a folder; returns the names of the files, config.json as
    the first.

    Args:
      changed: names of the parts that are not those of that folder any more; they are stored as
        they are, in float32. thinker: the Hugging Face folder of the one it now works with, if it is
        not its own.

    Raises:
      UserError: a folder of something else; a Thinker or encoder that no release can hold.
    """
    if release.folder is None:
        raise UserError(f"release {release.name!r} was not opened from a folder: use save_release")
    target, about = check_destination(folder), read_about(release.folder)
    if target.absolute() == about.folder.absolute():
        raise UserError(f"{folder} is the release itself; give another folder")
    raw = json.loads(json.dumps(about.raw))
    raw |= {"system": release.system, "examples": [list(turn) for turn in release.examples]}
    copied: dict[str, Path] = {}
    for name, source in ((THINKER, thinker or about.thinker), (ENCODER, about.encoder)):
        if str(source) in sources.PUBLISHED:
            raw[name] = str(source)
            continue
        found = _model_folder(name, source)
        copied |= {f"{name}/{path.name}": path for path in _data_files(found)}
        raw[name] = name
        if found.parent != about.folder:
            raw["digests"] = {**raw.get("digests", {}), name: digest(found)}
    for name, entry in raw["parts"].items():
        for kept in (entry, entry.get("tokenizer")):
            if kept and name not in changed:
                copied[kept["file"]] = about.folder / kept["file"]
    made = [f"{name}.safetensors" for name in changed]
    names = [CONFIG, CARD, *made, *copied]
    # they take their names when all are written, config.json as the last
    with contextlib.ExitStack() as files:
        new = {name: files.enter_context(written_whole(target / name)) for name in names}
        for name in changed:
            raw["parts"][name] = store_part(new[f"{name}.safetensors"], name, release.parts[name])
        for name, path in copied.items():
            shutil.copyfile(remote.whole(hub.fetched(path)), new[name])
        new[CARD].write_text(_card(about.folder, release), encoding="utf-8")
        new[CONFIG].write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    for path in (path for sub in (THINKER, ENCODER) for path in _data_files(target / sub)):
        if f"{path.parent.name}/{path.name}" not in names:  # of the release that was there before
            path.unlink()
    return names


def files_of(folder: str | os.PathLike) -> list[str]:
    """Names of the files of a release folder that belong to it, config.json as the first.

    Raises:
      UserError: as `read_about`; a Thinker or encoder that is neither in it nor brought by this
        package.
    """
    about = read_about(folder)
    names = [CONFIG, *([CARD] if (about.folder / CARD).is_file() else [])]
    for entry in about.raw["parts"].values():
        names += [each["file"] for each in (entry, entry.get("tokenizer")) if each]
    for name, source in ((THINKER, about.thinker), (ENCODER, about.encoder)):
        if source in sources.PUBLISHED:
            continue
        if Path(source).parent != about.folder:
            raise elsewhere(name, source)
        names += [f"{Path(source).name}/{path.name}" for path in _data_files(Path(source))]
    return names


def elsewhere(name: str, source: str) -> UserError:
    """That a part of a system is only on this machine."""
    return UserError(
        f"the {name} of this release is {source}, which others do not have: open the release with "
        "mdmspeech.load and use push_to_hub, which puts it in"
    )


def _model_folder(name: str, source: str | os.PathLike) -> Path:
    found = sources.local(source)
    if not (found / CONFIG).is_file() or not list(found.glob("*.safetensors")):
        raise UserError(
            f"the {name} is {source}: a release holds a Hugging Face folder with safetensors; write "
            f"one with `mdmspeech convert {source} NEW_FOLDER`, load the release with it, and save that"
        )
    return found


def _data_files(folder: Path) -> list[Path]:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [p for p in there if p.suffix in _DATA and not p.name.startswith(".") and p.is_file()]


def _card(folder: Path, release: Release) -> str:
    known: dict[str, Any] = cards.metadata(release)
    card = folder / CARD
    try:
        there = hub.has(card)
    except TryAgainError:  # no network: a card is no reason to fail
        there = False
    if not there:
        return cards.complete(cards.default_card(release), known)
    return cards.complete(remote.whole(card).read_text(encoding="utf-8"), known)
