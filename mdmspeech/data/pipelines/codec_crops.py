"""Fixed-length crops of speech records for training the codec: Grain, shuffled, deterministic, with
a state that can be saved.

A source is anything with `len` and `[i] -> record` (the raw store, a TFDS data source): audio int16
at 24 kHz, `symbols`, `frames` (durations of the symbols in 25 ms frames) and `f0` (Hz at 100 Hz, 0
= unvoiced). Records without alignment or F0 (`symbols`, `f0` missing) get unknown phones.
"""

import sys

import grain
import numpy as np

from mdmspeech.data.packing.position import CheckedBatches, digest_of
from mdmspeech.data.packing.sharding import HostShare, Shard
from mdmspeech.errors import UserError
from mdmspeech.speech_format import DURATION_SECONDS, OUTPUT_RATE


def codec_crops(
    source,
    *,
    batch: int,
    tokens: int,
    token_samples: int,
    seed: int,
    train: bool = True,
    phones: int = 128,
    shard: Shard = (0, 1),
    threads: int = 1,
    states=None,
):
    """Iterator of batches: audio int16 [B, tokens*token_samples], valid bool [B, tokens], phone int32
    [B, 2*tokens], f0, voiced [B, 4*tokens].

    Records that bring speech tokens of their own (`tokens`, see `data.recordings.user`) add tokens
    int32 [B, tokens]. A short recording is placed at the start of its crop and padded with silence;
    `valid` tells which tokens hold speech. states: the speech encoder's whitened states, `width` and
    `find(record)` (see `data.datasets.speech_states.SpeechStates`); they add states float16 [B,
    2*tokens, D] and states_valid bool [B, 2*tokens], False where a record has none. batch: rows of
    all hosts together, of which `shard` (number, count) gets its part.
    """
    data = grain.MapDataset.source(source).seed(seed)
    if train:
        data = data.shuffle().repeat()
    data = data.random_map(
        lambda record, rng: crop(
            record, rng if train else None, tokens, token_samples, phones, states
        )
    )
    share = HostShare(data, batch, shard)
    data = grain.MapDataset.source(share).batch(share.rows, drop_remainder=True)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return CheckedBatches(iter(data.to_iter_dataset(options)), digest_of(source, "samples"))


def crop(
    record: dict,
    rng: np.random.Generator | None,
    tokens: int,
    token_samples: int,
    phones: int,
    states=None,
) -> dict:
    """One record -> one crop, at a random token boundary (or the start, without a generator)."""
    audio = np.asarray(record["audio"])
    length = -(-len(audio) // token_samples)
    first = int(rng.integers(0, max(length - tokens, 0) + 1)) if rng is not None else 0
    part = audio[first * token_samples : (first + tokens) * token_samples]
    wave = np.zeros(tokens * token_samples, np.int16)
    wave[: len(part)] = part
    f0, voiced = _pitch(record, first * 4, tokens * 4)
    out = {
        "id": str(record["id"]),
        "audio": wave,
        "valid": np.arange(tokens) < -(-len(part) // token_samples),
        "phone": _phones(record, first, tokens, token_samples / OUTPUT_RATE, phones),
        "f0": f0,
        "voiced": voiced,
    }
    if "tokens" in record:
        ids = np.asarray(record["tokens"], np.int32)[first : first + tokens]
        out["tokens"] = np.pad(ids, (0, tokens - len(ids)))
    if states is not None:
        out["states"], out["states_valid"] = _states(record, first, tokens, states)
    return out


def check_states(source, states, width: int) -> None:
    """Looks at the states before training. UserError: they are of another width than the codec's
    head, or no record has any; it is told how many have none.
    """
    if states.width != width:
        raise UserError(
            f"the states have {states.width} dimensions, the codec's head {width}: "
            f"--set codec.semantic_dim={states.width}"
        )
    missing = sum(source.fields(i) not in states for i in range(len(source)))
    if missing == len(source):
        raise UserError(
            "no recording has states of the speech encoder: the corpus was made anew after them; "
            f"make them again with: {states.make}"
        )
    if missing:
        print(f"{missing} of {len(source)} recordings have no states", file=sys.stderr)


def _states(record: dict, first: int, tokens: int, states) -> tuple[np.ndarray, np.ndarray]:
    """The states of the crop's tokens, two a token (float16 [2*tokens, D]), and which are known."""
    values, known = np.zeros((2 * tokens, states.width), np.float16), np.zeros(2 * tokens, bool)
    if (found := states.find(record)) is not None:
        found = found[2 * first : 2 * (first + tokens)]
        values[: len(found)], known[: len(found)] = found, True
    return values, known


def _phones(record: dict, first: int, tokens: int, token_seconds: float, phones: int) -> np.ndarray:
    """The symbol spoken in the middle of each half token, -1 where unknown or past the end."""
    if not len(record.get("symbols", ())):
        return np.full(2 * tokens, -1, np.int32)
    ends = np.cumsum(np.asarray(record["frames"], np.float64)) * DURATION_SECONDS
    times = (first * 2 + np.arange(2 * tokens) + 0.5) * token_seconds / 2
    index = np.searchsorted(ends, times, side="right")
    symbols = np.append(np.asarray(record["symbols"], np.int32), -1)
    found = symbols[np.minimum(index, len(symbols) - 1)]
    return np.where(found < phones, found, -1).astype(np.int32)


def _pitch(record: dict, first: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """F0 continued through unvoiced stretches (float32 [frames]) and where it is voiced (bool
    [frames]).
    """
    curve = np.asarray(record.get("f0", ()), np.float32)
    voiced = curve > 0
    if voiced.any():
        at = np.flatnonzero(voiced)
        curve = np.interp(np.arange(len(curve)), at, curve[at]).astype(np.float32)
    f0, on = np.full(frames, 200.0, np.float32), np.zeros(frames, bool)
    part = slice(first, min(first + frames, len(curve)))
    count = max(part.stop - part.start, 0)
    if count and voiced.any():
        f0[:count], on[:count] = curve[part], voiced[part]
        f0[count:] = f0[count - 1]
    return f0, on
