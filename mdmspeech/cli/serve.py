"""`mdmspeech serve`: the model behind an address, for programs, pages and people."""

import argparse
from typing import Any

from mdmspeech.cli.compiled import telling_what_is_compiled
from mdmspeech.cli.voice_options import RELEASE_HELP, add_thinker_options, untrained_words


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "serve",
        help="serve a model over HTTP and WebSocket, as clients of OpenAI's API expect",
        description="Serves a model: /v1/realtime, /v1/audio/speech, /v1/audio/transcriptions, "
        "/v1/chat/completions and more, see docs/serving.md. It prints one line when it is ready, "
        "and ends what it is doing when it is told to stop (SIGTERM, Ctrl-C).",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="compact",
        metavar="MODEL",
        help=f"{RELEASE_HELP} (default: %(default)s)",
    )
    parser.add_argument(
        "--voice", metavar="FILE", help="speak in the voice that `mdmspeech voice` made"
    )
    add_thinker_options(parser)
    _add_listening(parser.add_argument_group("listening"))
    _add_limits(parser.add_argument_group("limits"))
    parser.add_argument(
        "--log-text", action="store_true", help="write what is said into the log (it is not else)"
    )
    parser.add_argument(
        "--warm-up",
        choices=("usual", "all"),
        default="usual",
        help="compile before the first request what most requests need, or whatever any needs, which "
        "takes many minutes at the first start (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no log of requests, no progress")
    parser.set_defaults(run=run)


def _add_listening(group: Any) -> None:
    add = group.add_argument
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: %(default)s, only this machine",
    )
    add(
        "--port",
        type=int,
        default=8000,
        metavar="N",
        help="0: any that is free (default: %(default)s)",
    )
    add("--api-key", action="append", default=[], metavar="KEY", help="lets clients in; may be given "
        "several times, and in MDMSPEECH_API_KEY, separated by commas, where nobody sees it in ps")  # fmt: skip
    add("--api-key-file", metavar="FILE", help="more keys, one a line "
        "(default: what MDMSPEECH_API_KEY_FILE names, as containers have it)")  # fmt: skip
    add("--allow-origin", action="append", default=[], metavar="ORIGIN", help="pages that may ask, "
        "as https://talk.example (* is all)")  # fmt: skip
    add("--allow-host", action="append", default=[], metavar="NAME", help="another name by which "
        "it is asked for (* is all)")  # fmt: skip
    add("--ssl-certfile", metavar="PEM", help="for https and wss: the certificate")
    add("--ssl-keyfile", metavar="PEM", help="and its key")


def _add_limits(group: Any) -> None:
    number: Any
    for flag, kind, number, told in (
        ("--max-sessions", int, 8, "conversations and requests at a time (default: %(default)s)"),
        ("--max-queue", int, 16, "requests that may wait for a place (default: %(default)s)"),
        ("--max-body", int, 25 * 2**20, "bytes of a request (default: %(default)s)"),
        ("--max-audio", float, 30.0, "seconds of a recording (default: %(default)g)"),
        ("--max-session", float, 3600.0, "seconds of a conversation (default: %(default)g)"),
        ("--idle", float, 600.0, "seconds after which a silent one ends (default: %(default)g)"),
        ("--rate-limit", int, None, "requests a minute and client (default: any number)"),
        ("--drain", float, 30.0, "seconds to finish when told to stop (default: %(default)g)"),
    ):
        group.add_argument(flag, type=kind, default=number, metavar="N", help=told)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    settings = settings_of(args)  # what cannot be is an error before the model is opened
    settings.check_free()
    import asyncio
    import logging
    import os
    import sys

    import aiohttp  # noqa: F401 - what is not installed is an error before the model is opened
    import prometheus_client  # noqa: F401

    import mdmspeech
    from mdmspeech.interop.release import read_about
    from mdmspeech.serving.run import serve

    if (untrained := read_about(args.model).untrained) and not args.quiet:
        print(untrained_words(untrained, args.model), file=sys.stderr)
    logging.basicConfig(
        level=logging.WARNING if args.quiet and not args.log_text else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(name)s: %(message)s",
    )
    logging.getLogger("jax").setLevel(logging.WARNING)
    model = mdmspeech.load(args.model, thinker=args.thinker, voice=args.voice, dtype=args.dtype)

    def tell(line: str) -> None:
        print(line, flush=True)

    with telling_what_is_compiled(args.quiet):
        ended = asyncio.run(serve(model, settings, all=args.warm_up == "all", tell=tell))
    if not ended:  # Python would wait for the compiler, for minutes
        os._exit(0)


def settings_of(args: argparse.Namespace) -> Any:
    """The `serving.settings.Settings` of the flags. UserError: what cannot be."""
    from pathlib import Path

    from mdmspeech.serving.settings import Settings, gather_keys

    return Settings(
        host=args.host,
        port=args.port,
        model_id=Path(args.model).resolve().name if "/" in args.model else args.model,
        api_keys=gather_keys(args.api_key, args.api_key_file),
        allow_origins=tuple(args.allow_origin),
        allow_hosts=tuple(args.allow_host),
        ssl_certfile=args.ssl_certfile,
        ssl_keyfile=args.ssl_keyfile,
        max_sessions=args.max_sessions,
        max_queue=args.max_queue,
        max_body=args.max_body,
        max_audio_s=args.max_audio,
        max_session_s=args.max_session,
        idle_s=args.idle,
        rate_limit=args.rate_limit,
        drain_s=args.drain,
        log_text=args.log_text,
    )
