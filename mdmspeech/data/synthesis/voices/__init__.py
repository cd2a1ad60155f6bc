"""Speech synthesisers behind one call: `load(engine).speak(job)` returns a `Rendered`."""

import functools
import importlib

from mdmspeech.data.synthesis.voices.base import Engine, Job, Rendered
from mdmspeech.errors import UserError

# engine name -> module and class;
# each module says where its engine comes from and under which licence
ENGINES = {
    "hibari": ("hibari", "Hibari"),
    "kokoro": ("neural", "Kokoro"),
    "piper": ("neural", "Piper"),
    "flite": ("commands", "Flite"),
    "festival": ("commands", "Festival"),
    "espeak": ("commands", "Espeak"),
}
# these get symbols from our `Pronouncer`; the others read the text themselves
READ_BY_US = frozenset({"hibari", "kokoro"})

__all__ = ["ENGINES", "READ_BY_US", "Engine", "Job", "Rendered", "load"]


@functools.cache
def load(engine: str) -> Engine:
    """The synthesiser of that name, loaded once a process. Raises `UserError` for an unknown or
    missing engine.
    """
    if engine not in ENGINES:
        raise UserError(f"there is no speech engine {engine!r}; known: {', '.join(ENGINES)}")
    module, name = ENGINES[engine]
    return getattr(importlib.import_module(f"mdmspeech.data.synthesis.voices.{module}"), name)()
