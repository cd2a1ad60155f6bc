"""Where a clip is silent: a tail, long runs inside. With the duration ratio it shows what error
rates
hide: a voice that does not stop, or stalls.
"""

from collections.abc import Sequence

import numpy as np

_FRAME_SECONDS = 0.02
_BELOW_PEAK_DB = 45.0  # a frame this far under the clip's loudest frame is silence
RUN_SECONDS = 0.7  # a pause inside a clip that is longer than any the answer voice makes


def silent_frames(wave_N: np.ndarray, rate: int) -> np.ndarray:
    """bool [T], one every 20 ms. A clip without any sound is all silent."""
    size = round(_FRAME_SECONDS * rate)
    wave = np.asarray(wave_N, np.float64)
    power_T = np.square(wave[: len(wave) // size * size].reshape(-1, size)).mean(1)
    if not power_T.size:
        return np.zeros(0, bool)
    return power_T <= max(power_T.max() * 10 ** (-_BELOW_PEAK_DB / 10), 1e-10)


def silences(wave_N: np.ndarray, rate: int) -> dict[str, float]:
    """Seconds of silence: `lead_s` before the first sound, `tail_s` after the last, `longest_s` the
    longest run between them.
    """
    silent_T = silent_frames(wave_N, rate)
    loud = np.flatnonzero(~silent_T)
    if not loud.size:
        whole = len(wave_N) / rate
        return {"lead_s": whole, "tail_s": whole, "longest_s": 0.0}
    gaps = np.diff(loud) - 1
    longest = float(gaps.max()) if gaps.size else 0.0
    return {
        "lead_s": loud[0] * _FRAME_SECONDS,
        "tail_s": (len(silent_T) - 1 - loud[-1]) * _FRAME_SECONDS,
        "longest_s": longest * _FRAME_SECONDS,
    }


def timing(
    waves: Sequence[np.ndarray], originals: Sequence[np.ndarray], rate: int
) -> dict[str, float]:
    """Length against recordings of the same texts, and silences.

    Args:
      waves: the clips. originals: a recording of each text by the answer voice, at the same rate.

    Returns: `duration_ratio`, `duration_ratio_p5` and `_p95` (lengths without the silence at both
      ends), `tail_s` (mean), `tail_s_max`,
    `silence_runs` (clips with a pause over 0.7 s inside).
    """
    found = [silences(wave, rate) for wave in waves]
    ratios = [
        _spoken(wave, rate) / max(_spoken(original, rate), 1e-3)
        for wave, original in zip(waves, originals, strict=True)
    ]
    low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
    return {
        "duration_ratio": round(float(np.mean(ratios)), 3),
        "duration_ratio_median": round(float(middle), 3),
        "duration_ratio_p5": round(float(low), 3),
        "duration_ratio_p95": round(float(high), 3),
        "tail_s": round(float(np.mean([s["tail_s"] for s in found])), 3),
        "tail_s_max": round(float(max(s["tail_s"] for s in found)), 3),
        "silence_runs": sum(s["longest_s"] > RUN_SECONDS for s in found),
    }


def _spoken(wave_N: np.ndarray, rate: int) -> float:
    ends = silences(wave_N, rate)
    return max(len(wave_N) / rate - ends["lead_s"] - ends["tail_s"], 0.0)
