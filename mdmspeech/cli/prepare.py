"""What `mdmspeech data --import` does: a corpus of any format, or texts alone, as a dataset, made by
Apache Beam on this machine or on a cluster.
"""

import argparse
import functools
import itertools
import shlex
from typing import Any

from mdmspeech.errors import UserError

UNITS = 16
_LOOKED_AT = 1000  # records of a corpus, until one tells its split
LOCAL = "DirectRunner"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares its options among those of `mdmspeech data`."""
    group = parser.add_argument_group(
        "corpora of any format",
        "With --import PATH it prepares a corpus instead, on Apache Beam: import, clean, "
        "pronounce, and as asked speak, align, --tokens, --states. What cannot be used goes to "
        "dead_letters.jsonl. Run it again after a kill and finished shards are kept. --root, "
        "--name, --workers and --codec are as above; --root may be a bucket.",
    )
    group.add_argument(
        "--import",
        dest="source",
        metavar="PATH",
        help="folder or file of a corpus; what is in it: mdmspeech data inspect PATH",
    )
    group.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help="of the corpus, as for inspect, or texts: .txt or .jsonl to be spoken "
        "(default: find out)",
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the format, as for inspect; speaker=NAME takes one speaker alone",
    )
    group.add_argument(
        "--shards",
        type=int,
        default=UNITS,
        metavar="N",
        help="files of each split, each made by one worker: one for half an hour of speech or so "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--splits",
        choices=("auto", "own", "text"),
        default="auto",
        help="own: the corpus's; text: of its training records, a fortieth of the texts each become "
        "val and test; auto: its own if it has val or test (default: %(default)s)",
    )
    group.add_argument(
        "--align", action="store_true", help="find out when each sound is spoken, as for --manifest"
    )
    group.add_argument(
        "--voice",
        metavar="VOICE",
        help="speaks texts without a recording: hibari, kokoro:af_nicole, ...; "
        "'command:PROGRAM {text_file} {out}'; or the URL of an endpoint",
    )
    group.add_argument(
        "--runner",
        default=LOCAL,
        metavar="NAME",
        help="of Beam: DataflowRunner, FlinkRunner, SparkRunner, ... (default: %(default)s, here)",
    )
    group.add_argument(
        "--beam-args",
        default="",
        metavar="'ARGS'",
        help="further options of Beam and its runner, in one word: --beam-args='--project=P ...'",
    )


def prepare_corpus(args: argparse.Namespace) -> None:
    """Does it, and prints what came of it."""
    from mdmspeech.data.beam.pipeline import prepare  # says if Beam is missing

    plan, arguments = make_plan(args)
    report(args.name, plan.target, prepare(plan, args.runner, args.workers, arguments))


def make_plan(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """(the `pipeline.Plan`, arguments of Beam). Everything that is wrong is told here, before anything
    is written.
    """
    from mdmspeech.cli.inspect_corpus import named_values
    from mdmspeech.cli.user_recordings import check_name

    check_name(args.name)
    if args.shards < 1:
        raise UserError(f"--shards {args.shards}: give 1 or more files")
    if not args.source.strip():
        raise UserError("--import is empty: name the folder of a corpus")
    arguments = _words(args.beam_args)
    from mdmspeech.data.beam.sources import Source
    from mdmspeech.data.beam.stages import Plan, described

    source = Source(args.source, args.format, named_values(args.option))
    carve = not has_held_out(source) if args.splits == "auto" else args.splits == "text"
    _target(args)  # a place that cannot be written is told before models are loaded
    stages, kinds, width = _stages(args, carve)
    target = _target(args, kinds, described(stages), width)
    return Plan(source, target, tuple(stages)), arguments


def has_held_out(source: Any) -> bool:
    """Whether a corpus has validation or test records: its parts say so, or one of its first records."""
    from mdmspeech.data.importers import Item
    from mdmspeech.data.importers.corpus import split_of

    corpus = source.open()
    parts = corpus.parts()
    if any((part.split or split_of(part.name)) in ("val", "test") for part in parts):
        return True
    unsaid = [part for part in parts if not part.split]
    first = itertools.islice(corpus.items(parts=unsaid), _LOOKED_AT)
    return any(isinstance(found, Item) and found.split != "train" for found in first)


def report(name: str, target: Any, found: dict[str, Any]) -> None:
    """Prints what the dataset is."""
    came, used = found["stages"]["import"]["in"], found["records"]
    speakers = max(split["speakers"] for split in found["splits"].values())
    splits = ", ".join(f"{n} {split['records']:,}" for n, split in found["splits"].items())
    print(
        f"{name}: {used:,} of {came:,} records, {found['hours']:.2f} h, "
        f"{speakers} speakers; {splits}"
    )
    for reason, count in found["rejected"].items():
        print(f"  {count:,} left out: {reason}")
    if found["rejected"]:
        print(f"  each of them, with its place: {target.folder('recordings')}/dead_letters.jsonl")


def open_tokenizer(source: str) -> Any:
    """The codec, on a worker."""
    from mdmspeech.cli.release import open_codec

    return open_codec(source)[0]


def open_encoder() -> Any:
    """The function of the speech encoder, on a worker."""
    from mdmspeech.interop.sources import load_speech_encoder
    from mdmspeech.preprocessing.alignment import make_encoder

    encoder = load_speech_encoder()
    return make_encoder(encoder.config, encoder.params)


def open_pronouncer() -> Any:
    """The function of normalised text, on a worker."""
    from mdmspeech.text.pronounce import pronouncer

    return pronouncer()


def _stages(
    args: argparse.Namespace, carve: bool
) -> tuple[list[Any], dict[str, dict[str, Any]], int | None]:
    """The stages; the kinds of datasets, with what they say of themselves; the width of states."""
    from mdmspeech.data.beam import stages, voices

    asked = args.voice is not None
    found: list[Any] = [stages.Clean(open_pronouncer, carve=carve, needs_sound=not asked)]
    kinds: dict[str, dict[str, Any]] = {"recordings": {}}
    width = None
    if asked:
        voices.open_voice(args.voice)
        factory = functools.partial(voices.open_voice, args.voice)
        known, licence = voices.known_as(args.voice), voices.licence(args.voice)
        found.append(stages.Synthesise(factory, known, args.voice, licence))
    if args.align:
        from mdmspeech.cli.user_recordings import aligner_version, make_aligner

        found.append(stages.Align(make_aligner, aligner_version()))
    if args.tokens:
        from mdmspeech.cli.release import open_codec
        from mdmspeech.cli.user_recordings import BASE

        codec = args.codec or BASE
        known = open_codec(codec)[1]
        found.append(stages.SpeechTokens(functools.partial(open_tokenizer, codec), known))
        kinds["tokens"] = {"codec": known}
    if args.states:
        from mdmspeech.data.datasets.make import fingerprint_of
        from mdmspeech.interop.sources import load_speech_encoder

        encoder = load_speech_encoder()
        known, width = fingerprint_of(encoder.params), encoder.config.dim
        found.append(stages.EncoderStates(open_encoder, known))
        kinds["states"] = {"encoder": known}
    return found, kinds, width


def _target(
    args: argparse.Namespace,
    kinds: dict[str, dict[str, Any]] | None = None,
    settings: str = "",
    width: int | None = None,
) -> Any:
    from mdmspeech import remote
    from mdmspeech.data.beam.parts import Target
    from mdmspeech.data.storage.record_store import writable_root

    root = args.root or ""
    if not remote.is_remote(root):
        root = str(writable_root(args.root).absolute())
        if args.runner != LOCAL:
            raise UserError(
                f"--runner {args.runner}: its workers cannot write to {root}; give --root a bucket, "
                "gs://BUCKET/FOLDER"
            )
    return Target(root, args.name, args.shards, kinds or {}, settings, width)


def _words(beam_args: str) -> list[str]:
    try:
        return shlex.split(beam_args)
    except ValueError as error:
        raise UserError(f"--beam-args {beam_args}: {error}; quote it as for a shell") from error
