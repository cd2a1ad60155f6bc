from mdmspeech.errors import UserError


def check_speakable(text: str) -> str:
    if not any(character.isalnum() for character in text):
        raise UserError(f"there is nothing to say in {text[:40]!r}; give words")
    return text
