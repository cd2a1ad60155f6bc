"""The server's log: what happened and where, never what was said, unless that is wanted."""

import logging
import traceback

logger = logging.getLogger("mdmspeech.serving")


def log_failure(told: str, error: BaseException) -> None:
    """Where an unexpected error was raised. Its message may hold what was said, and is left out."""
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    logger.error("%s: %s\n%s", told, type(error).__name__, where)


def log_text(what: str, text: str) -> None:
    """What was said."""
    logger.info("%s: %r", what, text)


def log_no_text(what: str, text: str) -> None:
    """Nothing."""
