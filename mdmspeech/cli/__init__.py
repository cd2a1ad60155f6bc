"""The one console script, `mdmspeech`: a verb a job. Every verb is a module with `add(subparsers)`; heavy imports wait until it runs."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from mdmspeech.cli.compiled import keep_compiled, lend_caches
from mdmspeech.errors import UserError
from mdmspeech.files import as_user_error

_SPEAKING = ("chat", "say", "eval")  # verbs that compile what was compiled before
_EPILOG = """\
examples:
  mdmspeech chat question.wav -o answer.wav      ask aloud, be answered aloud
  mdmspeech say "Hello there." -o hello.wav      read a text
  mdmspeech VERB --help                          more about one verb
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; exit code 0, 2 after a `UserError` (printed as one line), 130 after Ctrl-C."""
    from mdmspeech.cli import assemble, chat, convert, data, evaluate, plan, release, say, train, voice_file

    parser = argparse.ArgumentParser(
        prog="mdmspeech",
        description="A streaming speech LLM whose voice is a masked diffusion model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (chat, say, data, train, plan, evaluate, release, assemble, convert, voice_file):
        module.add(verbs)
    args = parser.parse_args(argv)
    look_for_no_tpu()
    lend_caches()
    if args.verb in _SPEAKING and not getattr(args, "cold", False):
        keep_compiled()
    try:
        return args.run(args) or 0
    except (UserError, OSError) as error:
        told = as_user_error(error) if isinstance(error, OSError) else error  # a disk that fills up may be met anywhere
        if not isinstance(told, UserError):
            raise
        print(f"mdmspeech {args.verb}: {' '.join(str(told).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mdmspeech {args.verb}: stopped", file=sys.stderr)
        return 130


def look_for_no_tpu(devices: Path = Path("/dev")) -> None:
    """Tells JAX to use the CPU where libtpu is installed, as it compiles plans, but there is neither a TPU nor a GPU's plugin: its complaints would frighten."""
    installed = lambda name: importlib.util.find_spec(name) is not None
    if os.environ.get("JAX_PLATFORMS") or not installed("libtpu") or any(map(installed, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
        return
    if not any(os.environ.get(name) for name in ("TPU_NAME", "TPU_WORKER_ID")) and not [
        *devices.glob("accel*"),
        *devices.glob("vfio/[0-9]*"),
    ]:
        os.environ["JAX_PLATFORMS"] = "cpu"
