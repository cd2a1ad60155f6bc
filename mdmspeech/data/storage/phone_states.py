"""What the phone classifier learns from: sentences in invented voices, as the speech encoder's
states with the symbol that is spoken in each.

The voices are our synthesiser's pseudo-speakers (children to deep voices), whose durations are
known; some recordings get noise. Test voices and sentences are never trained on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import grain
import numpy as np
import safetensors.numpy
import tqdm

from mdmspeech.audio.wave import resample
from mdmspeech.data.storage.record_store import data_root
from mdmspeech.data.synthesis.augment import augment
from mdmspeech.data.synthesis.jobs import pseudo_speakers
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.data.texts.open_sentences import open_sentences
from mdmspeech.errors import UserError
from mdmspeech.files import written_whole
from mdmspeech.speech_format import INPUT_RATE, STATE_SECONDS

STRETCH = 50  # states of an example
_TEST_VOICES, _TEST_EVERY, _VALIDATION_EVERY = 40, 10, 20
_SPEEDS = (0.8, 1.25)
_NOISY = 0.4  # share of the recordings with noise, reverberation and another level
_FIRST_SENTENCE = 2000


def path_of(root: str | Path | None, split: str) -> Path:
    """Where the states of "train" (of which "val" is a part) or "test" are."""
    return data_root(root) / "states" / f"phones_{split}.safetensors"


def write_phones(
    root: str | Path | None,
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
            speaker = crowd[
                int(
                    rng.integers(0, _TEST_VOICES)
                    if test
                    else rng.integers(_TEST_VOICES, len(crowd))
                )
            ]
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
    for split, (all_states, all_ids) in found.items():
        path = path_of(root, split)
        with written_whole(path) as part:
            part.write_bytes(
                safetensors.numpy.save(
                    {"states": np.concatenate(all_states), "symbols": np.concatenate(all_ids)}
                )
            )
    return sum(len(ids) for _, rows in found.values() for ids in rows)


def label(symbols_M: np.ndarray, ends_M: np.ndarray, samples: int) -> np.ndarray:
    """The symbol in the middle of each state of a wave of so many samples at 16 kHz, int16 [T].
    ends_M: seconds.
    """
    times = (np.arange(-(-samples // round(INPUT_RATE * STATE_SECONDS))) + 0.5) * STATE_SECONDS
    return symbols_M[
        np.minimum(np.searchsorted(ends_M, times, side="right"), len(symbols_M) - 1)
    ].astype(np.int16)


class Stretches:
    """Random access to stretches of states: `[i]` -> {states float16 [STRETCH, D], symbols int32
    [STRETCH]}.

    Splits: "train", "test" (voices and sentences of its own), "val": the last sentences of the
      training voices.
    """

    def __init__(self, root: str | Path | None, split: str):
        path = path_of(root, "test" if split == "test" else "train")
        if not path.is_file():
            raise UserError(f"{path} is missing; make it with: mdmspeech data --phones 700")
        arrays = safetensors.numpy.load_file(path)
        held_out = (
            0
            if split == "test"
            else len(arrays["symbols"]) // STRETCH // _VALIDATION_EVERY * STRETCH
        )
        border = len(arrays["symbols"]) - held_out
        part = slice(border, None) if split == "val" else slice(0, border)
        self._states, self._symbols = arrays["states"][part], arrays["symbols"][part]
        if len(self) == 0:
            raise UserError(
                f"{path} holds too little to have a {split} split; make more with: "
                "mdmspeech data --phones 700"
            )

    def __len__(self) -> int:
        return len(self._symbols) // STRETCH

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        part = slice(int(i) * STRETCH, (int(i) + 1) * STRETCH)
        return {"states": self._states[part], "symbols": self._symbols[part].astype(np.int32)}


class RandomStretches:
    """The same of random numbers, to try things out."""

    def __init__(self, width: int, symbols: int):
        self._width, self._symbols = width, symbols

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(int(i))
        return {
            "states": rng.normal(size=(STRETCH, self._width)).astype(np.float16),
            "symbols": rng.integers(0, self._symbols, STRETCH).astype(np.int32),
        }


def phone_batches(source, split: str, batch: int, seed: int):
    """Endless Grain iterator: states float16 [B, STRETCH, D], symbols int32 [B, STRETCH]; "train" is
    shuffled.
    """
    data = grain.MapDataset.source(source).seed(seed)
    data = data.shuffle() if split == "train" else data
    data = data.repeat().batch(batch, drop_remainder=True)
    return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)))
