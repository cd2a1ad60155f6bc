"""When nobody spoke. Whisper's decoder, and an adaptor that began as it, describes sounds in brackets, "[Music]" or "(humming)": what is in them was not said.

Two signs, measured with the shipped model (the table is in the test): the text is nothing but such pieces; or it began as a word, but more of the probability
of its first piece was on brackets and on silence. For noise, tones, hum, music and clicks both hold nearly always; for speech, down to where it drowns in
noise, the second is near 0.
"""

import re
from collections.abc import Sequence

import numpy as np

_OPENERS = ("[", "(", "{", "*", "♪", "♫")
_NOTES = "♪♫♬♩"
_PIECES = re.compile(
    r"\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}"  # closed, the innermost first
    rf"|[{_NOTES}][^{_NOTES}]*[{_NOTES}]"  # what is sung
    r"|(?<!\w)\*+(?=\S)[^*]+(?<=\S)\*+(?!\w)"  # *coughs*, but not 2 * 3 * 4
)
_UNCLOSED = re.compile(rf"[\[({{{_NOTES}].*$|(?<!\w)\*(?=[^\W\d])[^*]*$", re.DOTALL)  # the text was cut before the end of it
_STRAY = re.compile(r"[\])}]|^[\s\-–—>.,;:!?…]+(?=.*\w)", re.DOTALL)  # what is left of them
MOST = 0.5  # of the first piece's probability may be on what is no word


def spoken_part(text: str) -> str:
    """A transcript without descriptions of sounds; "" if no word is left. One that has none comes back as it is."""
    left, count = text, 1
    while count:
        left, count = _PIECES.subn(" ", left)
    left = _UNCLOSED.sub(" ", left)
    if left != text:
        left = " ".join(_STRAY.sub(" ", left).split())
        left = re.sub(r" (?=[.,;:!?])", "", left)
    return left if any(character.isalnum() for character in left) else ""


def no_words(names: Sequence[str]) -> np.ndarray:
    """Which pieces (in the printable form of byte-level BPE) begin a description of a sound, and the end that follows them: bool [pieces + 1]."""
    return np.array([name.removeprefix("Ġ").startswith(_OPENERS) for name in names] + [True])
