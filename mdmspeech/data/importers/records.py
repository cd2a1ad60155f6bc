"""One record of a corpus: what is said, by whom, and where its audio is. Nothing is decoded before
it is asked for.
"""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from mdmspeech.audio.arrays import to_samples
from mdmspeech.audio.channels import to_mono
from mdmspeech.audio.files import read_stream
from mdmspeech.audio.wave import SILENCE_PEAK
from mdmspeech.data.importers import checks
from mdmspeech.data.importers.files import Unreachable, base_name, open_file
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError

_MISSING = 0.05  # seconds that a file may have less than it promises


class BadItem(BadRecord):
    """A record that cannot be used. where: its place; reason: why; kind: the reason in the few words by
    which such records are counted.
    """

    def __init__(self, where: str, reason: str, kind: str):
        super().__init__(where, reason, kind)
        self.where, self.reason, self.kind = where, " ".join(reason.split()), kind

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Clip:
    """Audio in a file (`path`), or as it lay in a shard (`content`). name: what messages call it, and
    by its ending a hint of what it is. where: the record's place.
    """

    name: str
    where: str
    path: str = ""
    content: bytes = dataclasses.field(default=b"", repr=False)

    def raw(self) -> bytes:
        """The encoded audio. Raises BadItem if it cannot be read."""
        if not self.path:
            return self.content
        try:
            with open_file(self.path) as file:
                return file.read()
        except Unreachable:
            raise
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def load(
        self, *, min_seconds: float = checks.SHORTEST, max_seconds: float = checks.LONGEST
    ) -> tuple[np.ndarray, int]:
        """(mono float32 [N], its own rate in Hz).

        Raises:
          BadItem: missing, empty, unreadable, cut off, silent, too short or too long.
        """

        def check(seconds: float) -> None:
            if seconds > max_seconds:
                raise BadItem(
                    self.where,
                    f"{self.name} is too long: {seconds:.1f} s, the limit is {max_seconds:g} s",
                    "audio too long",
                )

        try:
            with open_file(self.path) if self.path else io.BytesIO(self.content) as file:
                sound = read_stream(file, self.name, check)
            samples = to_samples(sound.samples, self.name, channels_last=True)
        except (BadItem, Unreachable):
            raise
        except UserError as error:
            empty = "is empty" in str(error) or "holds no samples" in str(error)
            kind = "audio of length 0" if empty else "audio not readable"
            raise BadItem(self.where, str(error), kind) from error
        except (OSError, ValueError, EOFError) as error:
            raise self._unreadable(error) from error
        seconds = len(samples) / sound.rate
        check(seconds)
        if sound.missing > _MISSING:
            reason = f"{self.name} was cut off: {sound.missing:.2f} s of its sound are missing"
            raise BadItem(self.where, reason, "audio cut off")
        if seconds < min_seconds:
            reason = (
                f"{self.name} is too short: {seconds:.3f} s, at least {min_seconds:g} s are needed"
            )
            raise BadItem(self.where, reason, "audio too short")
        wave = to_mono(samples if samples.ndim == 2 else samples[:, None], sound.rate)
        if np.ptp(wave) < 2 * SILENCE_PEAK:  # whatever constant it stands on
            raise BadItem(self.where, f"{self.name} holds only silence", "only silence")
        return wave, int(sound.rate)

    def _unreadable(self, error: Exception) -> BadItem:
        missing = isinstance(error, FileNotFoundError)
        reason = f"{self.name} {'does not exist' if missing else f'cannot be read: {error}'}"
        return BadItem(self.where, reason, "no audio file" if missing else "audio not readable")


@dataclasses.dataclass(frozen=True)
class Units:
    """Ready speech tokens of an answer: in a file of NumPy's (`path`), or `values` (a row of them for
    every frame where a codec has several). codec: whose they are, "" if the corpus does not say.
    """

    where: str
    codec: str = ""
    path: str = ""
    values: tuple[int, ...] = ()
    width: int = 1  # tokens of a frame

    def load(self) -> np.ndarray:
        """int32 [U], or [U, width] for a codec with several tokens a frame. Raises BadItem for a file
        that is missing or holds something else.
        """
        if not self.path:
            tokens = np.asarray(self.values, np.int32)
            return tokens.reshape(-1, self.width) if self.width > 1 else tokens
        try:
            with open_file(self.path) as file:
                return checks.as_units(
                    np.load(io.BytesIO(file.read()), allow_pickle=False), base_name(self.path)
                )
        except Unreachable:
            raise
        except (OSError, ValueError, EOFError) as error:
            told = getattr(error, "strerror", None) or str(error)
            reason = f"the answer's tokens cannot be read: {base_name(self.path)}: {told}"
            raise BadItem(self.where, reason, "answer tokens not readable") from error


@dataclasses.dataclass(frozen=True)
class Item:
    """One record. `text` is what is said in `audio`; in a conversation that is the question (its text
    may be "" where the corpus has its audio alone), and `answer` the text of the reply.

    where: its line or member, for messages. split: train, val or test. fields: what else the corpus
    says (gender, accent, ready symbols). units, answer_audio: the spoken reply, if there is one.
    """

    id: str
    text: str
    where: str
    audio: Clip
    answer: str = ""
    speaker: str = ""
    language: str = ""
    split: str = "train"
    licence: str = ""
    units: Units | None = None
    answer_audio: Clip | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def question(self) -> str:
        """What the audio says, in a conversation; "" in other corpora."""
        return self.text if self.answer else ""

    def load(
        self, *, min_seconds: float = checks.SHORTEST, max_seconds: float = checks.LONGEST
    ) -> tuple[np.ndarray, int]:
        """(mono float32 [N], its own rate in Hz), see `Clip.load`. Raises BadItem."""
        return self.audio.load(min_seconds=min_seconds, max_seconds=max_seconds)

    def raw(self) -> tuple[bytes, str]:
        """The encoded audio and a hint of what it is, its file name. Raises BadItem."""
        return self.audio.raw(), self.audio.name
