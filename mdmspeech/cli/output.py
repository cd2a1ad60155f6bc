"""Where the speech of `chat` and `say` goes: a file or standard output as it is made, a player, a
picture. Nothing printed is worth more than the file.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdmspeech.cli.streams import STDOUT, output_bytes
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable

SUFFIXES = (".wav", ".flac")
PICTURES = (".png", ".svg", ".pdf")
_PLAYERS = (
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"),
)


def check_outputs(args: argparse.Namespace) -> None:
    """A UserError for what could not be written or played, before anything is computed."""
    if args.output in STDOUT:
        output_bytes()
    else:
        _check_file(args.output, SUFFIXES)
    if args.picture:
        _check_file(args.picture, PICTURES)
    if args.play:
        if not _is_file(args.output):
            raise UserError(
                f"--play plays the file that -o writes, and {args.output} is none; "
                "name one, or leave --play out"
            )
        find_player()


def _check_file(name: str, suffixes: tuple[str, ...]) -> None:
    path = Path(name)
    if name and path.is_dir():
        raise UserError(f"cannot write {name}: it is a folder; name a file in it")
    if name and path.exists() and not path.is_file():
        return  # a device or a pipe
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"cannot write {name}: name it {', '.join(suffixes[:-1])} or {suffixes[-1]}"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"cannot write {name}: the folder {folder} does not exist; make it first")
    check_writable(name, "name another file")


def _is_file(output: str) -> bool:
    return output not in STDOUT and (not Path(output).exists() or Path(output).is_file())


@contextlib.contextmanager
def messages_aside(args: argparse.Namespace) -> Iterator[Any]:
    """Yields where the audio goes (see `WaveWriter`). If that is standard output, everything else
    that is printed meanwhile goes to standard error.
    """
    if args.output in STDOUT:
        target = output_bytes()
        with contextlib.redirect_stdout(sys.stderr):
            yield target
    else:
        yield args.output


@contextlib.contextmanager
def writing(target: Any, rate: int) -> Iterator[Any]:
    """A `WaveWriter` for it; after an interruption, says where the rest is."""
    from mdmspeech.audio.writer import WaveWriter

    out = WaveWriter(target, rate)
    try:
        with out:
            yield out
    finally:
        if out.kept:
            print(
                f"what was said so far, {out.samples / rate:.1f} s, is in {out.kept}",
                file=sys.stderr,
            )


def finish(args: argparse.Namespace, speech: Any) -> None:
    """Draws and plays what has been written. speech: with what a picture shows, if one is wanted."""
    if args.picture:
        from mdmspeech.inference.plots import save_plot

        save_plot(args.picture, speech)
    if not args.quiet:
        saved = " and ".join(
            filter(None, (args.output if args.output not in STDOUT else None, args.picture))
        )
        if saved:
            print(f"saved {saved}")
    if args.play:
        play(args.output)


def find_player() -> tuple[str, ...]:
    """The command line of a program that plays a wav file."""
    for player in _PLAYERS:
        if shutil.which(player[0]):
            return player
    raise UserError(
        f"--play needs one of {', '.join(p[0] for p in _PLAYERS)}; install one, or "
        "open the file that -o writes"
    )


def play(path: str) -> None:
    """Plays a wav or flac file; not every player takes the latter."""
    import soundfile

    from mdmspeech.audio.writer import WaveWriter

    with tempfile.TemporaryDirectory() as folder:
        plain = str(Path(path).absolute())
        if Path(path).suffix.lower() != ".wav":
            plain = str(Path(folder) / "speech.wav")
            with WaveWriter(plain, soundfile.info(path).samplerate) as out:
                for block in soundfile.blocks(path, 2**16, dtype="float32"):
                    out.write(block)
        done = subprocess.run([*find_player(), plain], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"{find_player()[0]} could not play the speech "
            f"({' '.join(done.stderr.split())[:120]}); open the file that -o writes"
        )
