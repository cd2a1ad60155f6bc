"""A Thinker or a speech encoder as a Hugging Face folder: config.json, safetensors shards with an
index, tokenizer files, a card.

Such a folder is what `transformers` loads and what `sources.open_thinker` and `open_speech_encoder`
read back bit by bit. It says in config.json which layout it has (`huggingface.LAYOUT`). It is
written beside its destination and renamed when it is complete.
"""

import contextlib
import dataclasses
import fnmatch
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, replace_folder
from mdmspeech.interop.huggingface import (
    LAYOUT,
    STAMP,
    encoder_json,
    encoder_shapes,
    frontend_json,
    thinker_json,
    thinker_shapes,
)
from mdmspeech.interop.huggingface_rules import encoder_rules, thinker_rules
from mdmspeech.interop.rules import TensorRule, check_tensors, export_params
from mdmspeech.interop.sources import OpenedEncoder, OpenedThinker, fitting
from mdmspeech.interop.tensors import INDEX, WHOLE, Stored, read_json, write_tensors
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.text.chat_template import OTHERS
from mdmspeech.text.tokenizer import ChatTokenizer

SHARD_BYTES = 4 * 10**9
# Beside the weights of a text model or of Whisper; whatever of these the source has is copied.
_COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt",
    "added_tokens.json", "special_tokens_map.json",
    "chat_template.jinja", "generation_config.json", "preprocessor_config.json", "normalizer.json",
)  # fmt: skip
# What else stands in a model folder: of these, and of what `_write` writes, nothing is lost that
# could not be fetched or made again.
_OF_A_MODEL = (
    "config.json", "README.md", "LICENSE*", "USE_POLICY.md", ".gitattributes", "*.safetensors",
    "*.safetensors.index.json", "pytorch_model*.bin",
    "pytorch_model*.bin.index.json", "*.tiktoken", "*.gguf", OTHERS, *_COMPANIONS,
)  # fmt: skip
# Of the source's config.json: what our configs do not hold, but other programs want to know.
_KEPT = (
    "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
    "decoder_start_token_id", "initializer_range",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class How:
    """How a folder is written.

    Attributes:
      dtype: of the stored tensors; None: each parameter's own.
      companions: a folder whose tokenizer and other small files are copied, and whose config.json
        gives what our configs do not hold.
      files: further small files, name -> text (a tokenizer that was made from something else than a
        folder).
      origin: in words, for the card and for config.json.
      shard_bytes: the most a weights file holds. force: replace an existing folder. progress: told
        of every number of bytes written.
      check: called with the complete folder before it takes its name; what it raises leaves no
        folder.
    """

    dtype: Any = None
    companions: str | os.PathLike | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    origin: str = ""
    shard_bytes: int = SHARD_BYTES
    force: bool = False
    progress: Callable[[int], object] | None = None
    check: Callable[[Path], object] | None = None


def export_thinker(
    folder: str | os.PathLike, config: ThinkerConfig, params: Any, how: How = How()
) -> None:
    """Writes a Thinker's parameters (no LoRA beside them: merge it with `models.lora.fuse`) as a
    Llama, Qwen2 or Qwen3 folder.

    Raises:
      UserError: the folder exists, the parameters are not those of `config`, or no such
        architecture exists.
    """
    config = dataclasses.replace(config, lora_rank=0)
    tensors = export_params(_fitting(params, thinker_shapes(config)), thinker_rules(config))
    write_opened(folder, OpenedThinker(config, tensors, _no_tokenizer, "parameters in memory"), how)


def export_encoder(
    folder: str | os.PathLike, config: SpeechEncoderConfig, params: Any, how: How = How()
) -> None:
    """Writes a speech encoder's parameters as a Whisper folder that has no decoder. Raises
    UserError as `export_thinker`.
    """
    tensors = export_params(_fitting(params, encoder_shapes(config)), encoder_rules(config))
    write_opened(folder, OpenedEncoder(config, tensors, "parameters in memory"), how)


def write_opened(
    folder: str | os.PathLike, opened: OpenedThinker | OpenedEncoder, how: How = How()
) -> None:
    """Writes a checkpoint that `sources.open_thinker` or `open_speech_encoder` found, without ever
    holding more than a piece of a tensor.

    Raises:
      UserError: the folder exists, or tensors that are missing, unknown or misshapen, before
        anything is written.
    """
    how = dataclasses.replace(how, origin=how.origin or opened.origin)
    config = dataclasses.replace(opened.config, scan_layers=False)
    if isinstance(config, ThinkerConfig):
        assert isinstance(opened, OpenedThinker)
        # a tokenizer that is none is told before anything is written
        if how.companions is not None:
            fitting(ChatTokenizer.from_folder(how.companions), config, Path(how.companions))
        made = {} if how.companions is not None else opened.files()
        how = dataclasses.replace(how, files={**made, **how.files})
        _check(thinker_shapes(config), opened.tensors, thinker_rules(config), how)
        _write(folder, "thinker", thinker_json(config), opened, how)
    else:
        _check(encoder_shapes(config), opened.tensors, encoder_rules(config), how)
        frontend = {"preprocessor_config.json": json.dumps(frontend_json(config), indent=2) + "\n"}
        how = dataclasses.replace(how, files={**frontend, **how.files})
        _write(folder, "encoder", encoder_json(config), opened, how)


def refuse_existing(
    folder: str | os.PathLike, force: bool = False, sources: Iterable[str | os.PathLike | None] = ()
) -> Path:
    """The destination as a path; a UserError if something is there and not to be replaced, or if
    one of `sources`, which are read, stands inside it.
    """
    folder = Path(folder)
    if folder.exists() and not force:
        raise UserError(
            f"{folder} exists already: give another destination, remove it, or "
            "(convert) --force to replace it"
        )
    if folder.exists() and (why := _not_replaced(folder)):
        raise UserError(
            f"{folder} is no model folder and is not replaced ({why}): give another destination"
        )
    here = folder.resolve()
    for source in (Path(source).expanduser().resolve() for source in sources if source is not None):
        if source == here:
            raise UserError("the destination is the source: give another destination")
        if source.exists() and source.is_relative_to(here):
            raise UserError(
                f"{source}, which is read, stands inside {folder}, which would be "
                "replaced: give another destination"
            )
    for beside in (_beside(folder, ".part"), _beside(folder, ".old")):
        if os.path.lexists(beside):
            raise UserError(
                f"{beside} is in the way (of yours, or left by a run that was "
                "killed): remove it, or give another destination"
            )
    check_writable(folder, "give another destination", folder=True)
    return folder


def _not_replaced(folder: Path) -> str:
    """Why what stands there is not one model in Hugging Face's layout and nothing else; "" if it
    is, or if the folder is empty.
    """
    if not folder.is_dir():
        return "it is a file"
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return ""
    if "config.json" not in names:
        return "it has no config.json"
    about = read_json(folder / "config.json")
    if "checkpoints" in names:
        return "it is a training run"
    if "format" in about or not isinstance(about.get("model_type"), str):
        return "its config.json is not that of a Hugging Face model"
    strange = [
        name
        for name in names
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_A_MODEL)
    ]
    return f"{strange[0]} is in it" if strange else ""


