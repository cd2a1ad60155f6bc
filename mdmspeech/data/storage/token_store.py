"""Speech tokens of the corpus: what the Talker trains on. Made once from the recordings by a
trained codec, kept in one safetensors file a part.

Layout of `<root>/tokens/<part>.safetensors`: flat arrays `tokens` int16, `symbols` int16, `frames`
int16 (25 ms units), and for record i the ends of its stretch in them (`token_ends`, `symbol_ends`),
plus `test` and `val` (1 = held out for that; files without `val` are carved, see `splits`). `id`,
`text` and `question` are UTF-8 bytes, uint8, with `<name>_ends`; files from before these were kept
lack them and still serve paced anchors. The metadata carries a fingerprint of the codec: tokens of
another codec are refused.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
import tqdm
from safetensors import safe_open

from mdmspeech.data.storage.record_store import data_root
from mdmspeech.data.storage.sources import Records
from mdmspeech.data.storage.splits import assign
from mdmspeech.errors import UserError
from mdmspeech.files import written_whole

_TEXTS = ("id", "text", "question")
_ENCODERS = ("encoder", "tokenizer")  # the part of a codec that makes its tokens, by family


def fingerprint(params) -> str:
    """Short digest of the parameters that make a codec's tokens."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(next(params[name] for name in _ENCODERS if name in params)):
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:12]


def tokenise(
    splits: dict[str, Records], encode: Callable, codec: str, path: Path, batch: int = 16
) -> int:
    """Encodes every record of {"train": ..., "val": ..., "test": ...} and writes `path`; returns the
    token count.

    encode: `Codec.encode`, waves at 24 kHz -> ids. codec: its fingerprint.
    """
    order = [(split, records, i) for split, records in splits.items() for i in range(len(records))]
    order.sort(key=lambda item: item[1].fields(item[2])["samples"])
    out: dict[str, list] = {"tokens": [], "symbols": [], "frames": []}
    texts: dict[str, list[bytes]] = {name: [] for name in _TEXTS}
    held_out: list[str] = []
    with tqdm.tqdm(
        total=len(order), desc=f"tokens of {path.stem}", unit="utt", mininterval=2.0
    ) as bar:
        for start in range(0, len(order), batch):
            group = order[start : start + batch]
            rows = [records[i] for _, records, i in group]
            for row, ids in zip(rows, _encode(rows, encode), strict=True):
                out["tokens"].append(ids)
                out["symbols"].append(np.asarray(row["symbols"]))
                out["frames"].append(np.asarray(row["frames"]))
                for name in _TEXTS:
                    texts[name].append(str(row.get(name) or "").encode())
            held_out += [split for split, _, _ in group]
            bar.update(len(group))
    arrays = {name: np.concatenate(parts).astype(np.int16) for name, parts in out.items()}
    arrays["token_ends"] = np.cumsum([len(x) for x in out["tokens"]]).astype(np.int64)
    arrays["symbol_ends"] = np.cumsum([len(x) for x in out["symbols"]]).astype(np.int64)
    for name, values in texts.items():
        arrays[name] = np.frombuffer(b"".join(values), np.uint8)
        arrays[f"{name}_ends"] = np.cumsum([len(value) for value in values]).astype(np.int64)
    arrays |= {
        name: np.array([split == name for split in held_out], np.uint8) for name in ("test", "val")
    }
    with written_whole(path) as part:
        part.write_bytes(safetensors.numpy.save(arrays, metadata={"codec": codec}))
    return len(arrays["tokens"])


def _encode(rows: Sequence[dict], encode: Callable) -> list[np.ndarray]:
    # own recordings bring theirs, see `data.recordings.user`
    if all("tokens" in row for row in rows):
        return [np.asarray(row["tokens"]) for row in rows]
    return encode([np.asarray(row["audio"], np.float32) / 32768 for row in rows])


def _cure(part: str) -> str:
    return (
        f"make it with: mdmspeech data --tokens --parts {part} (own recordings: "
        f"mdmspeech data --manifest FILE --name {part})"
    )


class TokenStore:
    """Random access to the tokens of some parts and one split ("train", "val", "test"): `store[i]` ->
    {id, tokens int32 [L], symbols int32 [M], frames int32 [M], text, question}.

    needs_text: refuse files that hold no texts (text and question are "" there). `fields` and
      `counts` read no tokens.
    """

    def __init__(
        self,
        root: str | Path | None,
        parts: tuple[str, ...],
        split: str,
        codec: str | None = None,
        needs_text: bool = False,
    ):
        self._names, self._parts, self._index = parts, [], []
        for p, part in enumerate(parts):
            path = data_root(root) / "tokens" / f"{part}.safetensors"
            if not path.is_file():
                raise UserError(f"{path} is missing; {_cure(part)}")
            with safe_open(path, "numpy") as file:
                made_by = (file.metadata() or {}).get("codec")
                arrays = {name: file.get_tensor(name) for name in list(file.keys())}
            if codec and made_by != codec:
                raise UserError(f"{path} was made by codec {made_by}, not {codec}; {_cure(part)}")
            if needs_text and "text" not in arrays:
                raise UserError(f"{path} holds no texts, which fixed anchors need; {_cure(part)}")
            self._parts.append(arrays)
            self._index += [(p, i) for i, one in enumerate(_splits(arrays)) if one == split]
        if not self._index:
            raise UserError(f"no {split} records in the tokens of {', '.join(parts)}")

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> dict:
        part, record = self._index[i]
        arrays = self._parts[part]
        tokens, symbols = _span(arrays["token_ends"], record), _span(arrays["symbol_ends"], record)
        return {
            **self.fields(i),
            "tokens": arrays["tokens"][tokens].astype(np.int32),
            "symbols": arrays["symbols"][symbols].astype(np.int32),
            "frames": arrays["frames"][symbols].astype(np.int32),
        }

    def fields(self, i: int) -> dict[str, str]:
        """{id, text, question} of record i."""
        part, record = self._index[i]
        arrays = self._parts[part]
        found = {
            name: arrays[name][_span(arrays[f"{name}_ends"], record)].tobytes().decode()
            if name in arrays
            else ""
            for name in _TEXTS
        }
        return {**found, "id": found["id"] or f"{self._names[part]}/{record}"}

    def counts(self, field: str) -> np.ndarray:
        """How many `tokens` or `symbols` each record has, int64 [N]."""
        lengths = [
            np.diff(arrays[f"{field.removesuffix('s')}_ends"], prepend=0) for arrays in self._parts
        ]
        return np.array([lengths[part][record] for part, record in self._index], np.int64)


def _splits(arrays: dict[str, np.ndarray]) -> list[str]:
    """Of each record. Files of before there was a validation split have it carved out of the training
    records, by text (or, without texts, by symbols).
    """
    said = ["test" if test else "train" for test in arrays["test"]]
    if "val" in arrays:
        return ["val" if val else one for val, one in zip(arrays["val"], said, strict=True)]
    name, ends = ("text", "text_ends") if "text" in arrays else ("symbols", "symbol_ends")
    stretches = (arrays[name][_span(arrays[ends], i)].tobytes() for i in range(len(said)))
    return assign([part.decode() if name == "text" else part.hex() for part in stretches], said)


def _span(ends: np.ndarray, i: int) -> slice:
    return slice(int(ends[i - 1]) if i else 0, int(ends[i]))
