"""`mdmspeech bench`: how fast things run here, beside what the machine can do at best."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mdmspeech.cli.voice_options import RELEASE, RELEASE_HELP, add_thinker_options
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable
from mdmspeech.hardware import peak_memory

PARTS = ("talker", "thinker", "hearing", "codec", "first-audio", "sessions")
SIZES = ("compact", "d1024", "paper", "release")


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "bench",
        help="how fast this machine speaks and answers, beside what it can do at best",
        description="talker: masked diffusion at S = 1 .. 16, next-token and multi-token decoding "
        "take turns in one engine; beside them the bare matrix products, and what bandwidth and "
        "arithmetic allow. thinker, hearing, codec: reading and writing, a question's "
        "transcript, and sound. "
        "first-audio: how long a spoken question waits for its first sound, by "
        "stage, and in a session. sessions: how many can talk at once. Let nothing else run.",
    )
    parser.add_argument("part", nargs="?", default="talker", choices=PARTS, help="what to measure")
    parser.add_argument(
        "--model",
        default="compact",
        metavar=RELEASE,
        help=f"{RELEASE_HELP} (talker: of --size release)",
    )
    add_thinker_options(parser, " (talker: the Talker)")
    parser.add_argument("--data", metavar="DIR", help="the corpus with test questions")
    parser.add_argument(
        "--questions", type=int, default=50, metavar="N", help="spoken questions (default 50)"
    )
    parser.add_argument(
        "--sessions", nargs="+", type=int, default=[1, 2, 4], metavar="N", help="at a time"
    )
    parser.add_argument(
        "--size",
        nargs="+",
        default=["compact"],
        choices=SIZES,
        help="shapes, with random weights, or the Talkers of --model with theirs, which verified "
        "multi-token decoding needs (default compact)",
    )
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[1], metavar="N", help="rows at a time (default 1)"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, metavar="N", help="of which medians are taken (default 9)"
    )
    parser.add_argument(
        "--blocks", type=int, default=8, metavar="N", help="of each measurement (default 8)"
    )
    parser.add_argument(
        "--scores",
        metavar="FILE",
        help="of `mdmspeech eval`: word errors beside the speeds of the compact shape, and a plot "
        "of both (talker only)",
    )
    parser.add_argument("--out", metavar="STEM", help="write STEM.json, STEM.md and plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it."""
    numbers = {"--rounds": [args.rounds], "--blocks": [args.blocks], "--batch": args.batch}
    numbers |= {"--questions": [args.questions], "--sessions": args.sessions}
    for name, values in numbers.items():
        if min(values) < 1:
            raise UserError(f"{name} {min(values)}: give 1 or more")
    for end in (".json", ".md", ".png") if args.out else ():
        check_writable(args.out + end, "name another --out")
    from mdmspeech.evaluation.speed import report

    measured = {"talker": _talker, "first-audio": _first_audio, "sessions": _sessions}
    result = measured.get(args.part, _part)(args)
    _told("")
    page = report.PAGES[args.part](result)
    print(page)
    if args.out:
        report.write(args.out, args.part, result)
    return 0


def _told(text: str) -> None:
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _talker(args: argparse.Namespace) -> dict[str, Any]:
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.evaluation.speed import machine, report, talkers
    from mdmspeech.interop.release import load_release

    scores = None if args.scores is None else _scores(args.scores)
    release = load_release(args.model) if "release" in args.size else None
    _told("measuring the machine")
    best = machine.measure(dtype=args.dtype)
    how = {"blocks": args.blocks, "rounds": args.rounds, "dtype": args.dtype}
    rows = talkers.measure_talkers(
        (_talkers(size, args, release) for size in args.size), args.batch, best, **how, told=_told
    )
    made = provenance(sizes={"rounds": args.rounds, "blocks": args.blocks}, seeds={"weights": 0})
    result = report.rows_of(rows, best, made, args.dtype)
    return result if scores is None else report.with_errors(result, scores)


def _talkers(size: str, args: argparse.Namespace, release: Any) -> Any:
    from mdmspeech.evaluation.speed import talkers

    _told(f"making {size}")
    if size == "release":
        return talkers.release_talkers(release, args.blocks)
    return talkers.random_talkers(size, args.blocks, args.dtype)


def _scores(path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if found["speaking"]["rows"]:
            return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--scores {path}: no scores of speaking are in it ({type(error).__name__}); give the "
            "JSON file of mdmspeech eval"
        ) from error
    raise UserError(f"--scores {path}: nothing was scored in it; run mdmspeech eval first")


def _part(args: argparse.Namespace) -> dict[str, Any]:
    from importlib import resources

    import mdmspeech
    from mdmspeech.audio.wave import load_wave
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.evaluation.speed import machine, parts

    assistant = mdmspeech.load(args.model, thinker=args.thinker, dtype=args.dtype)
    if args.part == "thinker":
        jobs = parts.thinker_jobs(assistant.thinker)
    elif args.part == "hearing":
        wave = load_wave(str(resources.files("mdmspeech") / "assets" / "question.wav"))
        jobs = parts.hearing_jobs(assistant.frontend, wave)
    else:
        voice = assistant.voice(assistant.talkers[0])
        jobs = parts.codec_jobs(voice.codec, voice.block)
    best = machine.measure()
    rows = parts.measure(jobs, best, args.rounds, _told)
    made = provenance(sizes={"rounds": args.rounds}, seeds={"tokens": 0})
    result = {"made": made, "part": args.part, "machine": best.told(), "rows": rows}
    peak = peak_memory()
    return result | ({} if peak is None else {"peak_memory_gb": round(peak / 1e9, 2)})


def _first_audio(args: argparse.Namespace) -> dict[str, Any]:
    import mdmspeech
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.evaluation.speed import live

    assistant = mdmspeech.load(args.model, thinker=args.thinker, dtype=args.dtype)
    waves = live.questions(args.data, args.questions)
    ways = [("mdm", 1), ("mdm", 4), *((name, 1) for name in assistant.talkers if name != "mdm")]
    told = live.first_audio(assistant, waves, ways, _told)
    turns = {
        f"speculate_s={wait}": live.summary(live.turns(assistant, waves, _told, speculate_s=wait))
        for wait in (0.06, 0.15, None)
    }
    made = provenance(sizes={"questions": len(waves)}, seeds={"speech": 0})
    return {"made": made, "first_audio": told, "turns": turns}


def _sessions(args: argparse.Namespace) -> dict[str, Any]:
    import mdmspeech
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.evaluation.speed import live

    assistant = mdmspeech.load(args.model, thinker=args.thinker, dtype=args.dtype)
    waves = live.questions(args.data, args.questions)
    found = {}
    for count in args.sessions:
        _told(f"{count} sessions")
        found[str(count)] = live.summary(live.sustained(assistant, waves, count))
    made = provenance(sizes={"questions": len(waves)}, seeds={"speech": 0})
    return {"made": made, "sessions": found}
