"""`mdmspeech assemble`: published checkpoints and our own parts put together into one system
folder, which `chat`, `train`, `eval` and `plan` take.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError

RANDOM = "random"


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "assemble",
        help="put published checkpoints and trained parts together into one system folder",
        description=(
            "Everything is checked before anything is written. A system with random "
            "parts is one to train, not yet one to talk to."
        ),
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="the system folder; must not exist yet"
    )
    parser.add_argument(
        "--encoder",
        default="whisper-base",
        metavar="WHAT",
        help="a Whisper folder, or a name (default: %(default)s)",
    )
    parser.add_argument(
        "--thinker",
        default="smollm2-135m-instruct",
        metavar="WHAT",
        help="a Llama, Qwen2 or Qwen3 folder, a .gguf file, or a name (default: %(default)s)",
    )
    parser.add_argument(
        "--codec",
        default="compact",
        metavar="WHAT",
        help="a CosyVoice2 folder, a release or a training run (default: %(default)s)",
    )
    parser.add_argument(
        "--voice",
        metavar="FILE",
        help="the voice of a CosyVoice2 codec, written by `mdmspeech voice`",
    )
    parser.add_argument(
        "--talker",
        default=RANDOM,
        metavar="WHAT",
        help="random, a training run, or a release (default: %(default)s)",
    )
    parser.add_argument(
        "--adaptor",
        default=RANDOM,
        metavar="WHAT",
        help=(
            "random, a release, or a training run; a stage-1 run also brings its "
            "update of the Thinker, which is merged (default: %(default)s)"
        ),
    )
    parser.add_argument(
        "--talker-sizes",
        default="",
        metavar="K=V,...",
        help="of a random Talker: dim=1024,num_layers=6 (default: as wide as the Thinker, 4 layers)",
    )
    parser.add_argument("--name", metavar="NAME", help="name of the system (default: the folder's)")
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help=(
            "system message of every conversation (default: that of the trained "
            "parts, else the shipped one)"
        ),
    )
    parser.add_argument(
        "--examples",
        choices=("none", "shipped"),
        help=(
            "example turns behind it: none, or those of the compact model, which "
            "help a small Thinker (default: those of the trained parts, else none)"
        ),
    )
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        choices=("bfloat16", "float16", "float32"),
        help="of the stored Thinker and encoder (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random parts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    from tqdm import tqdm

    from mdmspeech.cli.release import silence_codes
    from mdmspeech.cli.voice_options import untrained_words
    from mdmspeech.interop import assembly, sources
    from mdmspeech.interop.export import How, refuse_existing
    from mdmspeech.interop.release import Release
    from mdmspeech.text import prompts

    refuse_existing(args.output)
    thinker, encoder = sources.open_thinker(args.thinker), sources.open_speech_encoder(args.encoder)
    tokenizer = thinker.tokenizer()  # a folder without one is an error before anything is written
    dims = thinker.config.dim, encoder.config.dim
    sizes = assembly.talker_sizes(dims[0], _sizes(args.talker_sizes))
    parts, merged, talker = _codec(args.codec, args.voice), None, _talker_name(args.talker)
    untrained = {talker: args.talker == RANDOM, "adaptor": args.adaptor == RANDOM}
    if untrained[talker]:
        parts[talker] = assembly.random_talker(sizes, args.seed)
    else:
        parts[talker], untrained[talker] = _part(args.talker, talker)
    if untrained["adaptor"]:
        parts["adaptor"] = assembly.random_adaptor(dims[1], dims[0], args.seed)
    else:
        parts["adaptor"], untrained["adaptor"] = _part(args.adaptor, "adaptor")
        merged = _merged(args.adaptor, args.thinker, args.dtype)
    assembly.check_parts(parts, *dims)
    prompt = _prompt(args, parts)
    # a chat template that takes no such conversation likewise
    prompts.around_question(tokenizer, prompt)
    release = Release(
        args.name or Path(args.output).absolute().name,
        parts,
        thinker=args.thinker,
        encoder=args.encoder,
        system=prompt.system,
        examples=prompt.examples,
        silence=silence_codes(parts["codec"]),
        untrained=tuple(name for name, is_so in untrained.items() if is_so),
    )
    copied = (
        merged or (None if args.thinker == sources.SMOLLM2 else thinker),
        None if args.encoder == sources.WHISPER_BASE else encoder,
    )
    with tqdm(desc="writing", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        size = assembly.assemble(
            args.output, release, _card(args, parts), *copied, How(args.dtype, progress=bar.update)
        )
    print(f"{args.output}: thinker, encoder, {', '.join(parts)}, {size / 1e6:,.1f} MB")
    if release.untrained:
        print(untrained_words(release.untrained, args.output))


def _codec(source: str, voice: str | None) -> dict[str, Any]:
    """The codec, and the voice it speaks in if its family has voices."""
    from mdmspeech.cli.release import codec_parts, is_run
    from mdmspeech.interop.cosyvoice2 import find_file, load_cosyvoice2
    from mdmspeech.interop.release import Part, Release
    from mdmspeech.interop.voice_file import with_voice

    if not is_run(source) and find_file(source, "flow") is not None:
        parts = {"codec": Part("cosyvoice2_codec", *load_cosyvoice2(source))}
    else:
        _check_there(
            source,
            f"no codec at {source}: give a CosyVoice2 folder (with flow.pt, "
            "hift.pt, speech_tokenizer_v2.onnx), a release or a run",
        )
        parts = codec_parts(source)
    return with_voice(Release(source, parts), voice).parts if voice else parts


def _prompt(args: argparse.Namespace, parts: Mapping[str, Any]) -> Any:
    """The prompt asked for, or that of the trained parts, or the default. UserError where they
    disagree.
    """
    from mdmspeech.interop.release import agreed_prompt
    from mdmspeech.text import prompts

    trained = {
        f"the {name} of {getattr(args, name, args.talker)}": part.prompt
        for name, part in parts.items()
        if part.prompt is not None
    }
    found = agreed_prompt(trained) or prompts.PLAIN
    examples = {"none": (), "shipped": prompts.EXAMPLES, None: found.examples}[args.examples]
    asked = prompts.Prompt(found.system if args.system is None else args.system, examples)
    cure = (
        "leave --system and --examples out, which takes the part's, or train it "
        "again on a system with yours (mdmspeech train --system DIR)"
    )
    agreed_prompt(trained, asked, "the system you ask for", cure)
    return asked


def _talker_name(source: str) -> str:
    """Of the Talker that is taken from there: one that fills masks, or if a release has none, its
    next-token one (CosyVoice2's language model).
    """
    from mdmspeech.cli.release import is_run
    from mdmspeech.interop.release import read_about

    if source == RANDOM or is_run(source):
        return "talker"
    _check_there(source, _none(source, "talker"))
    parts = read_about(source).parts
    return "talker_ntp" if "talker_ntp" in parts and "talker" not in parts else "talker"


def _part(source: str, name: str) -> tuple[Any, bool]:
    """A part of a training run or of a release, and whether it is still untrained there."""
    from mdmspeech.cli.release import is_run, part_of_run
    from mdmspeech.interop.release import load_part, read_about

    _check_there(source, _none(source, name))
    if is_run(source):
        return part_of_run(source, name), False
    return load_part(source, name), name in read_about(source).untrained


def _none(source: str, name: str) -> str:
    return f"no {name} at {source}: give 'random', a training run or a release"


def _check_there(source: str, otherwise: str) -> None:
    """A UserError with these words if a source is no folder, no shipped release and none on the Hub."""
    from mdmspeech.interop.hub import parse
    from mdmspeech.interop.release import read_about

    if Path(source).expanduser().is_dir() or source.isidentifier():
        return
    if not parse(source):
        raise UserError(otherwise)
    try:
        read_about(source)
    except UserError as error:
        raise UserError(f"{otherwise} ({error})") from error


def _merged(source: str, thinker: str, dtype: str) -> Any:
    """The Thinker with the low-rank update that a run brings, or None."""
    from mdmspeech.cli.convert import trained_thinker
    from mdmspeech.cli.release import is_run, run_config
    from mdmspeech.training.stages.build import known_stage

    if not is_run(source):
        return None
    config = run_config(Path(source).expanduser())
    stage = known_stage(config.get("stage"))
    if stage is None or not stage.updates_thinker(config):
        return None
    return trained_thinker(source, thinker).merged(dtype)


def _sizes(text: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if wrong := [name for name, _, value in pairs if not value.isdecimal() or int(value) < 1]:
        raise UserError(
            f"--talker-sizes {text}: give whole numbers like dim=1024,num_layers=6; "
            f"{wrong[0]!r} has none"
        )
    return {name: int(value) for name, _, value in pairs}


def _card(args: argparse.Namespace, parts: Mapping[str, Any]) -> str:
    """Where everything is from: licences are those of the sources."""
    import jax

    rows = [("thinker", args.thinker, None), ("encoder", args.encoder, None)]
    sources = {
        "codec": args.codec,
        "voice": args.voice,
        "talker": args.talker,
        "talker_ntp": args.talker,
        "adaptor": args.adaptor,
    }
    rows += [(name, sources[name], part) for name, part in parts.items()]
    lines = ["| part | kind | million parameters | from |", "|---|---|---|---|"]
    for name, source, part in rows:
        count = (
            ""
            if part is None
            else f"{sum(leaf.size for leaf in jax.tree.leaves(part.params)) / 1e6:.1f}"
        )
        lines.append(
            f"| {name} | {'' if part is None else part.kind} | {count} | {Path(str(source)).name} |"
        )
    licence = (
        "Each part keeps the licence of what it was made from; read those before "
        "you pass this folder on."
    )
    return (
        "\n".join(
            [
                f"# {args.name or Path(args.output).absolute().name}",
                "",
                "Put together by `mdmspeech assemble`.",
                "",
                *lines,
                "",
                licence,
            ]
        )
        + "\n"
    )
