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
    thinker: "str | os.PathLike | None" = None,
    voice: "str | os.PathLike | None" = None,
    dtype: str = "float32",
) -> "Assistant":
    """Opens a released model, ready to listen and speak.

    Args:
      release: the name of one shipped in the package ("compact"), or the path of a release folder.
      thinker: another text LLM between its ear and its voice: a Hugging Face folder with
        safetensors, a .gguf file, or the name of a repository in the local Hugging Face cache
        (Llama, SmolLM2, Qwen2, Qwen2.5, Qwen3; nothing is downloaded).
      dtype: in which the Thinker computes: "float32", or "bfloat16", which needs half the memory
        and is many times slower on CPUs.
      voice: a file that `mdmspeech voice` wrote, to speak in instead of the release's own
        (only for releases with CosyVoice2's codec).

    Raises:
      mdmspeech.errors.UserError: no such release, a damaged file, a part that is not installed
        (the message says how to get it), or something that cannot be the Thinker.
    """
    from collections.abc import Callable
    from functools import partial
    from typing import Any

    from mdmspeech.errors import UserError
    from mdmspeech.inference.devices import look_for_no_tpu

    look_for_no_tpu()
    from mdmspeech.cli.compiled import keep_programs

    keep_programs()
    from mdmspeech.inference.factory import open_assistant
    from mdmspeech.interop.any_thinker import open_any_thinker, with_thinker
    from mdmspeech.interop.release import load_release
    from mdmspeech.interop.sources import load_speech_encoder, load_thinker
    from mdmspeech.interop.voice_file import with_voice

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype={dtype!r}: the Thinker computes in float32 or bfloat16")
    read: Callable[..., Any] = partial(load_thinker, dtype=dtype)
    chosen = None if thinker is None else open_any_thinker(thinker, release, dtype)
    opened = load_release(release)
    if voice:
        opened = with_voice(opened, voice)
    if chosen is not None:
        opened, read = with_thinker(opened, chosen), chosen.load
    return open_assistant(opened, read, load_speech_encoder)
