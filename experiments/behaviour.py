"""Has a change of the code changed what it does? Records what the shipped model says and answers
and what each stage's first steps lose, and compares two records.

Command:  python -m experiments.behaviour record before.json --runs DIR
          (some 15 minutes; on the code before)
          python -m experiments.behaviour record after.json --resume DIR
          (on the code after: runs of the code before go on with it)
          python -m experiments.behaviour compare before.json after.json
          (exit status 1, and what differs, if anything does)

For moving and renaming. Both records must be of one machine: another processor sums in another
order. Not an experiment with a config, and no test.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = (1, 4, 16)
QUESTIONS = (
    "What is the capital of France?", "Who wrote Romeo and Juliet?", "What is two plus three?",
    "How do you spell house?", "What is the opposite of hot?",
    "Repeat after me: the cat sleeps.", "How many days are in a week?",
    "What is the symbol of gold?", "Which country is beside Spain?", "What time is it?",
    "Name a colour.", "What rhymes with cat?", "How are you today?", "Tell me about the moon.",
    "What is water made of?",
    "Count from three to six.", "Is the sun hot?", "What month comes after May?",
    "Where do people speak Italian?", "Thank you and goodbye.",
)  # fmt: skip
EXPERIMENTS = (
    "compact_codec", "compact_codec_wave", "compact_hearing", "hearing_ctc", "compact_talker",
    "compact_talker_isd", "compact_talker_ntp", "thinker_compact",
    "thinker_06b", "talker_06b", "talker_isd_06b", "talker_llada_05b", "aligner",
)  # fmt: skip
TRAINED, RESUMED = 20, 24  # steps


def digest(array: Any) -> str:
    """Of an array's type, shape and bytes."""
    import numpy as np

    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def speech_and_answers() -> dict[str, Any]:
    """Digests of tokens and samples of texts spoken at each number of steps, and of answers to
    questions that the same voice asks.
    """
    import mdmspeech
    from mdmspeech.data.texts.open_sentences import HARVARD

    model = mdmspeech.load("compact")
    found: dict[str, Any] = {}
    for steps in STEPS:
        for text in (*HARVARD, *QUESTIONS):  # 50
            said = model.say(text, steps=steps)
            found[f"say {steps} {text}"] = [
                digest(said.tokens),
                digest(said.audio),
                [(w.text, w.start, w.end) for w in said.words],
            ]
    for text in QUESTIONS:
        asked = model.say(text)
        reply = model.chat((asked.audio, asked.sample_rate), steps=4)
        found[f"ask {text}"] = [reply.heard, reply.text, digest(reply.tokens), digest(reply.audio)]
    return json.loads(json.dumps(found))


def train(name: str, workdir: Path, steps: int) -> list[dict[str, Any]]:
    """Metrics of every step of an experiment in small, without what tells of time."""
    settings = [f"train.steps={steps}", "train.log_every=1", "optim.schedule=constant"]
    command = [
        sys.executable,
        "-m",
        "mdmspeech",
        "train",
        "--config",
        f"experiments/{name}.py:runlocal",
        "--workdir",
        str(workdir),
    ]
    done = subprocess.run(
        [*command, *(word for s in settings for word in ("--set", s))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return [{"failed": done.stderr.strip().splitlines()[-1]}]
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    kept = ("loss", "grad_norm", "lr", "step", "accuracy", "held_out")
    return [
        {
            key: value
            for key, value in row.items()
            if any(word in key for word in kept) and "time" not in key
        }
        for row in rows
    ]


def record(runs: Path | None, resume: Path | None) -> dict[str, Any]:
    """Everything. runs: where runs are kept. resume: runs of another record, of which copies go
    on.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in EXPERIMENTS:
            place = (runs or Path(folder)) / name
            found[f"train {name}"] = train(name, place, TRAINED)
            copy = Path(folder) / "resumed" / name
            shutil.copytree((resume / name) if resume else place, copy)
            found[f"resume {name}"] = train(name, copy, RESUMED)
            print(name, found[f"resume {name}"][-1], flush=True)
    return found | speech_and_answers()


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for everything that differs."""
    missing = object()
    return [
        f"{key}\n  before: {before.get(key, 'missing')}\n  after:  {after.get(key, 'missing')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, missing) != after.get(key, missing)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("record", "compare"))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the runs there")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="let the runs that are kept there go on, and compare that too",
    )
    args = parser.parse_args(arguments)
    if args.verb == "record":
        args.files[0].write_text(json.dumps(record(args.runs, args.resume), indent=1))
        return 0
    before, after = (json.loads(file.read_text()) for file in args.files)
    told = compare(before, after)
    print("\n".join(told) or f"the same: {len(before)} items")
    return bool(told)


if __name__ == "__main__":
    sys.exit(main())
