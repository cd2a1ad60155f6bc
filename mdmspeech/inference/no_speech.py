"""When nobody spoke. Whisper's decoder, and an adaptor that began as it, describes sounds in
brackets, "[Music]" or "(humming)": what is in them was not said.

Two signs: the text is nothing but such pieces; or it begins as a word, but too much of the
  probability of its first piece was on brackets and on silence.
Measured with the shipped model, 2026-11-28, the second:
    speech of synthetic voices and of people, 24 clips in noise of 10, 5 and 0 dB; 48 soft, with
    hum, by telephone, clipped, with DC or a tone: at most 0.06 the same 24 in noise of -5 dB: 0.45
    and 0.28 (written in brackets), 0.11, the others at most 0.04 noise, hum, tones, music, clicks,
    breath, typing, babble (135 clips of 0.5, 1 and 3 s): 0.02 to 0.8, median 0.38; written in
    brackets all but a siren ("Woo!", 0.26), an error tone ("Do it.", 0.12), babble of twelve
    talkers twice (0.06, 0.11) and a screaming monkey that is announced in words
The limit was chosen on these clips. Below it, what was written goes to the Thinker: the error
tone's words and the babble's.
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
# the text was cut before the end of it
_UNCLOSED = re.compile(rf"[\[({{{_NOTES}].*$|(?<!\w)\*(?=[^\W\d])[^*]*$", re.DOTALL)
_STRAY = re.compile(r"[\])}]|^[\s\-–—>.,;:!?…]+(?=.*\w)", re.DOTALL)  # what is left of them
MOST = 0.2  # of the first piece's probability may be on what is no word


def spoken_part(text: str) -> str:
    """A transcript without descriptions of sounds; "" if no word is left. One that has none comes
    back as it is.
    """
    left, count = text, 1
    while count:
        left, count = _PIECES.subn(" ", left)
    left = _UNCLOSED.sub(" ", left)
    if left != text:
        left = " ".join(_STRAY.sub(" ", left).split())
        left = re.sub(r" (?=[.,;:!?])", "", left)
    return left if any(character.isalnum() for character in left) else ""


def no_words(names: Sequence[str]) -> np.ndarray:
    """Which pieces (in the printable form of byte-level BPE) begin a description of a sound, and
    the end that follows them: bool [pieces + 1].
    """
    return np.array([name.removeprefix("Ġ").startswith(_OPENERS) for name in names] + [True])
