"""The table of noise that CosyVoice2's flow starts from, for parity with the reference."""

import functools

import numpy as np

from mdmspeech.errors import UserError

OFFICIAL_FRAMES = 15_000  # 5 minutes at 50 frames a second
_BLOCK = 16  # values that torch makes at once


@functools.lru_cache(maxsize=1)
def official_noise(frames: int = OFFICIAL_FRAMES, num_mels: int = 80) -> np.ndarray:
    """The reference's table, float32 [frames, M]: `torch.randn(1, 80, 15000)` after
    `torch.manual_seed(0)`, without torch.

    torch's generator is the Mersenne Twister. It draws one 32-bit integer a value, takes 24 bits of
    it as a uniform number, and turns blocks of 16 into normal ones by Box and Muller's transform:
    eight radii, then eight angles. (Sizes that 16 does not divide are treated otherwise there.)

    Raises:
      UserError: frames * num_mels is no multiple of 16.
    """
    count = frames * num_mels
    if count % _BLOCK:
        raise UserError(
            f"the official noise comes in blocks of {_BLOCK}: {frames} frames "
            f"of {num_mels} are no multiple; use the full table"
        )
    twister = np.random.RandomState(0)  # the generator and the seeding of torch
    integers = twister.randint(0, 2**32, size=(count // _BLOCK, _BLOCK), dtype=np.uint32)
    uniform = (integers & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, : _BLOCK // 2]))
    angle = np.float32(2 * np.pi) * uniform[:, _BLOCK // 2 :]
    normal = np.concatenate(
        [radius * np.cos(angle), radius * np.sin(angle)], axis=1, dtype=np.float32
    )
    table = np.ascontiguousarray(normal.reshape(num_mels, frames).T)
    table.flags.writeable = False  # it is shared
    return table
