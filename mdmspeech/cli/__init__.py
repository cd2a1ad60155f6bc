"""The one console script, `mdmspeech`: a verb a job. Every verb is a module with `add(subparsers)`; heavy imports wait until it runs."""

import argparse
import sys

from mdmspeech.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; exit code 0, or 2 after a `UserError` (printed as one line)."""
    from mdmspeech.cli import train

    parser = argparse.ArgumentParser(prog="mdmspeech", description="A streaming speech LLM whose voice is a masked diffusion model.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (train,):
        module.add(verbs)
    args = parser.parse_args(argv)
    try:
        return args.run(args) or 0
    except UserError as error:
        print(f"mdmspeech {args.verb}: {error}", file=sys.stderr)
        return 2


