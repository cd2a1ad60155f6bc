"""A user's own recordings -> one part of the raw store: read, checked line by line, pronounced,
aligned, trimmed, levelled, split.

A record is then like one of our synthesiser's (`text`, `symbols`, `frames` in 25 ms units, `f0` at
100 Hz, audio at 24 kHz), so that everything that trains on those trains on these. Where a trained
Talker is given it also says each text at the recording's own durations, and these `tokens` are the
record's: a codec trained on one voice hears others badly, and the Talker's tokens beside the
recording tell its decoder how the same sounds are in the new voice (as parallel recordings do in
voice conversion; Stylianou et al. 1998). A line that cannot be used is kept in the store as a
failed record with its reason, and listed in `left_out.txt`.

Lines are done in shards named after their contents: run it again and only lines that are new or
  changed are done. They are put together in a folder
beside the part (`.NAME.new`), which takes its name when all is done: what was there before stays
until then.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tqdm

from mdmspeech.audio.pitch import f0_curve
from mdmspeech.audio.wave import resample
from mdmspeech.data.recordings.align import Alignment
from mdmspeech.data.recordings.manifests import LONGEST, UserRecordings, read_manifest
from mdmspeech.data.storage import record_store
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.errors import UserError
from mdmspeech.files import as_user_error, check_writable, write_text
from mdmspeech.speech_format import DURATION_SECONDS, INPUT_RATE, OUTPUT_RATE, TOKEN_SECONDS
from mdmspeech.text.normalise import normalise
from mdmspeech.text.pronounce import Spoken

HELD_OUT = 0.05  # of the lines that do not say their split
LEAST_HELD_OUT = 2
MATCHES = -2.5  # alignment scores below are of texts that were not said, see `align.Alignment`
SHARD = 16  # lines
_BEGINNING = 2**16  # bytes of an audio file by which it is known
VERSION = 1  # of what is done to a recording: another number makes every shard again
# units of silence kept at the start and at the end: a voice should answer at once
_LEAD, _TAIL = 4, 8
# dB full scale, RMS of the speech: that of the corpus which the shipped codec learnt from
_LEVEL = -24.5
_PEAK = 0.99
_BRIDGE = 25  # frames: shorter unvoiced gaps have an F0, as in our synthesiser's curves
LEFT_OUT = "left_out.txt"
_CURE = "set $MDMSPEECH_HOME (or --root) to a folder that can be written"
_OF_A_TEXT = (
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    RecursionError,
)  # whatever a text does to those who read it, it is one line
_FIELDS = ("voice", "family")  # of a line that go into its record as they are

Aligner = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[Alignment | None]]
# symbols [M], durations [M] in tokens -> tokens [L]
Speaker = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Imported:
    """What is in the store now: recordings, minutes of them, how many are held out, a line for each
    that was left out; and how many recordings it held before."""

    recordings: int
    minutes: float
    held_out: int
    left_out: list[str]
    before: int = 0


def import_own(
    manifest: str | os.PathLike,
    folder: str | os.PathLike,
    aligner: Callable[[], Aligner],
    pronounce: Callable[[str], Spoken],
    *,
    speaker: Callable[[], Speaker] | None = None,
    aligned_by: str = "",
    max_seconds: float = LONGEST,
) -> Imported:
    """Reads a JSONL manifest (see `data.recordings.manifests`) into the raw part `folder`; lines that
    are in it already, unchanged, are kept.

    An earlier import in `folder` is replaced when the new one is complete, and not before; and only
    if they have a recording in common.

    Args:
      aligner: makes the function of `preprocessing.alignment.make_aligner`; not called when nothing
        is new. aligned_by: its version, and the speaker's: another one makes all again.
      pronounce: written words (normalised) -> symbols.
      speaker: makes the function that gives the records' tokens
        (`inference.paced_synthesizer.Voice.tokens_at`); None leaves them to a codec.

    Raises:
      UserError: no manifest, an empty one, or none of its recordings can be used; another import
        has that name; a disk that is full.
    """
    folder = pathlib.Path(folder)
    lines = read_manifest(manifest, OUTPUT_RATE, max_seconds=max_seconds)
    rows = _rows(lines)
    check_writable(folder, _CURE, folder=True)
    staged = record_store.StagedPart(folder)
    staged.recover()
    before = _check_same(rows, lines, folder)
    chunks = [rows[i : i + SHARD] for i in range(0, len(rows), SHARD)]
    shards = {
        f"{n:05d}-{_digest(chunk, lines, aligned_by)}": chunk for n, chunk in enumerate(chunks)
    }
    if set(record_store.shard_names(folder)) == set(shards) and (folder / LEFT_OUT).is_file():
        return dataclasses.replace(_summary(folder), before=before)
    align: Any = None
    speak: Any = None
    if not set(shards) <= staged.known():
        # what they lack is told before anything is written
        align, speak = aligner(), speaker and speaker()
    try:
        new = staged.begin(list(shards))
        done = set(record_store.shard_names(new))
        with tqdm.tqdm(
            total=len(rows),
            initial=sum(len(shards[n]) for n in done),
            desc=folder.name,
            unit="utt",
            mininterval=2.0,
        ) as bar:
            for name, chunk in shards.items():
                if name not in done:
                    record_store.write_shard(
                        new, name, _spoken(_make(lines, chunk, align, pronounce), speak)
                    )
                    bar.update(len(chunk))
        _write_left_out(new)
        try:
            made = _summary(new)
        except UserError:
            staged.give_up()
            raise
        staged.finish()
    except OSError as error:
        raise as_user_error(
            error, folder, f"{_CURE}; what is done is kept, so run it again"
        ) from error
    return dataclasses.replace(made, before=before)


def _check_same(rows: Sequence[Row], lines: UserRecordings, folder: pathlib.Path) -> int:
    """How many recordings the earlier import of that name has. A UserError if no line is good, or if
    that import has nothing in common with this manifest: it would be lost. (The ids alone do not
    tell: two folders may both have a `0.wav`.)"""
    good = {row["id"]: row for row in rows if "error" not in row}
    if not good:
        raise UserError(
            f"none of the {len(rows)} recordings can be used, first: "
            f"{rows[0]['line']}: {rows[0]['error']}"
        )
    earlier = record_store.RecordStore(folder).fields if record_store.shard_names(folder) else []
    if earlier and not any(
        record["id"] in good and _is_of(record, good[record["id"]], lines) for record in earlier
    ):
        raise UserError(
            f"{folder} holds {len(earlier)} other recordings, such as "
            f"{min(record['id'] for record in earlier)}, and none of this manifest's: take another "
            "--name, or remove that folder first"
        )
    return len(earlier)


def _is_of(record: record_store.Record, row: Row, lines: UserRecordings) -> bool:
    """Whether a line is of the recording that an earlier import holds: of the same file, or, where
    that is not known, with the same text.
    """
    if "source" in record:
        return record["source"] == _fingerprint(row, lines)
    entry: Any = lines.entries[row["number"]]
    try:
        return normalise(entry["text"]) == record["text"]
    except _OF_A_TEXT:
        return False


def _rows(lines: UserRecordings) -> list[Row]:
    """One row a line: {line, number, id, split} or {line, id, error}; the split of lines that do not
    say theirs follows from a digest of their id.
    """
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for number, (entry, where) in enumerate(zip(lines.entries, lines.where, strict=True)):
        if isinstance(entry, BadRecord):
            rows.append(
                {"line": where, "id": where, "error": str(entry).removeprefix(f"{where}: ")}
            )
            continue
        row: Row = {
            "line": where,
            "number": number,
            "id": str(entry.get("id", entry["audio"])),
            "split": entry.get("split", ""),
        }
        if row["id"] in seen:
            row = {**row, "error": f"{row['id']} is listed before, in {seen[row['id']]}"}
        elif row["split"] not in ("", *SPLITS):
            row = {
                **row,
                "error": f"split is {row['split']!r}; use train, val or test, or leave it out",
            }
        seen.setdefault(row["id"], where)
        rows.append(row)
    free = sorted(
        (row for row in rows if "error" not in row and not row["split"]),
        key=lambda row: _hash(row["id"]),
    )
    said = sum(row.get("split") == "test" for row in rows)
    wanted = max(LEAST_HELD_OUT, round(HELD_OUT * len(free)))
    count = 0 if said else min(wanted, len(free) // 2)
    for k, row in enumerate(free):
        row["split"] = "test" if k < count else "train"
    return rows


def _make(
    lines: UserRecordings, rows: Sequence[Row], align: Aligner, pronounce
) -> list[tuple[record_store.Record, np.ndarray]]:
    """The recordings of a shard, bad ones with their error and no audio."""
    found: list[tuple[record_store.Record, np.ndarray]] = []
    waves, symbols, waiting = [], [], []
    for row in rows:
        record = {
            "id": row["id"],
            "line": row["line"],
            "engine": "own",
            "voice": "own",
            "family": "own",
            "rate": OUTPUT_RATE,
        }
        try:
            if "error" in row:
                raise BadRecord(row["error"])
            entry = lines.example(row["number"])
            text = normalise(entry["text"])
            spoken = pronounce(text)
            if not spoken.words or not any(character.isalnum() for character in text):
                raise BadRecord(f"nothing can be said of the text {entry['text'][:40]!r}")
            record |= {key: entry[key] for key in _FIELDS if isinstance(entry.get(key), str)}
            record |= {
                "text": text,
                "split": row["split"],
                "symbols": spoken.symbols.tolist(),
                "source": _fingerprint(row, lines),
            }
            wave = levelled(entry["audio"].astype(np.float32) / 32768)
            waves.append(wave)
            symbols.append(spoken.symbols)
            waiting.append(len(found))
            found.append((record, np.zeros(0, np.int16)))
        except _OF_A_TEXT as error:
            told = (
                str(error)
                if isinstance(error, (BadRecord, UserError))
                else f"its text cannot be read ({type(error).__name__}: {str(error)[:80]})"
            )
            found.append(
                (
                    {**record, "error": " ".join(told.removeprefix(f"{row['id']}: ").split())},
                    np.zeros(0, np.int16),
                )
            )
    heard = (
        align([resample(wave, OUTPUT_RATE, INPUT_RATE) for wave in waves], symbols) if waves else []
    )
    for at, wave, alignment in zip(waiting, waves, heard, strict=True):
        found[at] = finish(found[at][0], wave, alignment)
    return found


def _spoken(
    recordings: list[tuple[record_store.Record, np.ndarray]], speak: Speaker | None
) -> list[tuple[record_store.Record, np.ndarray]]:
    """The same with each good record's tokens."""
    good = [record for record, _ in recordings if "error" not in record]
    if speak and good:
        durations = [
            np.array(record["frames"]) * (DURATION_SECONDS / TOKEN_SECONDS) for record in good
        ]
        for row in durations:
            # whole tokens: the last silence takes the rest
            row[-1] += np.ceil(row.sum() - 1e-6) - row.sum()
        for record, tokens in zip(
            good, speak([np.array(record["symbols"]) for record in good], durations), strict=True
        ):
            record["tokens"] = tokens.tolist()
    return recordings


