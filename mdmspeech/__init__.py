"""mdmspeech: a streaming speech LLM whose voice is a masked diffusion model, in JAX.

    import mdmspeech
    model = mdmspeech.load("compact")
    model.chat("question.wav").save("answer.wav")

Importing the package is cheap; JAX comes with `load`.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(release: "str | os.PathLike" = "compact") -> "Assistant":
    """Opens a released model, ready to listen and speak.

    Args:
      release: the name of one shipped in the package ("compact"), or the path of a release folder.

    Raises:
      mdmspeech.errors.UserError: no such release, a damaged file, or a part that is not installed (the message says how to get it).
    """
    from mdmspeech.inference.opening import open_assistant
    from mdmspeech.interop.release import load_release
    from mdmspeech.interop.sources import load_speech_encoder, load_thinker

    return open_assistant(load_release(release), load_thinker, load_speech_encoder)
