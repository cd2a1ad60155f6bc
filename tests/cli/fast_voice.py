"""`python fast_voice.py VERB ...` is the console script with a voice of numpy, which hums a quarter
of a second a word, and no release to ask whether it is trained, so that real processes are quick:
nothing imports JAX.
"""

import os
import sys
import time

import numpy as np

import mdmspeech
from mdmspeech.cli import main, say
from mdmspeech.inference.speech import Parts, Speech, Trace, Word, finish_timeline
from mdmspeech.text.normalise import check_speakable

RATE, SAMPLES = 24_000, 6000  # a word


class Hum:
    """Speaks one word a part."""

    def say_parts(self, text, **generation):
        check_speakable(text)
        words = text.split()
        return Parts(len(words), len(words), RATE, self._parts(words))

    def _parts(self, words):
        empty = np.zeros(0, np.int32)
        for n, word in enumerate(words):
            time.sleep(float(os.environ.get("HUM_SECONDS", "0")))
            wave = 0.1 * np.sin(np.arange(SAMPLES, dtype=np.float32))
            said = (Word(word, n / 4, (n + 1) / 4),)
            timeline = finish_timeline({"talker": 0.1, "codec": 0.1}, len(wave), RATE, 0.2)
            yield Speech(
                word, wave, RATE, empty, "length", said, Trace(empty, empty, empty, empty), timeline
            )


say.warn_of_untrained = lambda args: None
mdmspeech.load = lambda name, voice=None: Hum()
sys.exit(main())
