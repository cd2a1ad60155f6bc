"""The pictures of the notebooks. Each function draws one and shows it below its cell."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import librosa
import matplotlib.pyplot as plt
import numpy as np

from mdmspeech.audio.pitch import f0_curve
from mdmspeech.audio.wave import resample
from mdmspeech.inference.reply import Reply
from mdmspeech.inference.timeline import STAGES
from mdmspeech.speech_format import OUTPUT_RATE

_BLOCK = "#d1495b"
Wave = tuple[np.ndarray, int]  # samples and rate


def latency(replies: Mapping[str, Reply]) -> None:
    """A bar an answer: what its first sound waited for, stage by stage, in milliseconds."""
    _, axes = plt.subplots(figsize=(9, 0.7 * len(replies) + 1.6), layout="constrained")
    colours = dict(zip(STAGES, plt.get_cmap("tab10").colors, strict=False))
    for row, (name, reply) in enumerate(replies.items()):
        waited = {**reply.timeline, **reply.timeline["until_first_audio"]}
        start = 0.0
        for stage, title in STAGES.items():
            width = 1000 * waited.get(stage, 0.0)
            label = title if row == 0 else None
            axes.barh(name, width, left=start, color=colours[stage], label=label)
            start += width
        axes.plot(1000 * reply.timeline["first_audio_s"], name, "k|", markersize=18)
    axes.set(xlabel="milliseconds after the end of the question (black mark: the first sound)")
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    plt.show()


def reveal(replies: Mapping[str, Reply]) -> None:
    """A strip an answer: for each speech token the step of its block that unmasked it."""
    _, rows = plt.subplots(
        len(replies), figsize=(11, 1.0 * len(replies) + 0.8), layout="constrained", squeeze=False
    )
    for axes, (name, reply) in zip(rows[:, 0], replies.items(), strict=True):
        steps, starts = reply.trace.step_L, reply.trace.starts_P
        axes.imshow(steps[None], aspect="auto", cmap="viridis", vmin=0, vmax=15)
        for at, step in enumerate(steps):
            colour = "white" if step < 8 else "black"
            axes.text(at, 0, step + 1, ha="center", va="center", fontsize=7, color=colour)
        for start in starts:
            axes.axvline(start - 0.5, color=_BLOCK, linewidth=2)
        axes.set(yticks=[], xticks=[])
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    rows[-1, 0].set(xticks=range(0, len(steps), 25))
    rows[-1, 0].set_xticklabels([f"{number // 25} s" for number in range(0, len(steps), 25)])
    plt.show()


def voices(waves: Mapping[str, Sequence[Wave]]) -> None:
    """Left the pitch of each voice, right its average spectrum: its colour."""
    _, (pitch, spectrum) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    names = list(waves)
    colours = dict(zip(names, ("black", "#8d99ae", _BLOCK), strict=False))
    curves = [pitches(waves[name]) for name in names]
    drawn = pitch.violinplot(curves, showextrema=False, orientation="horizontal")
    for body, name in zip(drawn["bodies"], names, strict=True):
        body.set_facecolor(colours[name])
        body.set_alpha(0.6)
    for row, found in enumerate(curves, 1):
        pitch.plot(np.median(found), row, "o", color="white", markeredgecolor="black")
    pitch.set(yticks=range(1, len(names) + 1), yticklabels=names, xlabel="pitch, Hz (dot: median)")
    pitch.set_xlim(50, 350)
    for name in names:
        frequencies, level = colour_of(waves[name])
        spectrum.semilogx(frequencies, level, color=colours[name], label=name)
    spectrum.set(xlabel="Hz", ylabel="average level, dB")
    spectrum.legend(frameon=False)
    plt.show()


def pitches(waves: Sequence[Wave]) -> np.ndarray:
    """Fundamental frequency of all voiced frames, Hz [N]."""
    curve = np.concatenate([f0_curve(_resampled(wave), OUTPUT_RATE) for wave in waves])
    return curve[curve > 0]


def median_pitch(waves: Sequence[Wave]) -> float:
    """Hz, over all voiced frames."""
    return float(np.median(pitches(waves)))


def colour_of(waves: Sequence[Wave]) -> tuple[np.ndarray, np.ndarray]:
    """(Hz [40], dB [40]): the average spectrum in mel bands, its own mean taken off."""
    power = librosa.feature.melspectrogram(
        y=np.concatenate([_resampled(wave) for wave in waves]),
        sr=OUTPUT_RATE, n_fft=1024, hop_length=256, n_mels=40, fmin=60, fmax=11_000,
    ).mean(axis=1)  # fmt: skip
    level = 10 * np.log10(power + 1e-10)
    return librosa.mel_frequencies(40, fmin=60, fmax=11_000), level - level.mean()


def memory(plans: Sequence[Mapping[str, Any]]) -> None:
    """What a chip holds in each plan, part by part, beside what it has."""
    _, axes = plt.subplots(figsize=(9, 0.6 * len(plans) + 1.8), layout="constrained")
    parts = sorted({part for plan in plans for part in plan["memory"]})
    colours = dict(zip(parts, plt.get_cmap("tab10").colors, strict=False))
    for row, plan in enumerate(plans):
        start = 0.0
        for part in parts:
            width = plan["memory"].get(part, 0) / 2**30
            label = part if row == 0 else None
            axes.barh(row, width, left=start, color=colours[part], label=label)
            start += width
        axes.plot([plan["available"] / 2**30] * 2, [row - 0.45, row + 0.45], "k", linewidth=2)
    axes.set_yticks(range(len(plans)), [_slice(plan) for plan in plans])
    axes.set(xlabel="GiB a chip (black line: what a chip has)")
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=4, frameon=False)
    plt.show()


def step_bounds(plans: Sequence[Mapping[str, Any]]) -> None:
    """What a step waits for in each plan, computing, memory and links apart, and between which
    bounds it takes.
    """
    _, axes = plt.subplots(figsize=(9, 0.8 * len(plans) + 1.6), layout="constrained")
    for row, plan in enumerate(plans):
        roofline = plan["roofline"] or dict.fromkeys(
            ("compute", "hbm", "ici", "seconds_low", "seconds_high"), 0.0
        )  # it does not fit
        for offset, (key, colour) in enumerate(
            (("compute", "#30638e"), ("hbm", "#edae49"), ("ici", "#00798c"))
        ):
            label = {"compute": "computing", "hbm": "memory", "ici": "links between chips"}[key]
            axes.barh(
                row + 0.22 * (offset - 1), 1000 * roofline[key], 0.2, color=colour,
                label=label if row == 0 else None,
            )  # fmt: skip
        low, high = (1000 * roofline[name] for name in ("seconds_low", "seconds_high"))
        axes.plot([low, high], [row, row], color=_BLOCK, linewidth=3)
    axes.plot([], [], color=_BLOCK, linewidth=3, label="a step, between its bounds")
    axes.set_yticks(range(len(plans)), [_slice(plan) for plan in plans])
    axes.set(xlabel="milliseconds")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    plt.show()


def ladder(rows: Sequence[Mapping[str, Any]], law: Mapping[str, float] | None, title: str) -> None:
    """Losses of the rungs over tokens, a line a size, and the law through them where there is one."""
    _, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    sizes = sorted({row["parameters"]["non_embedding"] for row in rows})
    colours = dict(
        zip(sizes, plt.get_cmap("viridis")(np.linspace(0, 0.85, len(sizes))), strict=True)
    )
    for size in sizes:
        mine = [row for row in rows if row["parameters"]["non_embedding"] == size]
        seen = np.array([row["tokens"]["seen"] for row in mine])
        loss = [row["nats"]["mean"] for row in mine]
        style = "o" if law else "o-"
        axes.plot(seen, loss, style, color=colours[size], label=f"{size / 1e6:.2f} M parameters")
        if law:
            over = np.geomspace(seen.min() / 1.3, seen.max() * 1.3)
            said = law["E"] + law["A"] / size ** law["alpha"] + law["B"] / over ** law["beta"]
            axes.plot(over, said, color=colours[size], linewidth=1)
    axes.set(xscale="log", xlabel="speech tokens read", ylabel="loss, nats a token", title=title)
    axes.legend(frameon=False)
    plt.show()


def curves(
    found: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str = "step"
) -> None:
    """A panel a figure of a run: name -> (steps, values)."""
    _, rows = plt.subplots(
        1, len(found), figsize=(4.2 * len(found), 3), layout="constrained", squeeze=False
    )
    for axes, (name, (steps, values)) in zip(rows[0], found.items(), strict=True):
        axes.plot(steps, values, "o-", markersize=3, color="#30638e")
        axes.set(title=name, xlabel=xlabel)
        axes.spines[["top", "right"]].set_visible(False)
    plt.show()


def ledger(workdir: Path) -> None:
    """Where the time of a run went, a bar for each of its starts."""
    starts = json.loads((workdir / "ledger.json").read_text(encoding="utf-8"))["starts"]
    kinds = sorted({kind for start in starts for kind in start["seconds"]})
    colours = dict(zip(kinds, plt.get_cmap("tab10").colors, strict=False))
    _, axes = plt.subplots(figsize=(9, 0.7 * len(starts) + 1.6), layout="constrained")
    for row, one in enumerate(starts):
        left = 0.0
        for kind in kinds:
            width = one["seconds"].get(kind, 0.0)
            axes.barh(row, width, left=left, color=colours[kind], label=kind if not row else None)
            left += width
    labels = [
        f"start {n}: steps {one['first']} to {one['last']}" for n, one in enumerate(starts, 1)
    ]
    axes.set_yticks(range(len(starts)), labels)
    axes.set(xlabel="seconds")
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.35), ncols=4, frameon=False)
    plt.show()


def _slice(plan: Mapping[str, Any]) -> str:
    mesh = " ".join(f"{axis}={n}" for axis, n in plan["mesh"].items() if n > 1) or "one chip"
    return f"{plan['slice_name']}, {mesh}"


def _resampled(wave: Wave) -> np.ndarray:
    audio, rate = wave
    return audio if rate == OUTPUT_RATE else resample(audio, rate, OUTPUT_RATE)
