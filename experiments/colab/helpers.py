"""What the notebooks share: commands that stop a notebook when they fail, a microphone in a web
page, and a small corpus that the shipped model says itself. The pictures are in `figures.py`.
"""

import base64
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech.audio.writer import save_wave
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.speech import Speech

ROOT = Path(__file__).resolve().parents[2]
QUESTION = ROOT / "mdmspeech" / "assets" / "fact.wav"
RATE = 16_000  # Hz, of what is recorded
LOWER = 0.8  # factor of pitch and formants of the stand-in voice


def small() -> bool:
    """Whether everything is done in small, as the tests have it: $MDMSPEECH_SMALL."""
    return os.environ.get("MDMSPEECH_SMALL", "") not in ("", "0")


def home() -> Path:
    """Where the corpus and the runs are: $MDMSPEECH_HOME, or ~/.cache/mdmspeech."""
    return Path(os.environ.get("MDMSPEECH_HOME") or "~/.cache/mdmspeech").expanduser()


def run(command: str, allowed: Sequence[int] = (0,), **environment: str) -> str:
    """Runs a command without a shell, prints what it prints as it comes, and returns it.

    Args:
      allowed: exit codes that are no failure.
      environment: variables for it beside those of this process; "" removes one.

    Raises:
      RuntimeError: it failed.
    """
    process, printed = start(command, **environment), []
    assert process.stdout is not None
    for line in process.stdout:  # a bar of progress ends in \r, which is read as an end of line
        if "%|" not in line:
            print(line, end="", flush=True)
        printed.append(line)
    if process.wait() not in allowed:
        raise RuntimeError(f"it ended with exit code {process.returncode}: {command}")
    return "".join(printed)


def start(command: str, **environment: str) -> subprocess.Popen:
    """The process of a command, its output in a pipe. environment: as `run`."""
    print(f"$ {command}", flush=True)
    words = shlex.split(command)
    starts = {"mdmspeech": [sys.executable, "-m", "mdmspeech"], "python": [sys.executable]}
    variables = {**os.environ, "PYTHONPATH": _with_root(), **environment}
    return subprocess.Popen(
        [*starts.get(words[0], words[:1]), *words[1:]],
        cwd=ROOT,
        env={name: value for name, value in variables.items() if value},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def kill_after_checkpoint(command: str, workdir: Path, **environment: str) -> int:
    """Starts a training run and kills it with -9 as soon as it has written a checkpoint; returns
    the step of the newest one. environment: as `run`.

    Raises:
      RuntimeError: it ended before it had written one.
    """
    process, printed = start(command, **environment), []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            printed.append(line)
            if checkpoints(workdir):
                break
            print(line, end="", flush=True)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if not checkpoints(workdir):
        raise RuntimeError("it ended before it had written a checkpoint:\n" + "".join(printed))
    return checkpoints(workdir)[-1]


def checkpoints(workdir: Path) -> list[int]:
    """Steps of the finished checkpoints of a run, in order."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def record(seconds: float, label: str = "speak now") -> tuple[np.ndarray, int] | None:
    """Records from the microphone of the browser that shows this Colab notebook.

    Returns:
      (samples float32 [N] in -1..1, rate in Hz); None, with a line that says why, where there is no
      Colab, no microphone, or it is refused.
    """
    try:
        from google.colab import output
    except ImportError:
        print("no Colab here, so no microphone of the browser")
        return None
    return read_recording(output.eval_js(recording_script(seconds, label)))


def recording_script(seconds: float, label: str) -> str:
    """JavaScript whose value, once it has come, is what `read_recording` reads."""
    script = (Path(__file__).parent / "record.js").read_text(encoding="utf-8")
    call = f"record({json.dumps(seconds)}, {RATE}, {json.dumps(label)})"
    return f"(() => {{{script}\nreturn {call};}})()"


def read_recording(answer: str) -> tuple[np.ndarray, int] | None:
    """What record.js gives -> samples and rate; None, with a line that says why, for a refusal."""
    if not answer or answer.startswith(" "):
        print(f"nothing was recorded: {answer.strip() or 'no sound came'}")
        return None
    samples = np.frombuffer(base64.b64decode(answer), "<i2")
    return samples.astype(np.float32) / 32768, RATE


def ask(seconds: float = 6) -> tuple[np.ndarray, int] | Path:
    """A question from the microphone, or the shipped one ("... the capital city of Ethiopia.")."""
    if (recorded := record(seconds, "ask your question now")) is not None:
        return recorded
    print("so the shipped question is asked; your own file: question = 'my.wav'")
    return QUESTION


def lowered(say: Callable[..., Speech], text: str) -> tuple[np.ndarray, int]:
    """A voice that is not the model's, for those who record nothing: the model's own, said faster
    and played slower, so that pitch and throat are those of a larger person and the tempo stays.
    """
    speech = say(text, steps=4, pace=1 / LOWER)
    return speech.audio, round(LOWER * speech.sample_rate)


def write_corpus(
    folder: Path, recordings: Sequence[tuple[np.ndarray, int]], texts: Sequence[str]
) -> Path:
    """Writes recordings (samples, rate) and the manifest that `mdmspeech data --manifest` reads;
    returns its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, ((audio, rate), text) in enumerate(zip(recordings, texts, strict=True), 1):
        save_wave(folder / f"{number:04d}.wav", audio, rate)
        lines.append(json.dumps({"audio": f"{number:04d}.wav", "text": text}))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def said_corpus(model: Assistant, name: str, count: int) -> None:
    """A part of the corpus, recordings and speech tokens, of `count` sentences in a model's voice;
    nothing is done where it is there.
    """
    manifest = home() / "recorded" / name / "manifest.jsonl"
    if not manifest.is_file() or len(manifest.read_text().splitlines()) != count:
        texts = sentences(count)
        said = [model.say(text, steps=1) for text in texts]
        print(f"said {count} sentences, {sum(len(s.audio) / s.sample_rate for s in said):.0f} s")
        write_corpus(manifest.parent, [(one.audio, one.sample_rate) for one in said], texts)
    run(f"mdmspeech data --manifest {manifest} --name {name}")


def player(sound: tuple[np.ndarray, int] | str | os.PathLike) -> Any:
    """A player of a file or of (samples, rate)."""
    from IPython.display import Audio

    if isinstance(sound, tuple):
        return Audio(sound[0], rate=sound[1])
    return Audio(filename=os.fspath(sound))


def sentences(count: int) -> list[str]:
    """So many different short sentences, the same every time; at most 12,000."""
    parts = (
        ("old", "small", "green", "quiet", "heavy", "young", "strange", "bright", "cold", "happy"),
        ("farmer", "teacher", "river", "engine", "garden", "doctor", "sailor", "window", "horse", "clock"),
        ("stood", "waited", "turned", "appeared", "stopped", "remained"),
        ("near the bridge", "behind the school", "under the tree", "beside the road", "in the rain"),
        ("until noon", "all day", "for an hour", "before dinner"),
    )  # fmt: skip
    total = int(np.prod([len(words) for words in parts]))
    chosen = np.random.default_rng(0).permutation(total)[:count]
    columns = np.unravel_index(chosen, [len(words) for words in parts])
    picked = zip(
        *(np.array(words)[of] for words, of in zip(parts, columns, strict=True)), strict=True
    )
    return [f"The {' '.join(words)}." for words in picked]


def curve(workdir: Path, name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of one figure in a run's metrics.jsonl, for example "train/loss"."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in found], [value for _, value in found]


def _with_root() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
