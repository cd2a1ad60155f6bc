"""The one console script, `mdmspeech`: a verb a job. Every verb is a module with `add(subparsers)`;
heavy imports wait until it runs.
"""

import argparse
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

from mdmspeech.cli.compiled import keep_compiled, lend_caches
from mdmspeech.cli.streams import Patient
from mdmspeech.errors import UserError
from mdmspeech.files import as_user_error
from mdmspeech.inference.devices import look_for_no_tpu

# what brings the packages of a verb that are not always installed
_EXTRAS = {
    "eval": "eval",
    "bench": "eval",
    "plan": "plan",
    "cost": "plan",
    "talk": "talk",
    "serve": "serve",
}
_SPEAKING = ("chat", "say", "talk", "serve", "eval")  # verbs that compile what was compiled before
_EPILOG = """\
examples:
  mdmspeech chat question.wav -o answer.wav      ask aloud, be answered aloud
  mdmspeech say "Hello there." -o hello.wav      read a text
  mdmspeech talk                                 talk by microphone and loudspeaker
  mdmspeech serve --port 8000                    answer over HTTP and WebSocket
  mdmspeech VERB --help                          more about one verb
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; exit code 0, 2 after a `UserError` (printed as one line), 75 after one that may
    be over when the same is tried again, 130 after Ctrl-C, 141 when nobody takes the audio from
    standard output.

    What is printed may be lost (`| head -0`), the work goes on.
    """
    given = sys.stdout, sys.stderr
    if sys.stderr is None:  # closed: what is printed for it may not go to standard output instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the program runs
    # one that is closed is None
    patient = [Patient(stream) for stream in (sys.stdout, sys.stderr) if stream]
    sys.stdout, sys.stderr = (
        next((p for p in patient if p.stream is stream), stream)
        for stream in (sys.stdout, sys.stderr)
    )
    try:
        code = _run(argv)
        for stream in patient:
            stream.flush()
        if lost := next((stream.error for stream in patient if stream.error), None):
            print(f"mdmspeech: what was printed is lost: {lost}", file=sys.stderr)
            return code or 2
        return code
    finally:
        sys.stdout, sys.stderr = given


def _run(argv: list[str] | None) -> int:
    from mdmspeech.cli import (
        assemble,
        bench,
        chat,
        convert,
        cost,
        data,
        evaluate,
        ladder,
        plan,
        preflight,
        release,
        say,
        serve,
        talk,
        train,
        voice_file,
    )

    parser = argparse.ArgumentParser(
        prog="mdmspeech",
        description="A streaming speech LLM whose voice is a masked diffusion model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (
        chat, say, talk, serve, data, train, plan, cost, preflight, ladder, evaluate, bench, release,
        assemble, convert, voice_file,
    ):  # fmt: skip
        module.add(verbs)
    args = parser.parse_args(argv)
    look_for_no_tpu()
    lend_caches()
    if args.verb in _SPEAKING and not getattr(args, "cold", False):
        keep_compiled()
    try:
        with warnings.catch_warnings(), _logged(getattr(args, "quiet", False)):
            warnings.showwarning = _show_warning
            return args.run(args) or 0
    except BrokenPipeError:
        return 141
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "mdmspeech"):
            raise
        extra = _EXTRAS.get(args.verb, "data")
        print(
            f"mdmspeech {args.verb}: the package {package} is not installed: pip install "
            f'"mdmspeech[{extra}]" (in a checkout: .venv/bin/pip install -e ".[{extra}]")',
            file=sys.stderr,
        )
        return 2
    except (UserError, OSError) as error:
        # a disk that fills up may be met anywhere
        told = as_user_error(error) if isinstance(error, OSError) else error
        if not isinstance(told, UserError):
            raise
        print(f"mdmspeech {args.verb}: {' '.join(str(told).split())}", file=sys.stderr)
        return told.exit_code
    except KeyboardInterrupt:
        print(f"mdmspeech {args.verb}: stopped", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _logged(quiet: bool) -> Iterator[None]:
    """Says on stderr, a line each, what the package logs: which commit a model of the Hub is. quiet:
    warnings alone, and no progress of downloads.
    """
    logger, handler = logging.getLogger("mdmspeech"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("mdmspeech: %(message)s"))
    before = logger.level
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file=None,
    line=None,
) -> None:
    """In one line, as errors are."""
    print(f"mdmspeech: {' '.join(str(message).split())}", file=sys.stderr)
