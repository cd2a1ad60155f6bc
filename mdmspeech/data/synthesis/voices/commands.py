"""Synthesisers that are programs: flite and festival (BSD-like, Debian) and espeak-ng (GPL-3,
Debian). Each call runs the program once.
"""

import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError

TIMEOUT = 60  # seconds for one utterance
ESPEAK_WORDS_PER_MINUTE = 165


class _Program:
    """Runs one program that writes a WAV file."""

    program, package = "", ""

    def __init__(self):
        if not shutil.which(self.program):
            raise UserError(
                f"the program {self.program} is not installed: sudo apt-get install {self.package}"
            )

    def speak(self, job: Job) -> Rendered:
        """One job; the rate is the voice's own. Raises ValueError when the program fails or says
        nothing.
        """
        import soundfile

        with tempfile.TemporaryDirectory() as folder:
            text, wav = pathlib.Path(folder) / "text.txt", pathlib.Path(folder) / "out.wav"
            text.write_text(job.text + "\n", encoding="ascii", errors="ignore")
            run = subprocess.run(
                self.command(job, text, wav), capture_output=True, timeout=TIMEOUT, check=False
            )
            if run.returncode or not wav.exists():
                raise ValueError(
                    f"{self.program} failed: {run.stderr.decode(errors='replace').strip()[:200]}"
                )
            audio, rate = soundfile.read(wav, dtype="float32")
        return Rendered(np.asarray(audio, np.float32), rate, {})

    def command(self, job: Job, text: pathlib.Path, wav: pathlib.Path) -> list[str]:
        raise NotImplementedError


class Flite(_Program):
    """Voices built into the program: slt, rms, awb, kal16 (16 kHz), kal (8 kHz)."""

    program, package = "flite", "flite"

    def command(self, job: Job, text: pathlib.Path, wav: pathlib.Path) -> list[str]:
        """`flite` with the duration stretched by 1 / speed."""
        return [
            "flite",
            "-voice",
            job.voice,
            "--setf",
            f"duration_stretch={1 / job.speed:.3f}",
            "-f",
            str(text),
            "-o",
            str(wav),
        ]


class Festival(_Program):
    """Voices by their festival names, for example `cmu_us_slt_arctic_hts`, `kal_diphone`,
    `ked_diphone`.
    """

    program, package = "text2wave", "festival festvox-us-slt-hts festvox-kallpc16k festvox-kdlpc16k"

    def command(self, job: Job, text: pathlib.Path, wav: pathlib.Path) -> list[str]:
        """`text2wave` with the voice chosen and its durations stretched by a line of Scheme."""
        setup = f"(begin (voice_{job.voice}) (Parameter.set 'Duration_Stretch {1 / job.speed:.3f}))"
        return ["text2wave", "-eval", setup, str(text), "-o", str(wav)]


class Espeak(_Program):
    """Voices by language and variant, for example `en-us+f3` or `en-gb`."""

    program, package = "espeak-ng", "espeak-ng"

    def command(self, job: Job, text: pathlib.Path, wav: pathlib.Path) -> list[str]:
        """`espeak-ng` at a rate in words per minute."""
        return [
            "espeak-ng",
            "-v",
            job.voice,
            "-s",
            str(round(ESPEAK_WORDS_PER_MINUTE * job.speed)),
            "-f",
            str(text),
            "-w",
            str(wav),
        ]
