"""Opinion scores guessed by networks: DNSMOS (Reddy et al., 2021 and 2022), and DistillMOS (Stahl
and Gamper, 2025) where it is installed.

They judge how clean and natural a recording sounds, not whether its words are right: never quote
one without a word error rate.
"""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np
from tqdm import tqdm

from mdmspeech.audio.wave import resample
from mdmspeech.errors import UserError
from mdmspeech.speech_format import INPUT_RATE

_SAMPLES = 144_160  # DNSMOS's window, 9.01 s
_PEAK = 0.7  # every clip is brought to this peak, so that level does not count
# raw output of the P.835 network -> score on the 1..5
# scale (the polynomials published with the model)
_TO_OPINION = {
    "ovrl": np.poly1d([-0.06766283, 1.11546468, 0.04602535]),
    "sig": np.poly1d([-0.08397278, 1.22083953, 0.0052439]),
    "bak": np.poly1d([-0.13166888, 1.60915514, -0.39604546]),
}


class Dnsmos:
    """DNSMOS P.835 (`sig`, `bak`, `ovrl`) and P.808 (`p808`) from the ONNX files of the speechmos
    package; one 9 s window a clip.

    The package's own code slides the window second by second; one window costs a seventh and, on
    clips of one sentence, says the same.

    Raises:
      UserError: speechmos or onnxruntime is not installed.
    """

    def __init__(self, threads: int = 1):
        spec = importlib.util.find_spec("speechmos")
        if (
            spec is None
            or not spec.submodule_search_locations
            or importlib.util.find_spec("onnxruntime") is None
        ):
            raise UserError(
                "DNSMOS is not installed: pip install onnxruntime && pip install "
                "--no-deps speechmos"
            )
        folder = Path(spec.submodule_search_locations[0]) / "dnsmos_models"
        self._p835, self._p808 = (
            _session(folder / name, threads) for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
        )

    def __call__(self, wave_N: np.ndarray, rate: int) -> dict[str, float]:
        """Scores of one clip of any length (short ones are repeated to fill the window, long ones
        cut).
        """
        clip = _window(wave_N, rate)
        sig, bak, ovrl = self._p835.run(None, {"input_1": clip[None]})[0][0]
        mel = librosa.feature.melspectrogram(
            y=clip[:-160], sr=INPUT_RATE, n_fft=321, hop_length=160, n_mels=120
        )
        mel = (librosa.power_to_db(mel, ref=np.max) + 40) / 40
        p808 = self._p808.run(None, {"input_1": mel.T[None].astype(np.float32)})[0][0][0]
        raw = {"ovrl": ovrl, "sig": sig, "bak": bak}
        return {name: float(_TO_OPINION[name](value)) for name, value in raw.items()} | {
            "p808": float(p808)
        }


def mean_opinion(
    waves: Sequence[np.ndarray], rate: int, threads: int = 1, label: str = "DNSMOS"
) -> dict[str, float]:
    """Means over clips: DNSMOS's four scores, `distillmos` where that package is installed, and how
    many clips were judged.

    Clips without samples or sound count with the lowest score, 1.
    """
    judge = Dnsmos(threads)
    lowest = dict.fromkeys((*_TO_OPINION, "p808"), 1.0)
    rows = [
        judge(w, rate) if len(w) and np.abs(w).max() > 0 else lowest
        for w in tqdm(waves, label, unit="clip", leave=False)
    ]
    means = (
        {name: round(float(np.mean([row[name] for row in rows])), 3) for name in lowest}
        if rows
        else {}
    )
    other = _distillmos()
    if other and rows:
        means["distillmos"] = round(
            float(np.mean([other(resample(w, rate, INPUT_RATE)) for w in waves if len(w)])), 3
        )
    return {**means, "clips": len(rows)}


def _window(wave_N: np.ndarray, rate: int) -> np.ndarray:
    clip = resample(wave_N, rate, INPUT_RATE)
    clip = clip * (_PEAK / max(float(np.abs(clip).max()), 1e-9))
    return np.tile(clip, -(-_SAMPLES // len(clip)))[:_SAMPLES].astype(np.float32)


def _session(path: Path, threads: int):
    import onnxruntime

    if not path.is_file():
        raise UserError(
            f"{path.name} is missing from speechmos: pip install --no-deps "
            "--force-reinstall speechmos"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@functools.lru_cache(maxsize=1)
def _distillmos():
    """A function wave at 16 kHz -> score, or None: it needs PyTorch, which nothing else here does."""
    if importlib.util.find_spec("distillmos") is None or importlib.util.find_spec("torch") is None:
        return None
    import distillmos
    import torch

    model = distillmos.ConvTransformerSQAModel().eval()

    def judge(wave_N: np.ndarray) -> float:
        with torch.no_grad():
            return float(model(torch.from_numpy(wave_N)[None]))

    return judge
