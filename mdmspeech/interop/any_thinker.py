"""Any chat LLM between an ear and a voice that read and write text: found, and refused by name if it
cannot be the Thinker, before any weight is read.
"""

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.hardware import machine_memory
from mdmspeech.interop import release as releases
from mdmspeech.interop import sources
from mdmspeech.interop.huggingface_rules import THINKERS
from mdmspeech.interop.parts import reads_prompt
from mdmspeech.interop.tensors import read_json
from mdmspeech.text.prompts import EXAMPLES, Prompt, around_question

_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_LORA, _PICKLE = "adapter_config.json", "pytorch_model.bin"
_CONVERT = "`mdmspeech convert {} NEW_FOLDER` writes it anew; give that folder"


@dataclasses.dataclass(frozen=True)
class AnyThinker:
    """One that was found to fit; its weights are not read yet.

    Attributes:
      opened: config and headers. prompt: how its conversations begin. dtype: in which it computes.
    """

    opened: sources.OpenedThinker
    prompt: Prompt
    dtype: str

    def load(self, *_: Any, to_run: bool = False) -> sources.LoadedThinker:
        """Reads it, or the copy that is kept of it (`interop.converted`); as `sources.load_thinker`."""
        return sources.read_thinker(self.opened, to_run, dtype=self.dtype)


def open_any_thinker(
    source: str | os.PathLike, release: str | os.PathLike, dtype: str = "float32"
) -> AnyThinker:
    """Finds a Thinker for a release that was made with another one.

    Args:
      source: a Hugging Face folder with safetensors, a .gguf file (or a folder with one), the name
        of a repository in the local Hugging Face cache, or a name that `sources.open_thinker` knows.
        Nothing is downloaded.
      release: its conversations begin with the same system message; the examples that its own
        small Thinker needs are left out for others.

    Raises:
      UserError: a release whose parts work with the states of its own Thinker; nothing there, or
        something else; another architecture; no tokenizer, chat template or end of an answer; more
        than this machine's memory holds.
    """
    about = releases.read_about(release)
    if fixed := [name for name, part in about.parts.items() if reads_prompt(*part)]:
        raise UserError(
            f"the {' and the '.join(fixed)} of {about.folder} work with the states of their own "
            "Thinker, so another one cannot take its place: train them for it, or use a release "
            "that hears and speaks by text, such as compact"
        )
    path = str(source) if str(source) == sources.SMOLLM2 else _find(str(source))
    opened = sources.open_thinker(path)
    own = str(source) == about.thinker
    prompt = about.prompt if own else Prompt(about.prompt.system)
    if own and "thinker_lora" in about.parts and source == sources.SMOLLM2:
        prompt = dataclasses.replace(prompt, examples=EXAMPLES)  # as it is, it needs them
    try:
        tokenizer = opened.tokenizer()
        tokenizer.check_ends()
        around_question(tokenizer, prompt)
        opened.params(unread=True)  # names and shapes
    except UserError as error:
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise UserError(told) from error
    _check_memory(opened, dtype)
    return AnyThinker(opened, prompt, dtype)


def with_thinker(release: releases.Release, thinker: AnyThinker) -> releases.Release:
    """The release with its conversations begun as that Thinker's are, and without what was made for
    its own.
    """
    prompt = thinker.prompt
    parts = {name: part for name, part in release.parts.items() if name != "thinker_lora"}
    return dataclasses.replace(release, parts=parts, system=prompt.system, examples=prompt.examples)


