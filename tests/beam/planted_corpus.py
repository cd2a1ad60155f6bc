"""A corpus of tones in noise with bad recordings of every kind planted among them, and where each bad
one has to end.
"""

import json
import os
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
# (stage, kind) that a bad recording has to be left out as
Reason = tuple[str, str]


def tone(number: int, seconds: float = 0.4, rate: int = RATE) -> np.ndarray:
    """A tone of its own pitch in noise, float32 [N]."""
    noise = np.random.default_rng(number).normal(size=int(seconds * rate))
    time = np.arange(len(noise)) / rate
    return (0.2 * np.sin(2 * np.pi * (100 + number % 700) * time) + 0.01 * noise).astype(np.float32)


def plant(folder: Path, good: int, bad: int = 30) -> dict[str, Reason]:
    """Writes `good` recordings and `bad` bad ones, every `good // bad` lines one, into two lists;
    returns where -> reason of the bad ones.
    """
    folder.mkdir(parents=True)
    lines: list[str] = []
    reasons: list[tuple[int, Reason]] = []
    every = max(good // bad, 1)
    for number in range(good):
        if number % every == 0 and len(reasons) < bad:
            line, reason = _BAD[len(reasons) % len(_BAD)](folder, len(reasons))
            reasons.append((len(lines), reason))
            lines.append(line)
        name = f"{number:05d}.wav"
        soundfile.write(folder / name, tone(number), RATE)
        lines.append(_line(name, f"tone number {number}", speaker=f"s{number % 7}"))
    half = len(lines) // 2
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines[:half]))
    (folder / "b.jsonl").write_text("".join(line + "\n" for line in lines[half:]))
    return {
        f"a.jsonl, line {at + 1}" if at < half else f"b.jsonl, line {at + 1 - half}": reason
        for at, reason in reasons
    }


def _line(audio: str, text: str, **more) -> str:
    return json.dumps({"audio": audio, "text": text, **more})


def _sound(folder: Path, number: int, wave: np.ndarray, **how) -> str:
    name = f"bad{number}.wav"
    soundfile.write(folder / name, wave, RATE, **how)
    return _line(name, f"bad recording {number}")


def _bytes(folder: Path, number: int, data: bytes, suffix: str = ".wav") -> str:
    (folder / f"bad{number}{suffix}").write_bytes(data)
    return _line(f"bad{number}{suffix}", f"bad recording {number}")


def _cut(folder: Path, number: int) -> str:
    line = _sound(folder, number, tone(number, 2.0))
    os.truncate(folder / f"bad{number}.wav", RATE)  # half a second of two
    return line


def _twice(folder: Path, number: int) -> str:
    # "z": its place comes after that of the one with the same id
    soundfile.write(folder / f"z{number}.wav", tone(number), RATE)
    return _line(f"z{number}.wav", "the same id", id="00000.wav")


_BAD = (
    lambda f, n: (_line(f"gone{n}.wav", "no such file"), ("import", "no audio file")),
    lambda f, n: (_bytes(f, n, b""), ("import", "audio of length 0")),
    lambda f, n: (_line(f"{n}.wav", " "), ("import", "line not usable")),
    lambda f, n: ('{"audio": "a.wav", "text": ', ("import", "line not usable")),
    lambda f, n: (_line("00001.wav", "?!", id=f"bad{n}"), ("import", "text not usable")),
    lambda f, n: (
        _line("00001.wav", "a text", id=f"bad{n}", split="dev2"), ("import", "split unknown")),
    lambda f, n: (_twice(f, n), ("import", "id twice")),
    lambda f, n: (_line("00001.wav", "a text", id=["x"]), ("import", "line not usable")),
    lambda f, n: (_bytes(f, n, b"no sound at all " * 99), ("clean", "audio not readable")),
    lambda f, n: (_bytes(f, n, b"fLaC\0\0", ".flac"), ("clean", "audio not readable")),
    lambda f, n: (_sound(f, n, np.zeros(RATE, np.float32)), ("clean", "only silence")),
    lambda f, n: (_sound(f, n, tone(n, 0.05)), ("clean", "audio too short")),
    lambda f, n: (_sound(f, n, tone(n, 31.0)), ("clean", "audio too long")),
    lambda f, n: (_cut(f, n), ("clean", "audio cut off")),
    lambda f, n: (
        _sound(f, n, np.full(RATE, np.nan, np.float32), subtype="FLOAT"),
        ("clean", "audio not readable")),
    lambda f, n: (_line("00001.wav", "你好", id=f"bad{n}"), ("clean", "text not usable")),
)  # fmt: skip
