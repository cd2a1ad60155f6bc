"""`mdmspeech talk`: a conversation at the terminal, by microphone and loudspeaker."""

import argparse
import os
from typing import Any

from mdmspeech.cli.compiled import telling_what_is_compiled
from mdmspeech.cli.voice_options import add_thinker_options, untrained_words
from mdmspeech.errors import UserError


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "talk",
        help="talk with a model by microphone and loudspeaker, here or on a server",
        description="Talk: it listens all the time, answers when you have ended, and stops when you "
        "speak. Without headphones it hears itself; use them, or --push-to-talk. Typed questions "
        "are answered, too.",
    )
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="a server (`mdmspeech serve`), as http://127.0.0.1:8000 (default: the model runs here)",
    )
    parser.add_argument(
        "--model",
        default="compact",
        metavar="NAME|DIR",
        help="without a URL (default: %(default)s)",
    )
    parser.add_argument("--voice", metavar="FILE", help="without a URL: of `mdmspeech voice`")
    add_thinker_options(parser)
    parser.add_argument(
        "--steps",
        default="auto",
        metavar="S",
        help="forwards a block, 1 to 16, or auto: as many as time allows (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--pace", type=float, default=1.0, metavar="X", help="0.5 to 1.25 (default: 1)"
    )
    parser.add_argument(
        "--push-to-talk",
        action="store_true",
        help="Enter begins and ends your turn, and nothing is heard between",
    )
    parser.add_argument("--api-key", metavar="KEY", help="of the server (or in MDMSPEECH_API_KEY)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it."""
    steps = args.steps if args.steps == "auto" else _whole(args.steps)
    speaking = {"steps": steps, "seed": args.seed, "pace": args.pace}
    from mdmspeech.inference.session_config import SessionConfig

    settings = SessionConfig(**speaking)  # what cannot be is an error before anything is opened
    if args.push_to_talk:
        settings = settings.updated({"turn_detection": None})
    from mdmspeech.serving.terminal import sound_card

    sounds = sound_card.library()
    if args.url is None:
        session, rate = _here(args, settings)
    else:
        session, rate = _there(args, speaking)
    return _talk(session, rate, args.push_to_talk, sounds)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--steps {text}: give a number from 1 to 16, or auto") from None


def _here(args: argparse.Namespace, settings: Any) -> tuple[Any, int]:
    import sys

    import mdmspeech
    from mdmspeech.interop.release import read_about

    if untrained := read_about(args.model).untrained:
        print(untrained_words(untrained, args.model), file=sys.stderr)
    model = mdmspeech.load(args.model, thinker=args.thinker, voice=args.voice, dtype=args.dtype)
    with telling_what_is_compiled(False):
        session = model.session(settings)
        rate = model.voice("mdm").codec.sample_rate
    return session, rate


def _there(args: argparse.Namespace, speaking: dict[str, Any]) -> tuple[Any, int]:
    import aiohttp  # noqa: F401 - the session imports it in a thread of its own

    from mdmspeech.serving.terminal.remote_session import RemoteSession
    from mdmspeech.speech_format import OUTPUT_RATE

    key = args.api_key or os.environ.get("MDMSPEECH_API_KEY")
    return RemoteSession(args.url, key, not args.push_to_talk, speaking), OUTPUT_RATE


def _talk(session: Any, rate: int, push_to_talk: bool, sounds: Any) -> int:
    import sys
    import threading

    from mdmspeech.serving.terminal.player import Player
    from mdmspeech.serving.terminal.screen import Screen
    from mdmspeech.serving.terminal.sound_card import open_sound_card
    from mdmspeech.serving.terminal.talk import Talk

    player, screen = Player(rate), Screen()
    talk = Talk(session, player, screen, push_to_talk)

    def read() -> None:
        for line in sys.stdin:
            talk.typed(line)

    try:
        with open_sound_card(player, talk.heard, sounds):
            screen.note("opening the model ...")
            threading.Thread(target=read, name="keyboard", daemon=True).start()
            talk.run()
    except KeyboardInterrupt:
        pass
    finally:
        talk.close()
    return 0 if talk.open else 2
