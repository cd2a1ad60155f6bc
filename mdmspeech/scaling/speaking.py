"""Word errors of a rung's speech at 1, 4 and 16 steps a block: whether fewer nats are heard."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mdmspeech.codec.base import Codec
from mdmspeech.data.datasets import corpus
from mdmspeech.errors import UserError
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.testset import spread
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.training.task import Params

STEPS = (1, 4, 16)


def texts_of(root: Any, parts: Sequence[str], count: int, made_by: str | None = None) -> list[str]:
    """Validation texts, spread over all. made_by: the codec that the tokens must be of.

    Raises:
      UserError: tokens of another codec, or without texts.
    """
    source = corpus.tokens(root, parts, "val", made_by, needs_text=True)
    return [source.fields(i)["text"] for i in spread(len(source), count)]


def word_errors(
    texts: Sequence[str], codec: Codec, recogniser: Recogniser, steps: Sequence[int] = STEPS
) -> Callable[[ConfigDict, Params], dict[str, Any]]:
    """A function (config, parameters) -> {"wer": {"1": report, ...}}, see `scoring.Score.report`. A
    Talker that says nothing of a text has all its words wrong.
    """

    def score(config: ConfigDict, params: Params) -> dict[str, Any]:
        voice = PacedSynthesizer(TalkerConfig(**config.talker), params, codec)
        found = {}
        for count in steps:
            speeches = voice.say_many(texts, steps=count, seed=0)
            waves = [np.asarray(speech.audio, np.float32) for speech in speeches]
            heard = recogniser.spoken_errors(waves, texts, codec.sample_rate)
            found[str(count)] = heard.report()
        return {"wer": found}

    if not texts:
        raise UserError("no texts to speak: give --speak a number above 0")
    return score
