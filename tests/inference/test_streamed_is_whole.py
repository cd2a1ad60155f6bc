"""Of every kind of Talker: a text that comes in any pieces is spoken as the whole text is, whatever
the text, the steps, the seed and the places where it is cut.
"""

import random

import numpy as np
import pytest
from small_speech import WORDS

from mdmspeech.inference.thinker_runner import TextDelta

KINDS = {"paced": "voice", "fixed": "state_voice", "prefix": "prefix_voice"}
_AUDIO = 1e-3  # of samples within +-1: the codec's frames are summed in other company


def any_text(rng):
    """Sentences of words that the small Thinker knows, too."""
    words = [word for word in WORDS if word.isalpha()]
    sentences = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        said = [rng.choice(words) for _ in range(rng.randint(1, 9))]
        sentences.append(" ".join([said[0].capitalize(), *said[1:]]) + rng.choice([".", "!", "?"]))
    return " ".join(sentences)


def cuts(rng, length):
    """Slices that cover `length` places in order, some of them empty."""
    at = sorted(rng.randint(0, length) for _ in range(rng.randint(0, 12)))
    return [slice(a, b) for a, b in zip([0, *at], [*at, length], strict=True)]


def pieces(voice, text, rng):
    """The text as a Thinker's answer would bring it."""
    if not voice.reads_states:
        yield from (TextDelta(text[cut], True, 0) for cut in cuts(rng, len(text)))
        return
    (states,) = voice.thinker.hidden_states_of([text])
    for cut in cuts(rng, len(states)):
        yield TextDelta("", True, 0, states[cut] if len(states[cut]) else None)


def differences(voice, rounds, seed):
    """How many of so many texts come out otherwise in pieces."""
    rng, differ = random.Random(seed), 0
    for _ in range(rounds):
        text = any_text(rng)
        text = text.lower() if voice.reads_states else text
        how = dict(
            steps=rng.choice([1, 2, 3, 4, 8, 16]),
            seed=rng.randrange(2**32),
            temperature=rng.choice([0.0, 0.7, 1.2]),
        )
        whole, stream, waves = voice.say(text, **how), voice.stream(**how), []
        for piece in pieces(voice, text, rng):
            stream.push_delta(piece)
            while stream.ready() and rng.random() < 0.8:  # nobody has to ask at once
                waves.append(stream.step())
        stream.end()
        while not stream.done:
            waves.append(stream.step())
        said = stream.result()
        same = said.stop_reason == whole.stop_reason and len(whole.tokens) > 0
        for one in ("tokens", "trace.step_L", "trace.confidence_L"):
            field = one.split(".")
            here, there = (np.asarray(_field(speech, field)) for speech in (said, whole))
            same &= here.shape == there.shape and bool(np.allclose(here, there, atol=1e-5))
        wave = np.concatenate(waves)
        same &= wave.shape == whole.audio.shape
        differ += not (same and np.abs(wave - whole.audio).max() < _AUDIO)
    return differ


def _field(thing, names):
    for name in names:
        thing = getattr(thing, name)
    return thing


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind == "fixed" else kind for kind in KINDS],
)
def test_any_pieces_are_the_whole(kind, request):
    assert differences(request.getfixturevalue(KINDS[kind]), 4, seed=1) == 0


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_texts_in_pieces_are_the_whole(kind, request):
    assert differences(request.getfixturevalue(KINDS[kind]), 200, seed=2) == 0
