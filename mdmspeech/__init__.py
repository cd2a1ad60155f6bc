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


def load(
    release: "str | os.PathLike" = "compact",
    *,
    voice: "str | os.PathLike | None" = None,
    dtype: str = "float32",
) -> "Assistant":
    """Opens a released model, ready to listen and speak.

    Args:
      release: the name of one shipped in the package ("compact"), or the path of a release folder.
      dtype: in which the Thinker computes, "float32" or, for large ones, "bfloat16".
      voice: a file that `mdmspeech voice` wrote, to speak in instead of the release's own
        (only for releases with CosyVoice2's codec).

    Raises:
      mdmspeech.errors.UserError: no such release, a damaged file, or a part that is not installed
        (the message says how to get it).
    """
    from functools import partial

    from mdmspeech.errors import UserError
    from mdmspeech.inference.devices import look_for_no_tpu

    look_for_no_tpu()
    from mdmspeech.cli.compiled import keep_programs

    keep_programs()
    from mdmspeech.inference.factory import open_assistant
    from mdmspeech.interop.release import load_release
    from mdmspeech.interop.sources import load_speech_encoder, load_thinker
    from mdmspeech.interop.voice_file import with_voice

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype={dtype!r}: the Thinker computes in float32 or bfloat16")
    opened = load_release(release)
    return open_assistant(
        with_voice(opened, voice) if voice else opened,
        partial(load_thinker, dtype=dtype),
        load_speech_encoder,
    )
