"""mdmspeech: a streaming speech LLM whose voice is a masked diffusion model, in JAX.

    import mdmspeech
    model = mdmspeech.load("compact")
    model.chat("question.wav").save("answer.wav")

Importing the package is cheap; JAX comes with `load`.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdmspeech.pretrained import PretrainedAssistant

__version__ = "0.1.0"
__all__ = ["PretrainedAssistant", "__version__", "load"]


def load(
    release: "str | os.PathLike" = "compact",
    *,
    revision: str | None = None,
    thinker: "str | os.PathLike | None" = None,
    voice: "str | os.PathLike | None" = None,
    dtype: str = "float32",
) -> "PretrainedAssistant":
    """Opens a released model, ready to listen and speak.

    Args:
      release: the name of one shipped in the package ("compact"), the path of a release folder, or
        where there is no such folder, a repository of the Hugging Face Hub: "OWNER/NAME", or
        `OWNER/NAME@REVISION`. What it needs is downloaded once, into the Hub's cache; without a
        network what lies there is opened.
      revision: of a repository, a branch, tag or commit (default: the newest of its main branch).
        Which commit was opened is the model's `commit_hash`.
      thinker: another text LLM between its ear and its voice: a Hugging Face folder with
        safetensors, a .gguf file, or the name of a repository in the local Hugging Face cache
        (Llama, SmolLM2, Qwen2, Qwen2.5, Qwen3; nothing is downloaded).
      dtype: in which the Thinker computes: "float32", or "bfloat16", which needs half the memory
        and is many times slower on CPUs.
      voice: a file that `mdmspeech voice` wrote, to speak in instead of the release's own
        (only for releases with CosyVoice2's codec).

    Raises:
      mdmspeech.errors.UserError: no such release, a damaged file, a part that is not installed
        (the message says how to get it), something that cannot be the Thinker, or a repository that
        is not there, must be asked for, or cannot be reached.
    """
    return _pretrained().from_pretrained(
        release, revision=revision, thinker=thinker, voice=voice, dtype=dtype
    )


def __getattr__(name: str) -> "type[PretrainedAssistant]":
    if name == "PretrainedAssistant":
        return _pretrained()
    raise AttributeError(f"module 'mdmspeech' has no attribute {name!r}")


def _pretrained() -> "type[PretrainedAssistant]":
    from mdmspeech.inference.devices import look_for_no_tpu

    look_for_no_tpu()  # before JAX is imported
    from mdmspeech.pretrained import PretrainedAssistant

    return PretrainedAssistant
