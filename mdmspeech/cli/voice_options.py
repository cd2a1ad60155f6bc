"""The options that verbs share: how to speak, where the audio goes, which Thinker answers."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

# where a release is named
RELEASE = "NAME|DIR|OWNER/NAME"
RELEASE_HELP = "a shipped release, a release folder, or OWNER/NAME or OWNER/NAME@REVISION of the Hugging Face Hub"


def add_voice_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Adds the options; `output` is the default file."""
    parser.add_argument(
        "-o",
        "--output",
        default=output,
        metavar="FILE",
        help=(
            "where the speech goes, .wav or .flac; - is standard output, as wav "
            f"(default: {output})"
        ),
    )
    parser.add_argument(
        "--model",
        default="compact",
        metavar=RELEASE,
        help=f"{RELEASE_HELP} (default: %(default)s)",
    )
    parser.add_argument(
        "--voice",
        metavar="FILE",
        help="speak in the voice that `mdmspeech voice` made (for models with CosyVoice2's codec)",
    )
    parser.add_argument(
        "--talker",
        default="mdm",
        choices=("mdm", "ntp", "mtp", "mtp_verified"),
        help="masked diffusion, or a baseline: next-token, multi-token, multi-token whose next forward "
        "checks what it wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=4,
        metavar="S",
        help="diffusion steps a block: 1 is fastest, 16 the most (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 always takes the best speech token; up to 1.5 it varies, clear to 0.75 (default: 0)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the variation, when --temperature is above 0 (default: 0)",
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        metavar="X",
        help="0.5 to 1.25: 0.8 speaks a fifth slower; clear from 0.6 to 1 (default: 1)",
    )
    parser.add_argument(
        "--vocoder-steps",
        type=int,
        metavar="S",
        help="Euler steps of CosyVoice2's codec: 2 is fast, 10 its own (default: 10)",
    )
    parser.add_argument(
        "--vocoder-guidance",
        type=float,
        metavar="G",
        help="of CosyVoice2's codec; 0 halves the work (default: 0.7)",
    )
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="also draw the wave, its words and blocks, and when each token was unmasked (.png)",
    )
    parser.add_argument("--play", action="store_true", help="play the speech, too")
    parser.add_argument("--quiet", action="store_true", help="print only the text, and no progress")


def add_thinker_options(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Adds --thinker and --dtype, which `mdmspeech.load` takes. also: what else computes in the latter."""
    parser.add_argument(
        "--thinker",
        metavar="DIR|FILE|NAME",
        help=(
            "another text LLM between the ear and the voice: a Hugging Face folder, a .gguf file, "
            "or a repository in the local Hugging Face cache (default: the model's own)"
        ),
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help=(
            f"in which the Thinker{also} computes; bfloat16 needs half the memory and is many times slower "
            "on CPUs (default: %(default)s)"
        ),
    )


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments that say how to speak. UserError for one that no model takes."""
    from mdmspeech.inference.generation_config import GenerationConfig

    vocoder = {key: getattr(args, f"vocoder_{key}") for key in ("steps", "guidance")}
    given = {key: value for key, value in vocoder.items() if value is not None}
    how = {key: getattr(args, key) for key in ("steps", "seed", "temperature", "pace")} | (
        {"vocoder": given} if given else {}
    )
    GenerationConfig.of(how)
    return {**how, "talker": args.talker}


def warn_of_untrained(args: argparse.Namespace) -> None:
    """Says on stderr which parts of the model are random, if any are. UserError as
    `interop.release.read_about`.
    """
    from mdmspeech.interop.release import read_about

    if (untrained := read_about(args.model).untrained) and not args.quiet:
        print(untrained_words(untrained, args.model), file=sys.stderr)


def untrained_words(parts: Sequence[str], folder: str) -> str:
    """What to know of a model with random parts, and what to do."""
    return (
        f"{' and '.join(parts)}: untrained, so what this system says means nothing "
        f"yet: mdmspeech train --config experiments/... --system {folder}"
    )