def _find(source: str) -> str:
    """What `sources.open_thinker` takes: a folder of a text LLM, or a .gguf file."""
    if remote.scheme(source) in ("http", "https"):
        raise UserError(
            f"{source} is on the web, and nothing is downloaded here: fetch it (`hf download`, curl), "
            "and give the file or folder"
        )
    if remote.is_remote(source):
        return source
    path = Path(os.path.expanduser(source))  # pathlib's fails for users that there are not
    if not source.strip() or not path.exists():
        path = _in_hub_cache(source)
    if not path.is_dir():
        return str(path)
    _refuse_ours(path)
    if (path / "config.json").is_file():
        _refuse_pickles(path)
        return str(path)
    if (path / _LORA).is_file():
        base = read_json(path / _LORA).get("base_model_name_or_path")
        raise UserError(
            f"{path} is a LoRA of {base or 'another model'}, not a whole model: merge the two (peft: "
            f"AutoPeftModelForCausalLM.from_pretrained({str(path)!r}).merge_and_unload()"
            ".save_pretrained(NEW_FOLDER), and the tokenizer files beside it) and give that folder"
        )
    files = sorted(path.glob("*.gguf"))
    whole = [file for file in files if "mmproj" not in file.name.lower()]
    if len(whole) > 1:
        raise UserError(
            f"{path} holds {len(whole)} .gguf files ({', '.join(f.name for f in whole[:4])}, ...); "
            "give the path of one"
        )
    return str(whole[0] if whole else path)


def _in_hub_cache(name: str) -> Path:
    """The folder of a repository in the local cache, as `hf download` leaves it; the network is
    never asked.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not _REPO.fullmatch(name):
        raise UserError(
            f"no Thinker at {name or repr(name)}: give a model folder, a .gguf file, the name of a "
            "repository in the local Hugging Face cache (OWNER/NAME), or the name "
            f"{sources.SMOLLM2!r}"
        )
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise UserError(
            f"there is no folder {name}, and no such repository in the local Hugging Face cache "
            f"({constants.HF_HUB_CACHE}); nothing is downloaded here: `hf download {name}` does it, "
            "if that is its name"
        ) from error


def _refuse_ours(path: Path) -> None:
    """What this program writes, and is no text LLM."""
    file = path / "config.json"
    about = read_json(file) if file.is_file() else {}
    if (path / "checkpoints").is_dir() and about.get("model_type") is None:
        raise UserError(
            f"{path} is a training run, not a text LLM. If it trained a Thinker, "
            f"{_CONVERT.format(path)}; else give the folder of the Thinker itself"
        )
    if about.get("format") != releases.FORMAT:
        return
    parts = ", ".join(about.get("parts", ())) or "nothing"
    inside = path / "thinker"
    cure = (
        f"its Thinker is {inside}"
        if inside.is_dir()
        else "--model (load's first argument) takes it"
    )
    raise UserError(
        f"{path} is a release ({parts}), not a text LLM: {cure}; a Thinker is one of: {THINKERS}"
    )


def _refuse_pickles(path: Path) -> None:
    """Folders whose weights would be read anew at every start, if at all."""
    pickles = sorted(file.name for file in path.glob("*.bin"))
    if any(path.glob("*.safetensors")) or not pickles:
        return
    cure = (
        _CONVERT.format(path)
        if (path / _PICKLE).is_file()
        else "save it again with transformers: "
        f"AutoModelForCausalLM.from_pretrained({str(path)!r}).save_pretrained(NEW_FOLDER)"
    )
    raise UserError(f"{path} has its weights as pickles ({pickles[0]}), not as safetensors; {cure}")


def _check_memory(opened: sources.OpenedThinker, dtype: str) -> None:
    """A UserError if the weights are more than this machine holds."""
    import jax

    if jax.default_backend() != "cpu":
        return
    count = sum(math.prod(tensor.shape) for tensor in opened.tensors.values())
    size, have = count * np.dtype(dtype).itemsize, machine_memory()
    if have is None or size <= have:
        return
    half = ' dtype="bfloat16" (--dtype bfloat16) needs half of it, or' if dtype == "float32" else ""
    raise UserError(
        f"{opened.origin} has {count / 1e9:.1f} billion parameters, {size / 1e9:.1f} GB as {dtype}, "
        f"and this machine has {have / 1e9:.1f} GB of memory:{half} take a smaller model"
    )
