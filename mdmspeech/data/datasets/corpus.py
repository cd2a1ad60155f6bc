"""The corpus as training and evaluation see it: parts of it, by split.

    <root>/datasets/recordings/<part>/<version>/     "open", "answers", "questions", own ones by name
    <root>/datasets/tokens/<part>/<version>/
    <root>/datasets/states/<name>/<version>/         "questions", "phones"

The root is a folder or a bucket ("gs://bucket/corpus").
"""

import os
from collections.abc import Sequence

import numpy as np

from mdmspeech import remote
from mdmspeech.data.datasets.features import VERSION
from mdmspeech.data.datasets.reader import Dataset, Subset
from mdmspeech.data.datasets.writer import INFO
from mdmspeech.data.storage.record_store import chosen_root, data_root
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.errors import UserError

Root = str | os.PathLike | None


def folder_of(root: Root, kind: str, part: str) -> str:
    """Where a dataset is or will be."""
    chosen = chosen_root(root)
    place = chosen if remote.is_remote(chosen) else data_root(root)
    return remote.join(place, "datasets", kind, part, VERSION)


def is_there(root: Root, kind: str, part: str) -> bool:
    """Whether a dataset has been made, whole."""
    return remote.exists(remote.join(folder_of(root, kind, part), INFO))


def splits_of(root: Root, kind: str, part: str) -> tuple[str, ...]:
    """The splits that it has."""
    folder = folder_of(root, kind, part)
    return tuple(s for s in SPLITS if remote.exists(remote.join(folder, f"index-{s}.safetensors")))


def open_part(root: Root, kind: str, part: str, split: str) -> Dataset:
    """One dataset. UserError, with the command that makes it, if it is not there."""
    if split not in (has := _splits_there(root, kind, part)):
        raise UserError(
            f"{folder_of(root, kind, part)} has no {split} records, it has {' and '.join(has)}"
        )
    return _open(root, kind, part, split)


def _open(root: Root, kind: str, part: str, split: str) -> Dataset:
    return Dataset(folder_of(root, kind, part), split, _CURES[kind].format(part=part))


def _splits_there(root: Root, kind: str, part: str) -> tuple[str, ...]:
    """The splits of a dataset; UserError, with the command that makes it, if it is not there."""
    if not is_there(root, kind, part):
        cure = _CURES[kind].format(part=part)
        raise UserError(f"{folder_of(root, kind, part)} is missing; make it with: {cure}")
    return splits_of(root, kind, part)


def speech(root: Root, parts: Sequence[str], split: str, may_be_empty: bool = False) -> Subset:
    """Recordings of the answer voice (24 kHz): "train", "val" (what runs are steered by, see
    `storage.splits`) or "test".

    Raises:
      UserError: a part is missing, or the split is empty and may not be.
    """
    has = {part: _splits_there(root, "recordings", part) for part in parts}
    found = [_open(root, "recordings", part, split) for part in parts if split in has[part]]
    if not found and not may_be_empty:
        raise UserError(
            f"no {split} recordings in {', '.join(parts)} under {folder_of(root, 'recordings', '')}"
            f'; add recordings, or "split": "{split}" to some lines of your manifest'
        )
    return Subset(found)


QUESTION_PARTS = ("kokoro", "questions")


def questions(
    root: Root,
    split: str,
    hours: float | None = None,
    parts: Sequence[str] = QUESTION_PARTS,
) -> Subset:
    """Spoken questions (16 kHz, many voices) of a split, or `hours` of them: the first of each part,
    as much of one as of another as long as it lasts. Parts that are not there are left out;
    UserError if there is none.
    """
    found = [
        open_part(root, "recordings", part, split)
        for part in parts
        if split in splits_of(root, "recordings", part)
    ]
    if not found:
        raise UserError(
            f"no {split} questions in {folder_of(root, 'recordings', '{' + ','.join(parts) + '}')}; "
            f"make them with: {_CURES['recordings'].format(part=parts[-1])}"
        )
    if hours is None:
        return Subset(found)
    seconds = [part.counts("samples") / part.counts("rate") for part in found]
    most = _share([float(part.sum()) for part in seconds], hours * 3600)
    before = [np.cumsum(part) - part for part in seconds]
    return Subset(found, of_each=[int(np.searchsorted(part, most, side="left")) for part in before])


def _share(sizes: Sequence[float], wanted: float) -> float:
    """How much of each is taken, if it has so much, for `wanted` of all together."""
    for place, size in enumerate(sorted(sizes)):
        share = wanted / (len(sizes) - place)
        if size >= share:
            return share
        wanted -= size
    return max(sizes)


def whole(root: Root, kind: str, part: str) -> Subset:
    """All of a part, whatever its split."""
    splits = _splits_there(root, kind, part)
    return Subset([_open(root, kind, part, split) for split in splits])


def tokens(
    root: Root, parts: Sequence[str], split: str, codec: str | None = None, needs_text: bool = False
) -> Subset:
    """Speech tokens with their texts. codec: the fingerprint they must have been made by, see
    `make.fingerprint`.

    Raises:
      UserError: a part is missing, was made by another codec, or has no text where that is needed.
    """
    found = []
    for part in parts:
        cure = _CURES["tokens"].format(part=part)
        if split not in _splits_there(root, "tokens", part):
            continue
        dataset = _open(root, "tokens", part, split)
        if codec and dataset.about.get("codec") != codec:
            raise UserError(
                f"{dataset.folder} was made by codec {dataset.about.get('codec')}, not {codec}; "
                f"make it with: {cure}"
            )
        if needs_text and not dataset.fields(0)["text"]:
            raise UserError(
                f"{dataset.folder} holds no texts, which fixed anchors need; make it with: {cure}"
            )
        found.append(dataset)
    if not found:
        raise UserError(f"no {split} records in the tokens of {', '.join(parts)}")
    subset = Subset(found)
    one_codec([subset])
    return subset


def one_codec(subsets: Sequence[Subset]) -> None:
    """A UserError if tokens were made by different codecs: a number means another sound in each."""
    made_by: dict[str, str] = {}
    for subset in subsets:
        for dataset in subset.datasets:
            made_by.setdefault(str(dataset.about.get("codec")), dataset.folder)
    if len(made_by) > 1:
        (one, first), (other, second) = list(made_by.items())[:2]
        raise UserError(
            f"{first} has tokens of codec {one}, {second} those of codec {other}: make them all "
            "with one (mdmspeech data --tokens --codec NAME --parts ...)"
        )


def states(root: Root, name: str, split: str) -> Dataset:
    """Speech-encoder states of "questions" or "phones"."""
    return open_part(root, "states", name, split)


_CURES = {
    "recordings": "mdmspeech data (from recordings that are there: mdmspeech data --parts datasets;"
    " own ones: mdmspeech data --manifest FILE --name {part})",
    "tokens": "mdmspeech data --tokens --parts {part} (own recordings: mdmspeech data --manifest "
    "FILE --name {part})",
    "states": "mdmspeech data --states (for the aligner: mdmspeech data --phones 700)",
}
