"""The fields of our datasets, and records <-> bytes: TFDS's own example format, without TensorFlow.

Three kinds, each a dataset of its own, so that a stage reads no more than it needs:

- recordings  what was spoken: audio with its text, durations, pitch, and where it comes from
- tokens      speech tokens of one codec with the text they say: what a Talker learns from
- states      a frozen speech encoder's states: what adaptors and phone classifiers learn from

Text that is not known is "", an array that is not known is empty, and absent from a record that
was read.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mdmspeech.errors import UserError

VERSION = "2.0.0"  # of the layout: TFDS's version folder


@dataclasses.dataclass(frozen=True)
class Array:
    """A field that is an array: [N], or [N, width]. always: present even if empty."""

    dtype: type
    wide: bool = False
    always: bool = False


_RECORDINGS: Mapping[str, Any] = {
    **dict.fromkeys(("id", "text", "answer", "question", "family", "phrasing", "split"), str),
    **dict.fromkeys(("voice", "engine", "language", "licence", "source"), str),
    "rate": int,
    "audio": Array(np.int16, always=True),  # mono
    "symbols": Array(np.int32),  # ids of `text.pronounce`
    "frames": Array(np.float32),  # how long each lasts, in units of 25 ms
    "f0": Array(np.float32),  # Hz at 100 Hz, 0 = unvoiced
    "tokens": Array(np.int32),  # that came with the recording
    "units": Array(np.int32),  # speech tokens of the answer that came with the question
}
_TOKENS: Mapping[str, Any] = {
    **dict.fromkeys(("id", "text", "question", "voice"), str),
    "tokens": Array(np.int16, always=True),
    "symbols": Array(np.int16, always=True),
    "frames": Array(np.int16, always=True),
}
_STATES: Mapping[str, Any] = {
    **dict.fromkeys(("id", "text", "answer"), str),
    "states": Array(np.float16, wide=True, always=True),
    "symbols": Array(np.int32),  # what is spoken in each, where that is known
    "samples": int,  # of the recording, 0 where it does not matter
}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "recordings": _RECORDINGS,
    "tokens": _TOKENS,
    "states": _STATES,
}
# what the index knows of each record: lengths of these arrays, and numbers
_LENGTHS = {
    "recordings": {"samples": "audio", "symbols": "symbols"},
    "tokens": {"tokens": "tokens", "symbols": "symbols"},
    "states": {"states": "states"},
}
_NUMBERS = {"recordings": ("rate",), "tokens": (), "states": ("samples",)}
# what `Dataset.fields` tells of a record without reading it: these texts, see `index.Texts`, ...
TEXTS = {
    "recordings": ("id", "text", "answer", "question", "voice", "family", "engine"),
    "tokens": ("id", "text", "question"),
    "states": ("id", "text", "answer"),
}
# ... and these columns
FIELDS = {"recordings": ("samples", "rate"), "tokens": (), "states": ("states", "samples")}


class ExampleFormat:
    """How a kind's records become bytes and come back.

    Args:
      kind: one of `KINDS`. width: of the states, for that kind.
    """

    def __init__(self, kind: str, width: int | None = None):
        if kind not in KINDS:
            raise UserError(f"there is no dataset kind {kind!r}; known: {', '.join(KINDS)}")
        self.kind, self.width, self.fields = kind, width, KINDS[kind]

    def __reduce__(self):
        return ExampleFormat, (self.kind, self.width)

    @functools.cached_property
    def features(self):
        """`tfds.features.FeaturesDict`: what features.json says of the dataset."""
        import tensorflow_datasets as tfds

        def feature(field: Any):
            if field is str:
                return tfds.features.Text()
            if field is int:
                return tfds.features.Scalar(np.int32)
            shape = (None, self.width) if field.wide else (None,)
            return tfds.features.Tensor(shape=shape, dtype=field.dtype, encoding="bytes")

        return tfds.features.FeaturesDict({n: feature(f) for n, f in self.fields.items()})

    @functools.cached_property
    def _serializer(self):
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        return ExampleSerializer(self.features.get_serialized_info())

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """The bytes of a record, always the same; fields that it lacks are empty, further ones are
        dropped.
        """
        example = self._serializer.get_tf_example(
            self.features.encode_example(
                {name: self._value(name, record.get(name)) for name in self.fields}
            )
        )
        # by itself a map has another order in each process
        return example.SerializeToString(deterministic=True)

    def decode(self, data: bytes) -> dict[str, Any]:
        """The record: texts as str, numbers as int, arrays that are not empty."""
        found = {}
        for name, value in self.features.deserialize_example_np(data).items():
            field = self.fields[name]
            if field is str:
                found[name] = value.decode("utf-8")
            elif field is int:
                found[name] = int(value)
            elif field.always or len(value):
                found[name] = value
        return found

    def columns(self, record: Mapping[str, Any]) -> dict[str, int]:
        """What the index holds of a record."""
        lengths = {name: len(record.get(field, ())) for name, field in _LENGTHS[self.kind].items()}
        return lengths | {name: int(record.get(name, 0)) for name in _NUMBERS[self.kind]}

    def column_names(self) -> tuple[str, ...]:
        """The names of `columns`."""
        return (*_LENGTHS[self.kind], *_NUMBERS[self.kind])

    def _value(self, name: str, value: Any) -> Any:
        field = self.fields[name]
        if field is str:
            return str(value or "")
        if field is int:
            return int(value or 0)
        shape = (0, self.width) if field.wide else (0,)
        return np.zeros(shape, field.dtype) if value is None else np.asarray(value, field.dtype)
