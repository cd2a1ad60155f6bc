"""Speech tokens and encoder states that versions before 2.0 of the layout kept in files of their
own: made into datasets, record by record the same, in the same order.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from mdmspeech.data.datasets.corpus import Root, folder_of, is_there
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.storage.record_store import data_root
from mdmspeech.data.storage.splits import SPLITS, assign
from mdmspeech.errors import UserError

_TEXTS = ("id", "text", "question")


def upgrade(root: Root) -> dict[str, dict[str, int]]:
    """Every such file under the root that has no dataset yet; the file stays. Returns "kind/part"
    -> records by split.
    """
    folder, made = data_root(root), {}
    for path in sorted((folder / "tokens").glob("*.safetensors")):
        made |= _unless_there(root, "tokens", path.stem, partial(_tokens, root, path))
    if (path := folder / "states" / "questions_train.f16").is_file():
        made |= _unless_there(root, "states", "questions", partial(_states, root, path.parent))
    return made


def _unless_there(root: Root, kind: str, part: str, make: Callable[[], dict[str, int]]):
    return {} if is_there(root, kind, part) else {f"{kind}/{part}": make()}


def _tokens(root: Root, path: Path) -> dict[str, int]:
    try:
        with safe_open(path, "numpy") as file:
            codec = (file.metadata() or {}).get("codec", "")
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
        splits = _splits(arrays)
    except Exception as error:  # safetensors has errors of its own
        raise UserError(f"{path} is cut or damaged ({error}); delete it") from error

    def records(split: str) -> Iterator[dict[str, Any]]:
        for i in (i for i, one in enumerate(splits) if one == split):
            symbols = _span(arrays["symbol_ends"], i)
            texts = {
                name: arrays[name][_span(arrays[f"{name}_ends"], i)].tobytes().decode()
                for name in _TEXTS
                if name in arrays
            }
            yield {
                **texts,
                "id": texts.get("id") or f"{path.stem}/{i}",
                "tokens": arrays["tokens"][_span(arrays["token_ends"], i)],
                "symbols": arrays["symbols"][symbols],
                "frames": arrays["frames"][symbols],
            }

    return write_dataset(
        folder_of(root, "tokens", path.stem),
        "tokens",
        {split: records(split) for split in SPLITS},
        about={"part": path.stem, "codec": codec, "made_from": path.name},
    )


def _splits(arrays: dict[str, np.ndarray]) -> list[str]:
    """Of each record. Files of before there was a validation split have it carved out of the
    training records, by text (or, without texts, by symbols).
    """
    said = ["test" if test else "train" for test in arrays["test"]]
    if "val" in arrays:
        return ["val" if val else one for val, one in zip(arrays["val"], said, strict=True)]
    name, ends = ("text", "text_ends") if "text" in arrays else ("symbols", "symbol_ends")
    stretches = (arrays[name][_span(arrays[ends], i)].tobytes() for i in range(len(said)))
    return assign([part.decode() if name == "text" else part.hex() for part in stretches], said)


def _span(ends: np.ndarray, i: int) -> slice:
    return slice(int(ends[i - 1]) if i else 0, int(ends[i]))


def _states(root: Root, folder: Path) -> dict[str, int]:
    def records(split: str) -> Iterator[dict[str, Any]]:
        about = _about(folder, split)
        ends = np.cumsum([record["states"] for record in about["records"]])
        shape = (int(ends[-1]), about["width"])
        rows = np.memmap(folder / f"questions_{split}.f16", np.float16, "r", shape=shape)
        for record, end in zip(about["records"], ends, strict=True):
            yield {**record, "states": rows[end - record["states"] : end]}

    found = [s for s in SPLITS if (folder / f"questions_{s}.f16").is_file()]
    widths = {_about(folder, split)["width"] for split in found}
    return write_dataset(
        folder_of(root, "states", "questions"),
        "states",
        {split: records(split) for split in found},
        width=widths.pop(),
    )


def _about(folder: Path, split: str) -> dict[str, Any]:
    path = folder / f"questions_{split}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is cut or damaged; delete the states and make them again with: mdmspeech data "
            "--states"
        ) from error
