"""The options that `chat` and `say` share: how to speak, where the audio goes."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable

SUFFIXES = (".wav", ".flac")
_PLAYERS = (("pw-play",), ("paplay",), ("aplay", "-q"), ("afplay",), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"))


def add_voice_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Adds the options; `output` is the default file."""
    parser.add_argument(
        "-o", "--output", default=output, metavar="FILE", help="where the speech goes, .wav or .flac (default: %(default)s)"
    )
    parser.add_argument(
        "--model", default="compact", metavar="NAME|DIR", help="a shipped release or a release folder (default: %(default)s)"
    )
    parser.add_argument(
        "--voice", metavar="FILE", help="speak in the voice that `mdmspeech voice` made (for models with CosyVoice2's codec)"
    )
    parser.add_argument(
        "--talker", default="mdm", choices=("mdm", "ntp"), help="masked diffusion, or the next-token baseline (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=4, metavar="S", help="diffusion steps a block: 1 is fastest, 16 the most (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 always takes the best speech token; 0.8 varies (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the variation, when --temperature is above 0 (default: 0)")
    parser.add_argument("--pace", type=float, default=1.0, metavar="X", help="1.25 speaks a quarter faster (default: 1)")
    parser.add_argument(
        "--vocoder-steps", type=int, metavar="S", help="Euler steps of CosyVoice2's codec: 2 is fast, 10 its own (default: 10)"
    )
    parser.add_argument("--vocoder-guidance", type=float, metavar="G", help="of CosyVoice2's codec; 0 halves the work (default: 0.7)")
    parser.add_argument(
        "--picture", metavar="FILE", help="also draw the wave, its words and blocks, and when each token was revealed (.png)"
    )
    parser.add_argument("--play", action="store_true", help="play the speech, too")
    parser.add_argument("--quiet", action="store_true", help="print only the text")


def manner(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments that say how to speak. UserError for one that no model takes."""
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: give a whole number from 1, the fastest, to 16")
    vocoder = {key: getattr(args, f"vocoder_{key}") for key in ("steps", "guidance")}
    given = {key: value for key, value in vocoder.items() if value is not None}
    return {key: getattr(args, key) for key in ("steps", "seed", "talker", "temperature", "pace")} | ({"vocoder": given} if given else {})


def warn_of_untrained(args: argparse.Namespace) -> None:
    """Says on stderr which parts of the model are random, if any are. UserError as `interop.release.read_about`."""
    from mdmspeech.interop.release import read_about

    if (untrained := read_about(args.model).untrained) and not args.quiet:
        print(untrained_words(untrained, args.model), file=sys.stderr)


def untrained_words(parts: Sequence[str], folder: str) -> str:
    """What to know of a model with random parts, and what to do."""
    return f"{' and '.join(parts)}: untrained, so what this system says means nothing yet: mdmspeech train --config experiments/... --system {folder}"


def check_outputs(args: argparse.Namespace) -> None:
    """A UserError for a file that could not be written, before anything is computed."""
    if Path(args.output).suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {args.output}: name it .wav or .flac")
    for path in filter(None, (args.output, args.picture)):
        if not Path(path).absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: the folder {Path(path).absolute().parent} does not exist; make it first")
        if Path(path).is_dir():
            raise UserError(f"cannot write {path}: it is a folder; name a file in it")
        check_writable(path, "name another file")
    if args.play:
        find_player()


def find_player() -> tuple[str, ...]:
    """The command line of a program that plays a wav file."""
    for player in _PLAYERS:
        if shutil.which(player[0]):
            return player
    raise UserError(f"--play needs one of {', '.join(p[0] for p in _PLAYERS)}; install one, or open the file that -o writes")


def play(speech) -> None:
    """Plays anything with `save`."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        speech.save(file.name)
        done = subprocess.run([*find_player(), file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"{find_player()[0]} could not play the speech ({' '.join(done.stderr.split())[:120]}); open the file that -o writes"
        )


def deliver(args: argparse.Namespace, speech) -> None:
    """Saves, draws and plays what was spoken."""
    if not len(speech.audio):
        print("nothing was spoken, so no file was written")
        return
    speech.save(args.output)
    if args.picture:
        from mdmspeech.inference.picture import save_picture

        save_picture(args.picture, speech)
    if not args.quiet:
        print("saved " + " and ".join(filter(None, (args.output, args.picture))))
    if args.play:
        play(speech)
