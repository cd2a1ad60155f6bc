"""The stages that a unit goes through. Each has a name, `load()` for what it needs once a worker, and
`run(loaded, records)`, which gives every record back, or why it is left out.

Models come as factories: functions without arguments that are known by their names (or partials of
such), so that they can be sent to workers. What a model is known by (`known_as`: a fingerprint, a
version) is part of every unit's digest: another one makes all again.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from mdmspeech.audio.wave import resample, to_int16
from mdmspeech.data.beam.parts import Target
from mdmspeech.data.beam.records import Record, Rejected
from mdmspeech.data.beam.sources import Source, has_sound
from mdmspeech.data.importers import BadItem, Item
from mdmspeech.data.importers.checks import LONGEST, SHORTEST
from mdmspeech.data.recordings.user import finish, levelled
from mdmspeech.data.storage.splits import SHARE, digest
from mdmspeech.errors import UserError
from mdmspeech.speech_format import INPUT_RATE, OUTPUT_RATE
from mdmspeech.text.normalise import normalise

VERSION = 1  # of what is done to a record: another number makes every unit again
BATCH = 16  # records that a model gets at once
PEAK = 0.99
# whatever a text does to those who read it, it is one record
_OF_A_TEXT = (ValueError, ArithmeticError, LookupError, TypeError, RecursionError)
_READY = ("symbols", "frames", "f0")  # that a corpus may bring
_SPLITS = 2**32

Results = Iterator[Record | Rejected]


class Stage(Protocol):
    """See the module."""

    name: str

    def load(self) -> Any: ...

    def run(self, loaded: Any, records: Sequence[Record]) -> Results: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """A preparation: where from, where to, and the stages in their order."""

    source: Source
    target: Target
    stages: tuple[Stage, ...]


def described(stages: Sequence[Stage]) -> str:
    """All that the stages' results depend on, as a text: their settings, which models, our version."""
    told: list[Any] = [VERSION]
    for stage in stages:
        settings = dataclasses.asdict(stage)  # type: ignore[call-overload]
        told.append([stage.name, {k: callable(v) or v for k, v in sorted(settings.items())}])
    return json.dumps(told)


@dataclasses.dataclass(frozen=True)
class Clean:
    """Reads text and audio: the text normalised and pronounced, the audio decoded, mono, at the rate of
    its use (24 kHz, questions 16 kHz), its speech at one level, checked for length and silence.

    pronounce: makes the function of normalised text -> `text.pronounce.Spoken`; None leaves symbols
    out, as do languages other than English. carve: the corpus has no validation and test records:
    the texts whose digests are the lowest become them (see `storage.splits`). needs_sound: a text
    without a recording is left out, as nobody will speak it.
    """

    pronounce: Callable[[], Callable[[str], Any]] | None = None
    carve: bool = False
    needs_sound: bool = True
    min_seconds: float = SHORTEST
    max_seconds: float = LONGEST
    name = "clean"

    def load(self) -> Any:
        return self.pronounce and self.pronounce()

    def run(self, loaded: Any, records: Sequence[Record]) -> Results:
        for record in records:
            try:
                record.fields = self._fields(record.item, loaded)
                if has_sound(record.item):
                    record.wave = self._wave(record.item, record.fields["rate"])
                elif self.needs_sound:
                    told = "it has no recording, and no voice was asked to speak its text"
                    raise BadItem(record.item.where, told, "no audio")
                yield record
            except BadItem as problem:
                yield record.reject(self.name, problem.kind, problem.reason)
            except UserError as problem:
                yield record.reject(self.name, "text not usable", str(problem))
            except _OF_A_TEXT as error:
                told = f"its text cannot be read ({type(error).__name__}: {str(error)[:80]})"
                yield record.reject(self.name, "text not usable", told)

    def _fields(self, item: Item, pronounce: Any) -> dict[str, Any]:
        english = not item.language or item.language.lower().startswith("en")
        said = {name: getattr(item, name) for name in ("text", "answer")}
        if english:
            said = {name: normalise(text) for name, text in said.items()}
        fields = {
            **said,
            "id": item.id,
            "split": self._split(item),
            "voice": item.speaker,
            "engine": "recorded",
            "language": item.language,
            "licence": item.licence,
            "source": item.where,
            "rate": INPUT_RATE if item.answer else OUTPUT_RATE,
        }
        if not item.answer and not any(c.isalnum() for c in said["text"]):
            raise BadItem(
                item.where, f"nothing can be said of {item.text[:40]!r}", "text not usable"
            )
        if item.units is not None and item.units.width == 1:  # not SNAC's seven a frame
            fields["units"] = item.units.load()
        ready = {name: item.fields[name] for name in _READY if name in item.fields}
        if not ready and pronounce and english and said["text"]:
            spoken = pronounce(said["text"])
            if not spoken.words:
                told = f"nothing can be said of {item.text[:40]!r}"
                raise BadItem(item.where, told, "text not usable")
            ready = {"symbols": spoken.symbols}
        return fields | ready

    def _wave(self, item: Item, rate: int) -> np.ndarray:
        limits = {"min_seconds": self.min_seconds, "max_seconds": self.max_seconds}
        wave, from_rate = item.load(**limits)
        return to_int16(levelled(resample(wave, from_rate, rate)))

    def _split(self, item: Item) -> str:
        if not self.carve or item.split != "train":
            return item.split
        value = digest(item.text or item.answer or item.id)
        return (
            "val" if value < SHARE * _SPLITS else "test" if value < 2 * SHARE * _SPLITS else "train"
        )


