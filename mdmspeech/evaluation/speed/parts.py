"""How fast the other parts of a release work: the Thinker reads and writes, the ear hears, the codec
makes sound.

Jobs take turns; beside each stands the least it takes on this machine, from the bytes of weights it
reads and the arithmetic it does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mdmspeech.evaluation.speed.machine import Machine, Times, interleaved
from mdmspeech.inference.speech_frontend import SpeechFrontend
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.speech_format import INPUT_RATE

READ = (16, 32, 128)  # inputs of a question
# the answer to it repeats it: what drafts are for
SENTENCE = "The old lighthouse keeper counted nine ships on the grey morning sea."
CONVERSATION = 1024  # tokens that a session has room for
SECONDS = 10  # of sound


@dataclasses.dataclass(frozen=True)
class Job:
    """run: does it; returns how many units it made (tokens, seconds of sound). read_bytes, flops: of
    one unit, at least.
    """

    what: str
    unit: str
    run: Callable[[], float]
    read_bytes: float
    flops: float


def measure(
    jobs: list[Job], machine: Machine, rounds: int, told: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """JSON-ready: one entry a job, milliseconds a unit."""
    units: dict[str, float] = {}

    def timed(job: Job) -> Callable[[], None]:
        def run() -> None:
            units[job.what] = job.run()

        return run

    times = interleaved({job.what: timed(job) for job in jobs}, rounds, told)
    rows = []
    for job in jobs:
        each = Times(tuple(second / units[job.what] for second in times[job.what].seconds))
        bound = machine.bound(job.read_bytes, job.flops)
        rows.append(
            {
                "what": job.what,
                "unit": job.unit,
                "ms": round(1e3 * each.median, 3),
                "quartiles_ms": [round(1e3 * value, 3) for value in each.spread],
                "per_second": round(1 / each.median, 2),
                "bound_ms": round(1e3 * bound, 3),
            }
        )
    return rows


def thinker_jobs(runner: ThinkerRunner) -> list[Job]:
    """Reading questions of some lengths; writing an answer without and with drafts, and where there is
    room for a conversation.
    """
    shapes = jax.tree.map(lambda leaf: (leaf.size, leaf.nbytes), runner.params)
    tables = {name: shapes[name] for name in shapes if name != "layers"}
    output = max(jax.tree.leaves(tables, is_leaf=lambda x: isinstance(x, tuple)))
    layers = jax.tree.leaves(shapes["layers"], is_leaf=lambda x: isinstance(x, tuple))
    trunk = tuple(map(sum, zip(*layers, strict=True)))
    read_bytes = trunk[1] + output[1]

    def reading(count: int) -> Callable[[], float]:
        vectors = runner.embedded(list(range(100, 100 + count)))

        def run() -> float:
            runner.read([vectors])
            return 1

        return run

    question = f"Repeat after me: {SENTENCE}"
    asked, ids = runner.question(question), runner.tokenizer.encode(question)
    tokens = len(list(runner.answer(runner.read([asked]))))

    def writing(context: list[int]) -> Callable[[], float]:
        def run() -> float:
            list(runner.answer(runner.read([asked]), context=context))
            return 1

        return run

    def conversing() -> float:
        list(runner.answer(runner.extend(runner.begin(CONVERSATION), asked)))
        return 1

    work = {count: 2.0 * (trunk[0] * count + output[0]) for count in (*READ, 1)}
    reads = [
        Job(f"read a question of {count}", "question", reading(count), read_bytes, work[count])
        for count in READ
    ]
    # one forward reads the question
    whole = (tokens + 1) * read_bytes, work[READ[1]] + tokens * work[1]
    return [
        *reads,
        Job(f"answer in {tokens} tokens, without drafts", "answer", writing([]), *whole),
        Job(f"answer in {tokens} tokens, with drafts", "answer", writing(ids), *whole),
        Job(f"without drafts, with room for {CONVERSATION:,} tokens", "answer", conversing, *whole),
    ]


def hearing_jobs(frontend: SpeechFrontend, wave: np.ndarray) -> list[Job]:
    """A question through the encoder; what was said, written piece by piece; and where the adaptor
    takes drafts, checked, all of it and but for the last words.
    """
    wave = frontend.load(wave)
    draft = frontend.encode(wave).written
    length = frontend.ready_length(len(wave)) or len(wave)
    speech = frontend.states([wave], length, 1)

    def encoding() -> float:
        frontend.states([wave], length, 1)
        return 1

    def reading(draft: np.ndarray | None) -> Callable[[], float]:
        def run() -> float:
            frontend.read(speech, [draft])
            return 1

        return run

    seconds = f"{length / INPUT_RATE:.0f} s"
    jobs = [
        Job(f"encode {seconds}", "question", encoding, 0.0, 0.0),
        Job("transcript", "question", reading(None), 0.0, 0.0),
    ]
    if draft is None:
        return jobs
    pieces = int(np.argmax(draft == draft[-1])) or len(draft)
    jobs[1] = dataclasses.replace(jobs[1], what=f"transcript of {pieces} pieces")
    parts = {"all": pieces, "all but three": max(pieces - 3, 1)}
    return [
        *jobs,
        *(
            Job(f"the same, {name} of them drafted", "question", reading(draft[:count]), 0.0, 0.0)
            for name, count in parts.items()
        ),
    ]


def codec_jobs(codec: Any, block: int) -> list[Job]:
    """Ten seconds at once, and block by block as they are streamed."""
    count = SECONDS * codec.sample_rate // codec.token_samples // block * block
    tokens = np.random.default_rng(0).integers(0, codec.vocabulary, count).astype(np.int32)
    seconds = count * codec.token_samples / codec.sample_rate

    def whole() -> float:
        codec.decode([tokens])
        return seconds

    def streamed() -> float:
        stream = codec.stream()
        for at in range(0, count, block):
            stream.push(tokens[at : at + block])
        stream.finish()
        return seconds

    return [
        Job(f"{SECONDS} s at once", "second of sound", whole, 0.0, 0.0),
        Job(f"{SECONDS} s in blocks of {block} tokens", "second of sound", streamed, 0.0, 0.0),
    ]
