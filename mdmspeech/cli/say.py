"""`mdmspeech say`: a text of any length in, speech out, written as it is made."""

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

from mdmspeech.cli.compiled import telling_what_is_compiled
from mdmspeech.cli.output import check_outputs, finish, messages_aside, writing
from mdmspeech.cli.streams import STDIN, input_text
from mdmspeech.cli.voice_options import add_voice_options, generation, warn_of_untrained
from mdmspeech.errors import UserError


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "say",
        help="read a text aloud",
        description="Speaks a text of any length: words, numbers and signs. The file has its name "
        "once it is complete; after Ctrl-C, what was said so far is in FILE.part.wav beside it.",
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="what to say, in quotes; - reads it from standard input, to the end",
    )
    add_voice_options(parser, "speech.wav")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    check_outputs(args)
    how = generation(args)
    text = _text(args.text)
    warn_of_untrained(args)
    import mdmspeech
    from mdmspeech.inference.speech import finish_timeline, join
    from mdmspeech.inference.timeline import render

    with messages_aside(args) as target, telling_what_is_compiled(args.quiet):
        parts = mdmspeech.load(args.model, voice=args.voice).say_parts(text, **how)
        spent, kept = {"talker": 0.0, "codec": 0.0, "total_s": 0.0}, []
        with writing(target, parts.sample_rate) as out:
            for part in _with_progress(parts, args.quiet):
                out.write(part.audio)
                spent = {name: seconds + part.timeline[name] for name, seconds in spent.items()}
                kept += [part] if args.picture else []
        if not args.quiet:
            timeline = finish_timeline(spent, out.samples, out.rate, spent["total_s"])
            print(
                render(timeline)
                + "\n(compiling included; see `chat`, which compiles first, for the true speed)\n"
            )
        finish(args, join(kept) if kept else None)


def _text(given: str) -> str:
    from mdmspeech.text.normalise import check_speakable

    text = input_text() if given in STDIN else given
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text is no valid UTF-8 (character {error.start + 1}); write it "
            "anew or give it through iconv"
        ) from error
    # what is left out is told once, when it is spoken
    with warnings.catch_warnings(action="ignore"):
        check_speakable(text)
    return text


def _with_progress(parts: Any, quiet: bool) -> Iterator[Any]:
    """The parts; for a long text a bar tells on a terminal how many words have been said."""
    from tqdm import tqdm

    with tqdm(
        total=parts.words,
        unit="word",
        leave=False,
        disable=True if quiet or len(parts) < 2 else None,
    ) as bar:
        for part in parts:
            yield part
            bar.update(len(part.words) or len(part.text.split()))