@dataclasses.dataclass(frozen=True)
class Align:
    """Finds out when each symbol is spoken, by the function that `aligner` makes (see
    `preprocessing.alignment.make_aligner`): durations, pitch, without the silence at both ends.
    Records that have their durations, those without symbols and questions stay as they are.
    """

    aligner: Callable[[], Callable]
    known_as: str = ""
    batch: int = BATCH
    name = "align"

    def load(self) -> Any:
        return self.aligner()

    def run(self, loaded: Any, records: Sequence[Record]) -> Results:
        waiting = [record for record in records if _to_align(record)]
        yield from (record for record in records if not _to_align(record))
        for group in _batches(waiting, self.batch, lambda record: len(_sound(record))):
            waves = [_floats(record) for record in group]
            heard = loaded(
                [
                    resample(w, r.fields["rate"], INPUT_RATE)
                    for w, r in zip(waves, group, strict=True)
                ],
                [np.asarray(record.fields["symbols"]) for record in group],
            )
            for record, wave, alignment in zip(group, waves, heard, strict=True):
                yield self._finished(record, wave, alignment)

    def _finished(self, record: Record, wave: np.ndarray, alignment: Any) -> Record | Rejected:
        made, record.wave = finish(record.fields, wave, alignment)
        if "error" in made:
            return record.reject(self.name, "text not in the recording", made["error"])
        record.fields = {name: value for name, value in made.items() if name != "score"}
        return record


@dataclasses.dataclass(frozen=True)
class Synthesise:
    """Speaks the texts that have no recording, by the voice that `voice` makes: a function of a
    `synthesis.voices.base.Job` -> `Rendered`, see `voices`. engine: its name in the records.
    """

    voice: Callable[[], Callable]
    engine: str
    known_as: str = ""
    licence: str = ""
    name = "synthesise"

    def load(self) -> Any:
        return self.voice()

    def run(self, loaded: Any, records: Sequence[Record]) -> Results:
        for record in records:
            if record.wave is not None:
                yield record
                continue
            try:
                yield self._spoken(loaded, record)
            except UserError:
                raise  # the voice is not there: no fault of a text
            except (*_OF_A_TEXT, OSError) as error:
                yield record.reject(
                    self.name, "text not spoken", str(error) or type(error).__name__
                )

    def _spoken(self, voice: Callable, record: Record) -> Record:
        from mdmspeech.data.synthesis.voices.base import Job

        fields = record.fields
        seed = int(digest(fields["id"]))
        job = Job(fields["id"], fields["text"], self.engine, fields["voice"], seed=seed)
        made = voice(job)
        if not len(made.audio) or not np.isfinite(made.audio).all() or not np.ptp(made.audio):
            raise ValueError("the voice said nothing")
        wave = resample(made.audio, made.rate, fields["rate"])
        record.wave = to_int16(wave * min(1.0, PEAK / float(np.abs(wave).max())))
        record.fields = fields | {"engine": self.engine} | made.fields
        if self.licence:
            record.fields["licence"] = self.licence
        return record


@dataclasses.dataclass(frozen=True)
class SpeechTokens:
    """Speech tokens of what is spoken at the rate of the codec that `codec` makes (see `codec.base`):
    recordings, and the answers of conversations where they can be heard. Other records have none.
    """

    codec: Callable[[], Any]
    known_as: str = ""
    batch: int = BATCH
    max_seconds: float = 120.0  # of an answer
    name = "tokens"

    def load(self) -> Any:
        return self.codec()

    def run(self, loaded: Any, records: Sequence[Record]) -> Results:
        spoken: list[tuple[Record, np.ndarray]] = []
        for record in records:
            try:
                wave = self._wave(record, loaded.sample_rate)
            except BadItem as problem:
                yield record.reject(self.name, f"answer: {problem.kind}", problem.reason)
                continue
            if wave is None:
                yield record
            else:
                spoken.append((record, wave))
        for group in _batches(spoken, self.batch, lambda pair: len(pair[1])):
            for (record, _), ids in zip(group, loaded.encode([w for _, w in group]), strict=True):
                record.tokens = np.asarray(ids)
                yield record

    def _wave(self, record: Record, rate: int) -> np.ndarray | None:
        if not record.item.answer:
            return resample(_floats(record), record.fields["rate"], rate)
        if record.item.answer_audio is None:
            return None
        wave, from_rate = record.item.answer_audio.load(max_seconds=self.max_seconds)
        return levelled(resample(wave, from_rate, rate))


@dataclasses.dataclass(frozen=True)
class EncoderStates:
    """States of the speech encoder that `encoder` makes: a function waves [N] at 16 kHz -> [T, D]."""

    encoder: Callable[[], Callable]
    known_as: str = ""
    batch: int = BATCH
    name = "states"

    def load(self) -> Any:
        return self.encoder()

    def run(self, loaded: Any, records: Sequence[Record]) -> Results:
        for group in _batches(records, self.batch, lambda record: len(_sound(record))):
            waves = [resample(_floats(r), r.fields["rate"], INPUT_RATE) for r in group]
            for record, states in zip(group, loaded(waves), strict=True):
                record.states = np.asarray(states, np.float16)
                yield record


def _to_align(record: Record) -> bool:
    fields = record.fields
    return fields["rate"] == OUTPUT_RATE and "symbols" in fields and "frames" not in fields


def _sound(record: Record) -> np.ndarray:
    if record.wave is None:
        raise RuntimeError(f"{record.item.where} has no sound yet")
    return record.wave


def _floats(record: Record) -> np.ndarray:
    return _sound(record).astype(np.float32) / 32768


def _batches(records: Sequence, size: int, length: Callable[[Any], int]) -> Iterator[list]:
    """Groups of similar lengths, in an order that follows from the records."""
    order = sorted(range(len(records)), key=lambda i: (length(records[i]), i))
    for first in range(0, len(order), size):
        yield [records[i] for i in order[first : first + size]]