def _beside(folder: Path, suffix: str) -> Path:
    return folder.absolute().with_name(folder.absolute().name + suffix)


@contextlib.contextmanager
def complete_or_absent(
    folder: str | os.PathLike, force: bool = False, sources: Iterable[str | os.PathLike | None] = ()
) -> Iterator[Path]:
    """A folder to write into that takes the name `folder` when all is written, so that half of it
    never looks complete. UserError: `refuse_existing`.
    """
    folder = refuse_existing(folder, force, sources)
    part, old = _beside(folder, ".part"), _beside(folder, ".old")
    try:
        part.mkdir(parents=True)
        yield part
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(f"{folder} cannot be written ({error}); nothing of it is left") from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    replace_folder(part, folder, old)


def _write(
    folder: str | os.PathLike,
    part: str,
    hf: dict[str, Any],
    opened: OpenedThinker | OpenedEncoder,
    how: How,
) -> None:
    tensors = opened.tensors
    source = opened.folder if how.companions is None else Path(how.companions)
    dtypes = {
        np.dtype(tensor.dtype if how.dtype is None else how.dtype).name
        for tensor in tensors.values()
    }
    with complete_or_absent(folder, how.force, (opened.folder, how.companions)) as folder:
        about = next(
            (f for f in (opened.folder, source) if f is not None and (f / "config.json").is_file()),
            None,
        )
        if about is not None:
            theirs = read_json(about / "config.json")
            hf |= {name: theirs[name] for name in _KEPT if name in theirs}
        hf["torch_dtype"] = dtypes.pop() if len(dtypes) == 1 else "float32"
        hf[STAMP] = {"layout": LAYOUT, "part": part, "origin": how.origin}
        _write_shards(folder, tensors, how)
        texts = {
            **how.files,
            "README.md": _card(part, hf, tensors, how),
            "config.json": json.dumps(hf, indent=2) + "\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name in _COMPANIONS:
            if source is not None and (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        if source is not None and (source / OTHERS).is_dir():
            shutil.copytree(
                source / OTHERS,
                folder / OTHERS,
                ignore=lambda _, names: [n for n in names if not n.endswith(".jinja")],
            )
        if how.check is not None:
            how.check(folder)


def _write_shards(folder: Path, tensors: Mapping[str, Stored], how: How) -> None:
    size_of: Callable[[Stored], int] = lambda tensor: (
        math.prod(tensor.shape)
        * np.dtype(tensor.dtype if how.dtype is None else how.dtype).itemsize
    )
    needed, free = sum(map(size_of, tensors.values())), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder.parent} has {free / 1e9:.1f} GB left, {needed / 1e9:.1f} GB "
            "are needed; make room or write elsewhere"
        )
    shards: list[dict[str, Stored]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + size_of(tensor) > how.shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size_of(tensor)
    names = (
        [WHOLE]
        if len(shards) == 1
        else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    for file, shard in zip(names, shards, strict=True):
        # transformers wants to be told that the names are those of PyTorch modules
        write_tensors(folder / file, shard, {"format": "pt"}, how.dtype, how.progress)
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": needed}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _card(part: str, hf: Mapping[str, Any], tensors: Mapping[str, Stored], how: How) -> str:
    count = sum(math.prod(tensor.shape) for tensor in tensors.values())
    names = {"thinker": "Text language model", "encoder": "Speech encoder (without its decoder)"}
    lines = [
        f"# {names[part]}", "", f"{hf['architectures'][0]}, {count / 1e6:,.1f} M parameters, {hf['torch_dtype']}.",
        f"Written by `mdmspeech convert` from: {how.origin or 'parameters in memory'}.",
        "The licence is that of the model it was made from.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _check(
    shapes: Any, tensors: Mapping[str, Stored], rules: Sequence[TensorRule], how: How
) -> None:
    check_tensors(
        tensors,
        rules,
        {path: tuple(leaf.shape) for path, leaf in flatten_dict(shapes, sep="/").items()},
        how.origin,
    )


def _no_tokenizer() -> ChatTokenizer:
    raise UserError("parameters in memory have no tokenizer; name the folder that has it")


def _fitting(params: Any, shapes: Any) -> Any:
    """`params`, or a UserError that names where they differ from `shapes`."""
    found = {path: tuple(leaf.shape) for path, leaf in flatten_dict(params, sep="/").items()}
    wanted = {path: tuple(leaf.shape) for path, leaf in flatten_dict(shapes, sep="/").items()}
    if wrong := sorted(path for path in {**found, **wanted} if found.get(path) != wanted.get(path)):
        raise UserError(
            f"{len(wrong)} parameters are not those of the config "
            f"({', '.join(wrong[:6])}); give the config they were made with"
        )
    return params
