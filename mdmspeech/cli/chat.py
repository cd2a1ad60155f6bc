"""`mdmspeech chat`: a spoken question in, a spoken answer out."""

import argparse
import sys
import warnings

from mdmspeech.cli.compiled import telling_what_is_compiled
from mdmspeech.cli.output import check_outputs, finish, messages_aside, writing
from mdmspeech.cli.streams import STDIN, input_bytes
from mdmspeech.cli.voice_options import (
    add_thinker_options,
    add_voice_options,
    generation,
    warn_of_untrained,
)
from mdmspeech.hardware import peak_memory
from mdmspeech.speech_format import INPUT_RATE

FORMATS = (
    "wav, flac, ogg, opus, mp3, aiff; with PyAV (pip install av) also m4a, aac, "
    "webm, mp4, 3gp, amr, wma"
)
# at the first start with a Thinker that is not the model's own
_CONVERTS = " (another Thinker is converted once: a minute or two a billion parameters)"


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "chat",
        help="answer a spoken question aloud",
        description=(
            "Hears a recorded question and answers it aloud. The text is printed as "
            "it is written, then a timeline of what took how long."
        ),
    )
    parser.add_argument(
        "question",
        metavar="QUESTION",
        help=f"a recording of 0.1 to 30 s: {FORMATS}; - reads it from standard input",
    )
    add_voice_options(parser, "answer.wav")
    add_thinker_options(parser)
    parser.add_argument(
        "--cold",
        action="store_true",
        help="do not compile before the clock starts: the timeline then includes it",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    check_outputs(args)
    how = generation(args)
    wave = _load(args.question)  # a bad file is an error before the model is opened
    warn_of_untrained(args)
    with messages_aside(args) as target:
        _answer(args, how, wave, target)


def _answer(args: argparse.Namespace, how: dict, wave, target) -> None:
    import mdmspeech
    from mdmspeech.inference.assistant import AudioEvent, EndEvent, TextEvent
    from mdmspeech.inference.timeline import render

    model = mdmspeech.load(args.model, thinker=args.thinker, voice=args.voice, dtype=args.dtype)
    voice = model.voice(args.talker)
    # what it refuses is refused now
    voice.stream(**{key: value for key, value in how.items() if key != "talker"})
    if not args.cold:
        if not args.quiet:
            print(
                f"opening the model{_CONVERTS * bool(args.thinker)} ...",
                file=sys.stderr,
                flush=True,
            )
        with telling_what_is_compiled(args.quiet):
            model.warm_up(args.talker, seconds=len(wave) / INPUT_RATE)
    with writing(target, voice.codec.sample_rate) as out:
        for event in model.stream(wave, **how):
            if isinstance(event, TextEvent):
                print(event.text, end="", flush=True)
            elif isinstance(event, AudioEvent):
                out.write(event.audio)
            elif isinstance(event, EndEvent):
                reply = event.reply
                print()
        if not out.samples:
            out.drop()
    if not args.quiet:
        if reply.heard is not None:
            print(f"\nheard: {reply.heard}")
        print("\n" + render(reply.timeline))
        if (peak := peak_memory()) is not None:
            print(f"{'peak memory':<17}{peak / 1e9:8.2f} GB, weights included")
        print()
    if out.samples:
        finish(args, reply)
    else:
        print("nothing was spoken, so no file was written")


def _load(question: str):
    """The wave; what is missing of it is said in one line on stderr."""
    from mdmspeech.audio.wave import AudioWarning, load_wave

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AudioWarning)
        wave = load_wave(input_bytes() if question in STDIN else question, INPUT_RATE)
    for warning in told:
        print(f"mdmspeech chat: {warning.message}", file=sys.stderr)
    return wave
