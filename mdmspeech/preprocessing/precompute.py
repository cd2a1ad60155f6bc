"""What frozen parts compute once for training: speech tokens of the answer voice, encoder states of
the questions and of the answer voice.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio.wave import resample, to_int16
from mdmspeech.codec.base import Codec
from mdmspeech.data.datasets.corpus import QUESTION_PARTS, folder_of, questions, speech
from mdmspeech.data.datasets.make import write_states, write_tokens
from mdmspeech.data.datasets.speech_states import known_states, speech_name
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.data.synthesis.augment import augment
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig, encode_waves
from mdmspeech.speech_format import INPUT_RATE, STATE_SECONDS

AUGMENTED = 0.5  # share of the training questions that get noise, reverberation and another level
BETWEEN, _LONGEST_PAIR = (0.2, 0.8), 12.0  # seconds: the pause between the two of a pair, a pair
# of these many pairs, relative to the recordings, both are heard in a row: a pause is no end
JOINED = 0.15
# share that begins late and ends early, seconds of silence at most on each side: people do not
# speak on the button
LATE, PAUSE = 0.5, 0.8


def speech_tokens(
    root: str | Path | None, codec: Codec, known_as: str, parts: Sequence[str] = ("open", "answers")
) -> dict[str, int]:
    """Writes the dataset of tokens of every part; returns tokens per part. known_as: the codec's
    `data.datasets.make.fingerprint`.
    """
    counts = {}
    sources = {
        part: {split: speech(root, (part,), split, may_be_empty=True) for split in SPLITS}
        for part in parts
    }
    for part, splits in sources.items():  # none is written before all are there
        folder = folder_of(root, "tokens", part)
        counts[part] = write_tokens(folder, splits, codec.encode, known_as)
    return counts


def question_states(
    root: str | Path | None,
    config: SpeechEncoderConfig,
    params,
    hours: float | None = None,
    parts: Sequence[str] = QUESTION_PARTS,
) -> dict[str, int]:
    """Writes the dataset of states "questions" of the parts: val, and train (the first `hours`),
    joined and augmented, see below; returns the number of states of each.
    """
    encoder = SpeechEncoder(config)

    @jax.jit
    def encode(waves_BN, samples_B):
        return encode_waves(encoder, params, waves_BN, samples_B)

    train = WithPairs(questions(root, "train", hours, parts), JOINED)
    return write_states(
        folder_of(root, "states", "questions"),
        {"val": questions(root, "val", parts=parts), "train": train},
        encode,
        config.dim,
        augment={"train": augment_some},
    )


def speech_states(
    root: str | Path | None,
    config: SpeechEncoderConfig,
    params,
    parts: Sequence[str],
    hours: float | None = None,
) -> dict[str, int]:
    """Writes the datasets of states `speech_<part>`, val and train (the first `hours` of it), of every
    part; returns the number of states of each. States that are there already are kept.
    """
    encoder = SpeechEncoder(config)

    @jax.jit
    def encode(waves_BN, samples_B):
        states, real = encode_waves(encoder, params, waves_BN, samples_B)
        own_B = -(-samples_B // round(INPUT_RATE * STATE_SECONDS))  # not those of the silence after
        return states, real & (jnp.arange(real.shape[1])[None] < own_B[:, None])

    sources = {
        part: {
            "val": Resampled(speech(root, (part,), "val", may_be_empty=True)),
            "train": Resampled(speech(root, (part,), "train"), hours),
        }
        for part in parts
    }
    counts: dict[str, int] = {}
    for part, splits in sources.items():
        made = write_states(
            folder_of(root, "states", speech_name(part)),
            splits,
            encode,
            config.dim,
            known=known_states(root, part),
        )
        counts |= {f"{speech_name(part)} {split}": count for split, count in made.items()}
    return counts


class Resampled:
    """Random access like `data.datasets.reader.Subset` to the first `hours` of them: `samples` is the
    recording's own number, `audio` its int16 at 16 kHz.
    """

    def __init__(self, records, hours: float | None = None):
        self._records, self._count = records, len(records)
        if hours is not None:
            fields = (records.fields(i) for i in range(len(records)))
            ends = np.cumsum([one["samples"] / one["rate"] for one in fields])
            # the one in which they end is the last
            self._count = min(int(np.searchsorted(ends, hours * 3600)) + 1, len(records))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> dict:
        record = self._records[i]
        wave = np.asarray(record["audio"], np.float32) / 32768
        return {**record, "audio": to_int16(resample(wave, record["rate"], INPUT_RATE))}

    def fields(self, i: int) -> dict:
        """The record without its audio."""
        return self._records.fields(i)


def augment_some(wave: np.ndarray, index: int) -> np.ndarray:
    """Augments the share `AUGMENTED` of all recordings and puts silence around the share `LATE`,
    chosen and seeded by their number.
    """
    rng = np.random.default_rng((7, index))
    if rng.random() < LATE:
        before, after = rng.uniform(0, PAUSE, size=2) * INPUT_RATE
        wave = np.pad(wave, (int(before), int(after)))
    return augment(wave, INPUT_RATE, rng) if rng.random() < AUGMENTED else wave


class WithPairs:
    """Random access like `data.datasets.reader.Subset`: all of the recordings, then `share` times as
    many pairs of them. Pairs that would be too long are left out.
    """

    def __init__(self, records, share: float, seed: int = 0):
        self._records = records
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(records), size=(int(share * len(records)), 2))
        pauses = rng.uniform(*BETWEEN, size=len(drawn))
        self._pairs = [
            (int(a), int(b), pause)
            for (a, b), pause in zip(drawn, pauses, strict=True)
            if self._seconds(a, b) < _LONGEST_PAIR
        ]

    def __len__(self) -> int:
        return len(self._records) + len(self._pairs)

    def __getitem__(self, i: int) -> dict:
        if i < len(self._records):
            return self._records[i]
        a, b, pause = self._pairs[i - len(self._records)]
        first, second = self._records[a], self._records[b]
        gap = np.zeros(int(pause * first["rate"]), np.asarray(first["audio"]).dtype)
        audio = np.concatenate([first["audio"], gap, second["audio"]])
        return {**self.fields(i), "audio": audio, "samples": len(audio)}

    def fields(self, i: int) -> dict:
        """The record without its audio."""
        if i < len(self._records):
            return self._records.fields(i)
        a, b, pause = self._pairs[i - len(self._records)]
        first, second = self._records.fields(a), self._records.fields(b)
        return {
            "id": f"{first['id']}+{second['id']}",
            "text": f"{first['text']} {second['text']}",
            "answer": "",
            "rate": first["rate"],
            "samples": first["samples"] + int(pause * first["rate"]) + second["samples"],
        }

    def _seconds(self, a: int, b: int) -> float:
        return sum(
            f["samples"] / f["rate"]
            for f in (self._records.fields(int(a)), self._records.fields(int(b)))
        )
