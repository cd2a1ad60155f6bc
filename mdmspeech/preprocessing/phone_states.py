"""Makes what the phone classifier learns from: sentences in invented voices, as the speech
encoder's states with the symbol that is spoken in each.

The voices are our synthesiser's pseudo-speakers (children to deep voices), whose durations are
known; some recordings get noise. Test voices and sentences are never trained on. A record of the
dataset is a stretch of 1 s. Splits: "train", "test" (voices and sentences of its own), "val": the
last sentences of the training voices.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from mdmspeech.audio.wave import resample
from mdmspeech.data.datasets.corpus import Root, folder_of
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.pipelines.phone_stretches import NAME, STRETCH
from mdmspeech.data.synthesis.augment import augment
from mdmspeech.data.synthesis.jobs import pseudo_speakers
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.data.texts.open_sentences import open_sentences
from mdmspeech.speech_format import INPUT_RATE, STATE_SECONDS

_TEST_VOICES, _TEST_EVERY, _VALIDATION_EVERY = 40, 10, 20
_SPEEDS = (0.8, 1.25)
_NOISY = 0.4  # share of the recordings with noise, reverberation and another level
_FIRST_SENTENCE = 2000


def write_phones(
    root: Root,
    encode: Callable[[Sequence[np.ndarray]], list[np.ndarray]],
    voice,
    sentences: int,
    batch: int = 16,
) -> int:
    """Speaks, encodes and labels; returns how many states there are.

    encode: waves [N] at 16 kHz -> states [T, D]. voice: a `voices.hibari.Hibari`.
    """
    crowd, rng = pseudo_speakers(), np.random.default_rng(0)
    found: dict[str, tuple[list, list]] = {"train": ([], []), "test": ([], [])}
    texts = open_sentences()[_FIRST_SENTENCE : _FIRST_SENTENCE + sentences]
    for first in tqdm.tqdm(
        range(0, len(texts), batch), desc="phones", unit="batch", mininterval=5.0
    ):
        waves, labels, splits = [], [], []
        for n in range(first, min(first + batch, len(texts))):
            test = n % _TEST_EVERY == 0
            voices = (0, _TEST_VOICES) if test else (_TEST_VOICES, len(crowd))
            speaker = crowd[int(rng.integers(*voices))]
            job = Job(
                texts[n]["id"],
                texts[n]["text"],
                "hibari",
                speaker.name,
                speed=float(rng.uniform(*_SPEEDS)),
                seed=n,
            )
            audio, rate, symbols, ends = voice.speak_timed(job)
            wave = resample(audio, rate, INPUT_RATE)
            waves.append(augment(wave, INPUT_RATE, rng) if rng.random() < _NOISY else wave)
            labels.append(label(symbols, ends, len(waves[-1])))
            splits.append("test" if test else "train")
        for states, ids, split in zip(encode(waves), labels, splits, strict=True):
            found[split][0].append(states[: len(ids)].astype(np.float16))
            found[split][1].append(ids[: len(states)])
    write_dataset(
        folder_of(root, "states", NAME),
        "states",
        {split: _stretches(split, *rows) for split, rows in split_off(found).items()},
        width=found["train"][0][0].shape[1],
    )
    return sum(len(ids) for _, rows in found.values() for ids in rows)


def split_off(found: dict[str, tuple[list, list]]) -> dict[str, Any]:
    """The last stretches of the training voices are the validation split."""
    joined = {split: tuple(map(np.concatenate, rows)) for split, rows in found.items() if rows[0]}
    states, ids = joined["train"]
    border = len(ids) - len(ids) // STRETCH // _VALIDATION_EVERY * STRETCH
    return joined | {
        "train": (states[:border], ids[:border]),
        "val": (states[border:], ids[border:]),
    }


def _stretches(split: str, states: np.ndarray, ids: np.ndarray) -> Iterator[dict[str, Any]]:
    for first in range(0, len(ids) - STRETCH + 1, STRETCH):
        part = slice(first, first + STRETCH)
        yield {"id": f"{split}-{first}", "states": states[part], "symbols": ids[part]}


def label(symbols_M: np.ndarray, ends_M: np.ndarray, samples: int) -> np.ndarray:
    """The symbol in the middle of each state of a wave of so many samples at 16 kHz, int16 [T].
    ends_M: seconds.
    """
    times = (np.arange(-(-samples // round(INPUT_RATE * STATE_SECONDS))) + 0.5) * STATE_SECONDS
    at_T = np.minimum(np.searchsorted(ends_M, times, side="right"), len(symbols_M) - 1)
    return symbols_M[at_T].astype(np.int16)
