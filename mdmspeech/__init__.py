"""mdmspeech: a streaming speech LLM whose voice is a masked diffusion model, in JAX.

    import mdmspeech
    model = mdmspeech.load("compact")
    model.chat("question.wav").save("answer.wav")

Importing the package is cheap; JAX comes with `load`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdmspeech.inference.session import Session

__version__ = "0.1.0"
__all__ = ["load", "__version__"]


def load(release: str = "compact", **options: Any) -> "Session":
    """Opens a released model, ready to listen and speak.

    Args:
      release: the name of one shipped in the package ("compact"), or the path of a release folder.
      **options: passed on to `mdmspeech.inference.session.load`.

    Raises:
      mdmspeech.errors.UserError: no such release, a damaged file, or a part that is not installed (the message says how to get it).
    """
    from mdmspeech.inference.session import load as load_session

    return load_session(release, **options)
