"""`mdmspeech chat`: spoken questions in, spoken answers out."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mdmspeech.cli.compiled import telling_what_is_compiled
from mdmspeech.cli.output import check_outputs, finish, messages_aside, writing
from mdmspeech.cli.streams import STDIN, STDOUT, input_bytes
from mdmspeech.cli.voice_options import (
    add_thinker_options,
    add_voice_options,
    generation,
    warn_of_untrained,
)
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable
from mdmspeech.hardware import peak_memory
from mdmspeech.speech_format import INPUT_RATE

FORMATS = (
    "wav, flac, ogg, opus, mp3, aiff; with PyAV (pip install av) also m4a, aac, "
    "webm, mp4, 3gp, amr, wma"
)
OUTPUT, SEVERAL = "answer.wav", "answers"
# at the first start with a Thinker that is not the model's own
_CONVERTS = " (another Thinker is converted once: a minute or two a billion parameters)"


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "chat",
        help="answer a spoken question aloud",
        description=(
            "Hears a recorded question and answers it aloud. The text is printed as "
            "it is written, then a timeline of what took how long. Several questions are "
            "answered one after another, each as if it were the only one; -o is then a folder, "
            "and the answer to sum.wav is sum.answer.wav there."
        ),
    )
    parser.add_argument(
        "question",
        metavar="QUESTION",
        nargs="+",
        help=f"a recording of 0.1 to 30 s: {FORMATS}; - reads it from standard input",
    )
    add_voice_options(parser, OUTPUT)
    parser.set_defaults(output=None)  # several answers need a folder: `_each` names it
    add_thinker_options(parser)
    parser.add_argument(
        "--cold",
        action="store_true",
        help="do not compile before the clock starts: the timeline then includes it",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    asked = _each(args)
    how = generation(args)
    if len(asked) == 1:
        check_outputs(asked[0])
    # a bad file is an error before the model is opened
    waves = [_load(one.question) for one in asked]
    if len(asked) > 1:  # not before: a bad file leaves no folder
        Path(asked[0].output).parent.mkdir(parents=True, exist_ok=True)
        for one in asked:
            check_outputs(one)
    warn_of_untrained(args)
    with messages_aside(asked[0]):
        model = _open(args, how, [len(wave) / INPUT_RATE for wave in waves])
    for one, wave in zip(asked, waves, strict=True):
        with messages_aside(one) as target:
            if len(asked) > 1 and not args.quiet:
                print(f"{one.question}:")
            _answer(model, one, how, wave, target)


def _each(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The options of each question, with its own output."""
    if len(args.question) == 1:
        one = {
            "question": args.question[0],
            "output": OUTPUT if args.output is None else args.output,
        }
        return [argparse.Namespace(**{**vars(args), **one})]
    folder = Path(SEVERAL if args.output is None else args.output)
    wrong = [name for name in args.question if name in STDIN]
    if wrong:
        raise UserError(f"{wrong[0]} is standard input, which holds one question; ask it alone")
    if args.picture:
        raise UserError("--picture draws one answer; ask one question at a time for it")
    if args.output in STDOUT or folder.suffix or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"{len(args.question)} questions have {len(args.question)} answers: name a folder "
            f"with -o, not {args.output}"
        )
    names = [f"{Path(question).stem}.answer.wav" for question in args.question]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"two answers would be {folder / min(twice)}; rename one of the questions")
    check_writable(str(folder), "name another folder with -o", folder=True)
    return [
        argparse.Namespace(**{**vars(args), "question": question, "output": str(folder / name)})
        for question, name in zip(args.question, names, strict=True)
    ]


def _open(args: argparse.Namespace, how: dict, seconds: Sequence[float]):
    import mdmspeech

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
            model.warm_up(args.talker, seconds=seconds[0])
            model.frontend.warm_up(seconds[1:])
    return model


def _answer(model, args: argparse.Namespace, how: dict, wave, target) -> None:
    from mdmspeech.inference.assistant import AudioEvent, EndEvent, TextEvent
    from mdmspeech.inference.timeline import render

    with writing(target, model.voice(args.talker).codec.sample_rate) as out:
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
