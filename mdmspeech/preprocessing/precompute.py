"""What frozen parts compute once for training: speech tokens of the answer voice, encoder states of the questions."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.data.recordings.pairs import WithPairs
from mdmspeech.data.storage.record_store import data_root
from mdmspeech.data.storage.sources import questions, speech
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.data.storage.state_store import encode_states
from mdmspeech.data.storage.token_store import tokenise
from mdmspeech.data.synthesis.augment import augment
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig, encode_waves
from mdmspeech.speech_format import INPUT_RATE

AUGMENTED = 0.5  # share of the training questions that get noise, reverberation and another level
JOINED = 0.15  # of these many pairs, relative to the recordings, both are heard in a row: a pause is no end
LATE, PAUSE = 0.5, 0.8  # share that begins late and ends early, seconds of silence at most on each side: people do not speak on the button


def speech_tokens(root: str | Path | None, codec: Codec, known_as: str, parts: Sequence[str] = ("open", "answers")) -> dict[str, int]:
    """Writes `<root>/tokens/<part>.safetensors` for every part; returns tokens per part. known_as: the codec's `data.storage.token_store.fingerprint`."""
    counts = {}
    sources = {part: {split: speech(root, (part,), split, may_be_empty=True) for split in SPLITS} for part in parts}
    for part, splits in sources.items():  # none is written before all are there
        path = data_root(root) / "tokens" / f"{part}.safetensors"
        counts[part] = tokenise(splits, codec.encode, known_as, path)
    return counts


def question_states(root: str | Path | None, config: SpeechEncoderConfig, params, hours: float | None = None) -> dict[str, int]:
    """Writes `<root>/states/questions_<split>` for val and train (joined and augmented, see below); returns the number of states of each."""
    encoder = SpeechEncoder(config)

    @jax.jit
    def encode(waves_BN, samples_B):
        return encode_waves(encoder, params, waves_BN, samples_B)

    counts: dict[str, int] = {}
    sources = {split: questions(root, split, hours if split == "train" else None) for split in ("val", "train")}
    for split, records in sources.items():
        path = data_root(root) / "states" / f"questions_{split}"
        if split == "train":
            counts[split] = encode_states(WithPairs(records, JOINED), encode, path, augment=augment_some)
        else:
            counts[split] = encode_states(records, encode, path)
    return counts


def augment_some(wave: np.ndarray, index: int) -> np.ndarray:
    """Augments the share `AUGMENTED` of all recordings and puts silence around the share `LATE`, chosen and seeded by their number."""
    rng = np.random.default_rng((7, index))
    if rng.random() < LATE:
        before, after = rng.uniform(0, PAUSE, size=2) * INPUT_RATE
        wave = np.pad(wave, (int(before), int(after)))
    return augment(wave, INPUT_RATE, rng) if rng.random() < AUGMENTED else wave
