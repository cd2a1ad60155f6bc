"""A wave from a mel spectrogram without any network: what a codec's decoder must beat, since the
same mel without its tokens costs nothing to learn.
"""

import librosa
import numpy as np

_ROUNDS, _MEL_ROUNDS = 32, 60


def from_log_mel(
    mel_TM: np.ndarray, basis_KM: np.ndarray, window: int, hop: int, length: int
) -> np.ndarray:
    """Natural-log mel magnitudes [T, M] -> float32 [length], by Griffin-Lim (1984) with momentum
    (Perraudin et al., 2013).

    Args:
      basis_KM: the mel filters the spectrogram was made with. window, hop: its STFT, in samples,
        Hann-windowed.
    """
    magnitude_KT = _bins(np.exp(np.asarray(mel_TM, np.float64)).T, basis_KM.astype(np.float64))
    wave = librosa.griffinlim(
        magnitude_KT,
        n_iter=_ROUNDS,
        hop_length=hop,
        win_length=window,
        n_fft=window,
        random_state=0,
    )
    # Their frames are centred on multiples of the hop, ours half a hop later.
    shifted = np.concatenate([np.zeros(hop // 2), wave, np.zeros(max(length - len(wave), 0))])
    return shifted[:length].astype(np.float32)


def _bins(mel_MT: np.ndarray, basis_KM: np.ndarray) -> np.ndarray:
    """Non-negative magnitudes [K, T] whose mel is `mel_MT`: multiplicative updates (Lee and Seung,
    2001), one product per round.
    """
    magnitude = basis_KM @ mel_MT / np.maximum(basis_KM.sum(1, keepdims=True), 1e-9) + 1e-6
    target = basis_KM @ mel_MT
    for _ in range(_MEL_ROUNDS):
        magnitude *= target / np.maximum(basis_KM @ (basis_KM.T @ magnitude), 1e-9)
    return magnitude
