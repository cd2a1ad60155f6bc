"""`mdmspeech say`: a text in, speech out."""

import argparse
import sys

from mdmspeech.cli.voice_options import add_voice_options, check_outputs, deliver, manner, warn_of_untrained
from mdmspeech.errors import UserError


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "say", help="read a text aloud", description="Speaks a text: words, numbers and signs, any number of sentences."
    )
    parser.add_argument("text", metavar="TEXT", help="what to say, in quotes; - reads it from standard input")
    add_voice_options(parser, "speech.wav")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    check_outputs(args)
    text = sys.stdin.read() if args.text == "-" else args.text
    if not any(character.isalnum() for character in text):
        raise UserError("there is nothing to say: give words, for example mdmspeech say 'Hello there.'")
    warn_of_untrained(args)
    import mdmspeech
    from mdmspeech.inference.timeline import render

    speech = mdmspeech.load(args.model, voice=args.voice).say(text, **manner(args))
    if not args.quiet:
        print(render(speech.timeline) + "\n(compiling included; see `chat`, which compiles first, for the true speed)\n")
    deliver(args, speech)
