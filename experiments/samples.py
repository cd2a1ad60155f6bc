"""Ten answers of the shipped model, each spoken in every way it can: to be heard side by side.

Command:  python -m experiments.samples --model build/compact
          (a release that has the baselines beside the shipped parts, docs/training.md; without
          --model the shipped one, which has none; --count N: the first N only; -o DIR: another
          folder than the repository's)
Needs:    the answer voice, pip install hibari-tts (a dependency of this project)
Seen:     experiments/results/samples.md; the recordings are in docs/site/samples

The same answer by the voice that the Talker and codec learnt from (original), by that recording
through the codec (codec), by masked diffusion in 1, 4 and 16 steps a block, and by the baselines
that the model has. Everything is greedy and made by one run, nothing is chosen by ear.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech.evaluation.provenance import provenance
from mdmspeech.files import check_writable, write_text

ROOT = Path(__file__).parents[1]
SOUNDS, PAGE = Path("docs/site/samples"), Path("experiments/results/samples.md")
QUESTIONS = (
    "What is the capital of Denmark?", "Who wrote Harry Potter?", "What do we call frozen rain?",
    "How many hours are in a day?", "What is the largest planet?", "What language do people speak in Austria?",
    "Where do kangaroos live?", "Tell me something about the moon.",
    "Repeat after me: the old lighthouse blinks twice before dawn.", "How can I learn a language?",
)  # fmt: skip
STEPS = (1, 4, 16)
_NAMES = {"ntp": "next token", "mtp": "multi-token"}


def spoken(model: Any, answer: str) -> Iterator[tuple[str, np.ndarray]]:
    """(way, samples at the model's rate), the original first."""
    from mdmspeech.data.synthesis import voices
    from mdmspeech.data.synthesis.voices.base import Job

    original = voices.load("hibari").speak(Job("sample", answer, "hibari", "heart")).audio
    yield "original", original
    codec = model.voice(model.talkers[0]).codec
    yield "codec", codec.decode(codec.encode([original]))[0]
    for steps in STEPS:
        yield f"S={steps}", model.say(answer, steps=steps).audio
    for talker in model.talkers:
        if talker in _NAMES:
            yield _NAMES[talker], model.say(answer, talker=talker).audio


def page(rows: list[dict[str, Any]], made: dict[str, Any], to_sounds: str) -> str:
    """Markdown: a player each in the site, a link each where players are not shown."""
    ways = list(rows[0]["files"])
    lines = [f"| question | answer | {' | '.join(ways)} |", "|---" * (2 + len(ways)) + "|"]
    for row in rows:
        cells = [
            f'<audio controls preload="none" src="../../samples/{file}"></audio> '
            f"[listen]({to_sounds}/{file})"
            for file in row["files"].values()
        ]
        lines.append(f"| {row['question']} | {row['answer']} | {' | '.join(cells)} |")
    return "\n".join([
        "# Samples", "",
        f"Made by `{made['command']}`. Do not edit.", "",
        "Ten typed questions, answered by the shipped model; the same answer in every way. *original*: "
        "the answer voice itself, which the Talker and the codec learnt from; *codec*: that recording "
        "as speech tokens and back; *S*: masked diffusion in so many steps a block; the others: the "
        "baselines, which are not shipped.", "",
        *lines, "",
        f"Made {made['date']} at commit {made['commit'][:10]}; nothing was chosen by ear.", "",
    ])  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=ROOT, metavar="DIR")
    parser.add_argument("--count", type=int, default=len(QUESTIONS), metavar="N")
    parser.add_argument("--model", default="compact", metavar="RELEASE")
    args = parser.parse_args()
    check_writable(str(args.out / SOUNDS), "name another folder with -o", folder=True)

    import soundfile

    import mdmspeech

    model = mdmspeech.load(args.model)
    questions = QUESTIONS[: args.count]
    made = provenance(sizes={"questions": len(questions)}, seeds={"speech": 0})
    (args.out / SOUNDS).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, question in enumerate(questions, 1):
        answer = model.answer(question).text
        files = {}
        for way, samples in spoken(model, answer):
            files[way] = f"{number:02}-{way.replace(' ', '-').replace('=', '')}.mp3"
            target = args.out / SOUNDS / files[way]
            soundfile.write(target, np.clip(samples, -1, 1), model.sample_rate, format="MP3")
        rows.append({"question": question, "answer": answer, "files": files})
        print(f"{number}/{len(questions)}  {question} {answer}", flush=True)
    result = args.out / PAGE
    result.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        result.with_suffix(".json"), json.dumps({"rows": rows, "made": made}, indent=1) + "\n"
    )
    write_text(result, page(rows, made, f"../../{SOUNDS.as_posix()}"))
    print(f"{result} and {args.out / SOUNDS}")


if __name__ == "__main__":
    main()
