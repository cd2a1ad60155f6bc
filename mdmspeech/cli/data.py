"""`mdmspeech data`: make the corpus, or take your own recordings into it; and what frozen parts
compute from it once.
"""

import argparse

from mdmspeech.cli import inspect_corpus, prepare
from mdmspeech.errors import UserError


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "data",
        help="make the training corpus",
        description="Writes texts, speaks them with the installed voices, and stores everything "
        "under one folder. Run it again and it goes on where it stopped. With --tokens or "
        "--states it computes from a finished corpus what training reads. With --manifest it "
        "takes your own recordings instead: it checks them, finds out when each sound is spoken, "
        "and makes their speech tokens, ready for training.",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)",
    )
    parser.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help="make a small corpus of about so many hours (default: all, about 56)",
    )
    parser.add_argument(
        "--parts", metavar="A,B", help="only these parts, for example open,answers (default: all)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="processes at once (default: %(default)s)",
    )
    parser.add_argument("--extra", metavar="FILE", help="JSONL with more question and answer pairs")
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help='instead: your own recordings, JSONL with {"audio": "a.wav", "text": "..."} a line',
    )
    parser.add_argument(
        "--name",
        default="own",
        metavar="NAME",
        help="the part that --manifest becomes (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="instead: the speech tokens of the answer voice, by the codec of --codec",
    )
    parser.add_argument(
        "--codec",
        metavar="WORKDIR|RELEASE",
        help="workdir of a codec run, or a release that has one (default: compact)",
    )
    parser.add_argument(
        "--states",
        action="store_true",
        help="instead: the speech encoder's states of the questions, with --parts "
        "questions,rare,sentences of the sentences with rare words and the open ones, too; with "
        "--parts open,answers those of the answer voice, for the codec's semantic head",
    )
    parser.add_argument(
        "--matmul-precision",
        choices=("default", "bfloat16"),
        default="default",
        help="with --states: bfloat16 rounds the factors of products, which is faster on a CPU with "
        "matrix units (AMX); the states differ by one or two percent (default: %(default)s)",
    )
    parser.add_argument(
        "--thinker",
        metavar="DIR",
        help="with --states: those of this Thinker, of the answers of --parts (default: answers), for "
        "Talkers with fixed anchors and data.states=True",
    )
    parser.add_argument(
        "--system-text",
        metavar="TEXT",
        help="with --thinker: what stands in the system turn, as prompt.system of the experiment",
    )
    parser.add_argument(
        "--phones",
        type=int,
        metavar="N",
        help="instead: what the aligner learns from, N sentences in invented voices",
    )
    parser.set_defaults(run=run)
    prepare.add_options(parser)
    inspect_corpus.add(parser.add_subparsers(dest="job", metavar="inspect"))


def check(args: argparse.Namespace) -> None:
    """A UserError for options that no run can do anything with."""
    if args.hours is not None and not 0 < args.hours < float("inf"):
        raise UserError(f"--hours {args.hours}: give a positive number of hours")
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give 1 or more processes")
    if args.phones is not None and args.phones < 1:
        raise UserError(f"--phones {args.phones}: give 1 or more sentences")
    if args.manifest is not None and not args.manifest.strip():
        raise UserError("--manifest is empty: name the file that lists your recordings")
    if args.thinker is not None and not args.states:
        raise UserError("--thinker goes with --states: mdmspeech data --states --thinker DIR")
    if args.matmul_precision != "default" and not args.states:
        raise UserError(
            f"--matmul-precision goes with --states: mdmspeech data --states --matmul-precision "
            f"{args.matmul_precision}"
        )
    if args.system_text is not None and args.thinker is None:
        raise UserError("--system-text goes with --thinker: name the Thinker whose states are made")
    names = parts(args)
    if args.states or args.tokens:
        from mdmspeech.evaluation.testset import HUMAN, QUESTIONS, RARE

        judging = {*QUESTIONS.values(), *RARE.values(), HUMAN}
        if held_out := [name for name in names if name in judging]:
            raise UserError(
                f"--parts {','.join(held_out)}: recordings to choose or to test by, of which nothing "
                "is trained; leave them out"
            )


def parts(args: argparse.Namespace, every: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of --parts, each once; `every` if it is not given. UserError if it names nothing."""
    if args.parts is None:
        return every
    names = tuple(dict.fromkeys(name.strip() for name in args.parts.split(",") if name.strip()))
    if not names:
        raise UserError(
            f"--parts {args.parts!r} names none: give names with commas between "
            "them, for example open,answers"
        )
    return names


def run(args: argparse.Namespace) -> None:
    """Does it."""
    check(args)
    if args.source is not None:
        prepare.prepare_corpus(args)
        return
    from mdmspeech import remote
    from mdmspeech.data.storage.record_store import chosen_root, writable_root

    in_bucket = remote.is_remote(chosen_root(args.root))
    if not ((args.tokens or args.states) and in_bucket):  # datasets may be there
        writable_root(args.root)
    if args.manifest is not None:
        from mdmspeech.cli.user_recordings import take_in

        take_in(args.manifest, args.name, args.root, args.codec)
        return
    if args.phones is not None:
        from mdmspeech.cli.user_recordings import write_phones

        print(f"{write_phones(args.root, args.phones)} states")
        return
    if not args.tokens and not args.states:
        from mdmspeech.data.synthesis.build import DATASETS, PART_NAMES, build

        build(args.root, args.hours, parts(args, (*PART_NAMES, DATASETS)), args.workers, args.extra)
        return
    if args.tokens:
        from mdmspeech.cli.release import open_codec
        from mdmspeech.preprocessing import precompute

        names = parts(args, ("open", "answers"))
        for name, count in precompute.speech_tokens(
            args.root, *open_codec(args.codec or "compact"), names
        ).items():
            print(f"{name}: {count} tokens")
    if args.states:
        from mdmspeech.nn.matmul_precision import matmul_precision

        with matmul_precision(args.matmul_precision):
            _write_states(args)


def _write_states(args: argparse.Namespace) -> None:
    """--states: of a Thinker, or of the speech encoder."""
    from mdmspeech.preprocessing import precompute

    if args.thinker is not None:
        from mdmspeech.cli import thinker_states

        names = parts(args, ("answers",))
        counts = thinker_states.write(args.root, args.thinker, names, args.system_text)
    else:
        from mdmspeech.interop.sources import load_speech_encoder

        encoder, names = load_speech_encoder(), parts(args, ("questions",))
        heard = ("rare", "questions", "sentences")
        spoken = [name for name in names if name not in heard]
        of = (args.root, encoder.config, encoder.params)
        counts = precompute.speech_states(*of, spoken, args.hours) if spoken else {}
        if set(names) - set(spoken):
            asked = ("kokoro", *(name for name in heard if name in names))
            counts |= precompute.question_states(*of, args.hours, asked)
    for name, count in counts.items():
        print(f"{name}: {count} states")