def finish(
    record: record_store.Record, wave_N: np.ndarray, alignment: Alignment | None
) -> tuple[record_store.Record, np.ndarray]:
    """A record with what its alignment tells (`frames`, `f0`, `score`) and its trimmed audio, int16;
    with an `error` and no audio where the text is not that of the recording, float32 [N] at 24 kHz.
    """
    nothing = np.zeros(0, np.int16)
    if alignment is None:
        seconds = len(wave_N) / OUTPUT_RATE
        return {
            **record,
            "error": f"its text cannot be said in {seconds:.1f} s; is it the text of this recording?",
        }, nothing
    record["score"] = round(alignment.score, 3)
    if alignment.score < MATCHES:
        what = "the text does not match what is said"
        return {
            **record,
            "error": f"{what} (score {alignment.score:.2f}, at least {MATCHES:g} is needed)",
        }, nothing
    wave, frames = _trimmed(wave_N, alignment)
    f0 = np.rint(f0_curve(wave, OUTPUT_RATE, _BRIDGE)).astype(int)
    return {**record, "frames": frames.tolist(), "f0": f0.tolist()}, np.rint(wave * 32767).astype(
        np.int16
    )


def _trimmed(wave_N: np.ndarray, alignment: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """Wave and durations without the silence at both ends, but for a little; the wave is exactly as
    long as the durations.
    """
    frames, unit = alignment.frames.copy(), round(OUTPUT_RATE * DURATION_SECONDS)
    begin, end = max(0, alignment.begin - _LEAD), max(0, int(frames.sum()) - alignment.end - _TAIL)
    _shorten(frames, range(len(frames)), begin)
    _shorten(frames, range(len(frames) - 1, -1, -1), end)
    count = int(frames.sum()) * unit
    wave = wave_N[begin * unit :][:count]
    return np.pad(wave, (0, count - len(wave))), frames


def _shorten(frames_M: np.ndarray, order: Iterable[int], units: int) -> None:
    """Takes so many units away from the first symbols in `order`, which keep one each; so many that
    they are pauses.
    """
    for m in order:
        taken = min(units, int(frames_M[m]) - 1)
        frames_M[m] -= taken
        units -= taken
        if not units:
            return


def levelled(wave_N: np.ndarray) -> np.ndarray:
    """The wave with its speech at `_LEVEL`, or less where its peak would clip."""
    hop = OUTPUT_RATE // 50
    power = np.mean(
        np.square(wave_N[: max(len(wave_N) // hop, 1) * hop].reshape(-1, min(hop, len(wave_N)))),
        axis=1,
    )
    speech = power[power > 0.01 * np.percentile(power, 95)]
    level = np.sqrt(speech.mean()) if len(speech) else 1.0
    gain = 10 ** (_LEVEL / 20) / max(level, 1e-6)
    return wave_N * min(gain, _PEAK / max(float(np.abs(wave_N).max()), 1e-6))


def _summary(folder: pathlib.Path) -> Imported:
    records = record_store.RecordStore(folder)
    left_out = _left_out(records)
    if not len(records):
        raise UserError(f"none of the {len(left_out)} recordings can be used, first: {left_out[0]}")
    held_out = sum(r["split"] == "test" for r in records.fields)
    return Imported(len(records), 60 * records.hours(), held_out, left_out)


def _left_out(records: record_store.RecordStore) -> list[str]:
    return [f"{r['line']}: {r['error']}" for r in records.failed]


def _write_left_out(folder: pathlib.Path) -> None:
    write_text(
        folder / LEFT_OUT,
        "".join(line + "\n" for line in _left_out(record_store.RecordStore(folder))),
    )


def _digest(rows: Sequence[Row], lines: UserRecordings, aligned_by: str) -> str:
    """Of everything a shard is made from; audio files count by size and time of change."""
    described = json.dumps(
        [VERSION, aligned_by, [[row, *_source(row, lines)] for row in rows]], sort_keys=True
    )
    return _hash(described)[:8]


def _source(row: Row, lines: UserRecordings) -> tuple[Any, ...]:
    if "number" not in row:
        return ()
    entry: Any = lines.entries[row["number"]]
    try:
        about = (lines.folder / entry["audio"]).stat()
    except (OSError, ValueError):
        return (entry, "missing")
    return (entry, about.st_size, about.st_mtime_ns)


def _fingerprint(row: Row, lines: UserRecordings) -> str:
    """What an audio file is known by, wherever it lies: its size and its beginning; "" if it cannot be
    read.
    """
    entry: Any = lines.entries[row["number"]]
    try:
        path = lines.folder / entry["audio"]
        with open(path, "rb") as file:
            return f"{path.stat().st_size}-{hashlib.sha256(file.read(_BEGINNING)).hexdigest()[:16]}"
    except (OSError, ValueError):
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
