"""Preparing a dataset on Apache Beam: CPU seconds of each transform for an hour of speech, and how much
faster two workers are than one.

Command: make bench-beam (some six minutes of CPU). Not an experiment with a config, and no test.

Some minutes of speech are made by the shipped voice and stored as FLAC. Each stage then runs over
all of them, alone in a process that may use one thread; CPU time of the process counts, so that
other load of the machine matters little. What is done once a worker (reading a model, compiling) is
told apart: the stage runs twice, and the second run counts.

Then Beam has texts (--spoken) said by the shipped voice and stored, with one worker and with two, in
turns (--turns), by the clock; the load of the machine before each is noted, as it decides what two
workers can be.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}
STAGES = ("synthesise", "import and clean", "align", "tokens", "states", "write")
_WHO = (
    "The old man",
    "My sister",
    "A tall woman",
    "Nobody",
    "The captain of the ship",
    "He",
    "Our train",
)
_DOES = ("saw", "wanted to buy", "has never found", "will bring", "talked about", "carried home")
_WHAT = (
    "the yellow house behind the station.",
    "seventeen apples and a loaf of bread.",
    "a letter that nobody had opened in years.",
    "two tickets for the evening concert, as he had promised.",
    "the longest bridge in the country.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--texts", type=int, default=90, help="of some three seconds each")
    parser.add_argument("--turns", type=int, default=1, help="of one worker and two")
    parser.add_argument(
        "--spoken",
        type=int,
        default=1600,
        help="texts of those turns: minutes of work, beside which starting is little",
    )
    parser.add_argument("--output", default="experiments/results/beam.json")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measure(args.stage, Path(args.folder), args.texts)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-beam-") as folder:
        found: dict = {"stages": {name: alone(name, folder, args.texts) for name in STAGES}}
        for name, told in found["stages"].items():
            print(name, told)
        found["workers"] = turns(Path(folder), args.turns, args.spoken)
    print(json.dumps(found["workers"]))
    from mdmspeech.evaluation.provenance import provenance

    sizes = {"texts of a stage": args.texts, "texts of a turn": args.spoken, "turns": args.turns}
    found["made"] = provenance(sizes=sizes, seeds={"texts": 0, "texts of the turns": 1})
    Path(args.output).write_text(json.dumps(found, indent=1) + "\n")


def alone(name: str, folder: str, texts: int) -> dict:
    """A stage in a process of its own."""
    command = [sys.executable, "-m", "experiments.bench_beam", "--stage", name, "--folder", folder]
    run = subprocess.run(
        [*command, "--texts", str(texts)],
        env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(run.stdout.splitlines()[-1])


def measure(name: str, folder: Path, texts: int) -> dict:
    """CPU seconds of a stage, per hour of speech, and once a worker."""
    from mdmspeech.cli import prepare, user_recordings
    from mdmspeech.data.beam import parts, records, sources, stages

    made = folder / "speech"
    if name == "synthesise":
        begun = time.process_time()
        seconds, spent = speak(made, texts)
        return _told(seconds, spent, time.process_time() - begun - spent)
    corpus = sources.Source(str(made)).open()

    def unit() -> records.Unit:
        found = [e for part in corpus.parts() for e in sources.entries(corpus, part)]
        return records.begin(0, "bench", sorted(found, key=lambda entry: entry.order))

    clean = stages.Clean(prepare.open_pronouncer)
    align = stages.Align(user_recordings.make_aligner)
    import functools

    tokens = stages.SpeechTokens(functools.partial(prepare.open_tokenizer, "compact"))
    states = stages.EncoderStates(prepare.open_encoder)
    stage = {"align": align, "tokens": tokens, "states": states}.get(name, clean)
    begun = time.process_time()
    ready = clean.load()
    loaded = ready if stage is clean else stage.load()
    loading = time.process_time() - begun
    spent = []
    for turn in range(2):
        begun = time.process_time()
        now = unit()
        if stage is not clean:
            now.passed("clean", clean.run(ready, now.records))
            begun = time.process_time()
        now.passed(stage.name, stage.run(loaded, now.records))
        if name == "write":
            kinds: dict = {"recordings": {}}
            begun = time.process_time()
            parts.write_unit(parts.Target(str(folder / f"w{turn}"), "w", 1, kinds), now)
        spent.append(time.process_time() - begun)
    seconds = sum(len(r.wave) / r.fields["rate"] for r in now.records if r.wave is not None)
    return _told(seconds, spent[1], loading + max(0.0, spent[0] - spent[1]))


def _told(seconds: float, spent: float, once: float) -> dict:
    return {
        "minutes": round(seconds / 60, 2),
        "cpu_seconds_an_hour": round(spent / seconds * 3600, 1),
        "cpu_seconds_once_a_worker": round(once, 1),
    }


def speak(folder: Path, texts: int) -> tuple[float, float]:
    """Writes so many recordings; (seconds of speech, CPU seconds of the voice)."""
    import numpy as np
    import soundfile

    from mdmspeech.data.synthesis.voices import load
    from mdmspeech.data.synthesis.voices.base import Job

    folder.mkdir(parents=True)
    draw, lines, seconds, spent = random.Random(0), [], 0.0, 0.0
    voice = load("hibari")
    voice.speak(Job("warm", "Warm up.", "hibari", "heart"))
    for number in range(texts):
        text = sentence(draw)
        begun = time.process_time()
        made = voice.speak(Job(str(number), text, "hibari", "heart", seed=number))
        spent += time.process_time() - begun
        seconds += len(made.audio) / made.rate
        wave = np.pad(made.audio, made.rate // 4)
        soundfile.write(folder / f"{number:04d}.flac", wave, made.rate)
        lines.append(json.dumps({"audio": f"{number:04d}.flac", "text": text}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return seconds, spent


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(words) for words in (_WHO, _DOES, _WHAT))


def turns(folder: Path, count: int, texts: int) -> dict:
    """Seconds by the clock, and CPU seconds, of the whole with one worker and two."""
    found: dict = {"1": [], "2": []}
    draw = random.Random(1)
    (folder / "texts.txt").write_text("".join(sentence(draw) + "\n" for _ in range(texts)))
    for turn in range(count):
        for workers in found:
            load = os.getloadavg()[0]
            command = [
                sys.executable, "-m", "mdmspeech", "data", "--import", str(folder / "texts.txt"),
                "--format", "texts", "--voice", "hibari", "--name", "bench", "--shards", "8",
                "--root", str(folder / f"{workers}-{turn}"), "--workers", workers,
            ]  # fmt: skip
            before, begun = os.times(), time.perf_counter()
            subprocess.run(command, check=True, env={**os.environ, **ONE_THREAD})
            after = os.times()
            cpu = sum(after[2:4]) - sum(before[2:4])
            taken = {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(cpu, 1)}
            found[workers].append({**taken, "load_before": round(load, 1)})
    return found


if __name__ == "__main__":
    main()
