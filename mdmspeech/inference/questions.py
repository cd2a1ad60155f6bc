"""What can be asked in writing."""

from mdmspeech.errors import UserError


def check_question(question: str) -> None:
    """A UserError for a typed question that is none."""
    if not isinstance(question, str):
        raise UserError(
            f"a typed question is a str, this is {type(question).__name__}; chat() "
            "and hear() take recordings"
        )
    if not any(character.isalnum() for character in question):
        raise UserError(
            f"there is no question in {question[:40]!r}: give words, for example "
            "'What is the capital of France?'"
        )
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise UserError(
            f"the question {question[:40]!r} has half a character in it (a lone "
            "surrogate); decode its bytes as UTF-8"
        )
