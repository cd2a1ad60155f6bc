"""Batches for the phone classifier: stretches of a speech encoder's states with the symbol that is
spoken in each (`preprocessing.phone_states` makes them).
"""

import grain
import numpy as np

from mdmspeech.data.packing.position import CheckedBatches, digest_of

NAME = "phones"  # of the dataset of states
STRETCH = 50  # states of an example


class RandomStretches:
    """`[i]` -> {states float16 [STRETCH, D], symbols int32 [STRETCH]} of random numbers, to try
    things out.
    """

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
    """Endless Grain iterator: states float16 [B, STRETCH, D], symbols int32 [B, STRETCH]; "train"
    is shuffled.
    """
    data = grain.MapDataset.source(source).seed(seed)
    data = data.map(lambda row: {name: row[name] for name in ("states", "symbols")})
    data = data.shuffle() if split == "train" else data
    data = data.repeat().batch(batch, drop_remainder=True)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)
    return CheckedBatches(iter(data.to_iter_dataset(options)), digest_of(source, "states"))
