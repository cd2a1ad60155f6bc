"""The release format: a folder with config.json, one safetensors file a part and a card. JSON and safetensors only: nothing in it is run.

Tensors are stored in 16 bits, or in 8 where asked, and are float32 in memory. config.json holds every part's sizes and the SHA-256 of every file; a folder is opened only
if each file is the one that was written and each tensor is the one that the sizes ask for.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict

from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.int8 import SCALE, from_int8, to_int8
from mdmspeech.interop.rules import Rule, import_params
from mdmspeech.interop.sources import SMOLLM2, WHISPER_BASE
from mdmspeech.interop.tensors import check_sha256, read_json, read_tensors, write_tensors
from mdmspeech.interop.whisper_decoder import writing_shapes
from mdmspeech.models import talker
from mdmspeech.models.attention_adaptor import AttentionConfig
from mdmspeech.models.phone_reader import PhoneReader, PhoneReaderConfig
from mdmspeech.models.spelling_adaptor import SpellingAdaptor, SpellingConfig
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.text import prompts

FORMAT, VERSION = "mdmspeech-release", 2
_READS = (1, 2)  # version 1 had no 8-bit parts
_LATER = {
    "label_shift",
    "kv_heads",
    "qkv_bias",
    "qk_norm",
    "norm_eps",
    "output_bias",
    "text_rows",
}  # sizes that older releases lack: they are the defaults there
CONFIG, CARD = "config.json", "README.md"
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
INT8 = "int8"


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Sizes of the paper's adaptor; `states` is the speech encoder's width, `out_dim` the Thinker's."""

    states: int = 512
    out_dim: int = 576
    stack: int = 5
    hidden_dim: int = 2048


Config = CompactCodecConfig | talker.TalkerConfig | AttentionConfig | SpellingConfig | StackConfig | PhoneReaderConfig


@dataclasses.dataclass(frozen=True)
class Part:
    """One trained part: what it is (a key of `KINDS`), its sizes, its parameters (nested dicts of float32 arrays)."""

    kind: str
    config: Config
    params: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Release:
    """Everything this project trained, by name ("codec", "talker", "talker_ntp", "adaptor"), and which pretrained parts it was trained with.

    Attributes:
      thinker, encoder: what `sources.load_thinker` and `sources.load_speech_encoder` are asked for.
      system, examples: the system message and the example turns (user, assistant) that begin every conversation, see `text.prompts`.
      silence: codes that sound like silence (for the stop rules of Talkers that do not know their length).
    """

    name: str
    parts: dict[str, Part]
    thinker: str = SMOLLM2
    encoder: str = WHISPER_BASE
    system: str = prompts.SYSTEM
    examples: tuple[tuple[str, str], ...] = prompts.EXAMPLES
    silence: tuple[int, ...] = ()

    def part(self, name: str) -> Part:
        """A part by name, or a UserError that says which there are."""
        if name not in self.parts:
            raise UserError(f"release {self.name!r} has no {name}; it has {', '.join(self.parts) or 'nothing'}")
        return self.parts[name]


def _codec_shapes(config: CompactCodecConfig):
    return jax.eval_shape(CompactCodecModel(config).init, jax.random.key(0))


def _talker_shapes(config: talker.TalkerConfig):
    return jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))


def _spelling_shapes(config: SpellingConfig):
    states = jnp.zeros((1, 2 * config.stack, config.states))
    return jax.eval_shape(SpellingAdaptor(config).init, jax.random.key(0), states, jnp.ones(states.shape[:2], bool))["params"]


def _stack_shapes(config: StackConfig):
    module = StackAdaptor(config.out_dim, config.stack, config.hidden_dim)
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, config.stack, config.states)))["params"]


def _reader_shapes(config: PhoneReaderConfig):
    return jax.eval_shape(PhoneReader(config).init, jax.random.key(0), jnp.zeros((1, 4, config.states)))["params"]


# kind -> (its sizes, the abstract parameter tree of given sizes)
KINDS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "compact_codec": (CompactCodecConfig, _codec_shapes),
    "talker_mdm": (talker.TalkerConfig, _talker_shapes),
    "talker_ntp": (talker.TalkerConfig, _talker_shapes),
    "attention_adaptor": (AttentionConfig, writing_shapes),
    "spelling_adaptor": (SpellingConfig, _spelling_shapes),
    "stack_adaptor": (StackConfig, _stack_shapes),
    "phone_reader": (PhoneReaderConfig, _reader_shapes),
}


def save_release(folder: str | os.PathLike, release: Release, card: str, dtype: str = "float16", int8: Collection[str] = ()) -> int:
    """Writes the folder (created if missing) and returns its size in bytes.

    Args:
      card: the model card, Markdown. dtype: "float16" or "bfloat16" of the stored tensors. int8: names of the parts whose large matrices are
        stored in 8 bits instead, see `interop.int8`.

    Raises:
      UserError: parameters that do not fit their sizes, or a value that `dtype` cannot hold.
    """
    if dtype not in DTYPES:
        raise UserError(f"a release stores {' or '.join(DTYPES)}, not {dtype}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "name": release.name, "thinker": release.thinker, "encoder": release.encoder,
        "system": release.system, "examples": release.examples, "silence": list(release.silence), "parts": {},
    }  # fmt: skip
    for name, part in release.parts.items():
        tensors = {path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(part.params, sep="/").items()}
        _fit(tensors, part.kind, part.config, name)
        wide = to_int8(tensors) if name in int8 else tensors
        stored = {
            path: value if value.dtype == np.int8 or path.endswith(SCALE) else _narrow(value, dtype, f"{name}: {path}")
            for path, value in wide.items()
        }
        file = f"{name}.safetensors"
        write_tensors(folder / file, stored, {"kind": part.kind})
        (folder / file).chmod(0o644)  # the safetensors library makes files that only their owner reads
        about["parts"][name] = {
            "kind": part.kind, "file": file, "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest(),
            "dtype": INT8 if name in int8 else dtype, "config": dataclasses.asdict(part.config),
        }  # fmt: skip
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def load_release(name_or_path: str | os.PathLike) -> Release:
    """Opens a release: the name of one shipped in the package ("compact"), or a folder.

    Raises:
      UserError: no such release; another format or version; a file that is missing, truncated or altered; tensors that do not fit the config.
    """
    folder = find_release(name_or_path)
    about = read_json(folder / CONFIG)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(
            f"{folder / CONFIG} is the config of another model, not of an mdmspeech release; give the folder that `mdmspeech release` wrote"
        )
    if about.get("version") not in _READS:
        raise UserError(
            f"{folder} has release format {about.get('version')}, this program reads {VERSION}; update mdmspeech or fetch that release again"
        )
    try:
        parts = {name: _load_part(folder, name, entry) for name, entry in about["parts"].items()}
        texts = {key: str(about[key]) for key in ("name", "thinker", "encoder", "system")}
        examples = tuple((str(asked), str(answered)) for asked, answered in about["examples"])
        return Release(parts=parts, examples=examples, silence=tuple(int(i) for i in about["silence"]), **texts)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / CONFIG} is incomplete ({type(error).__name__}: {error}); fetch the release again") from error


def find_release(name_or_path: str | os.PathLike) -> Path:
    """The folder of a release. A UserError names the shipped ones if there is no such folder."""
    shipped = Path(str(resources.files("mdmspeech") / "assets"))
    text = str(name_or_path)
    candidates = ([shipped / text] if text.isidentifier() else []) + [Path(text).expanduser()]
    for folder in candidates:
        if (folder / CONFIG).is_file():
            return folder
    names = sorted(config.parent.name for config in shipped.glob(f"*/{CONFIG}"))
    raise UserError(
        f"no release {text!r} ({CONFIG} not found); shipped: {', '.join(names) or 'none yet'}; or give the path of a release folder"
    )


def config_from(kind: str, sizes: Mapping[str, Any], where: str) -> Config:
    """A part's sizes from a JSON object; a UserError lists what is missing or unknown."""
    if kind not in KINDS:
        raise UserError(f"{where} is of unknown kind {kind!r}; known: {', '.join(KINDS)}")
    cls = KINDS[kind][0]
    fields = {field.name for field in dataclasses.fields(cls)}
    missing, unknown = sorted(fields - set(sizes) - _LATER), sorted(set(sizes) - fields)
    if missing or unknown:
        told = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        raise UserError(f"{where}: its sizes are those of another model ({'; '.join(told)}); fetch the release again")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()})


def _load_part(folder: Path, name: str, entry: Mapping[str, Any]) -> Part:
    path = folder / str(entry["file"])
    if path.parent != folder or not path.is_file():
        raise UserError(f"{path} is missing; fetch the release again")
    config = config_from(entry["kind"], entry["config"], f"{folder}: {name}")
    check_sha256(memoryview(path.read_bytes()), entry["sha256"], str(path))
    tensors = {path: np.asarray(value, np.float32) for path, value in from_int8(read_tensors(path), str(path)).items()}
    return Part(entry["kind"], config, _fit(tensors, entry["kind"], config, str(path)))


def _fit(tensors: Mapping[str, np.ndarray], kind: str, config: Config, source: str) -> dict[str, Any]:
    """The parameter tree, or one UserError with every disagreement between tensors and sizes."""
    try:
        shapes = KINDS[kind][1](config)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{source}: no {kind} can be built from its sizes ({' '.join(str(error).split())[:160]})") from error
    rules = [Rule(path, path) for path in flatten_dict(shapes, sep="/")]
    return import_params(tensors, rules, shapes, source)


def _narrow(value: np.ndarray, dtype: str, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = value.astype(DTYPES[dtype])
    if not np.isfinite(stored.astype(np.float32)).all():
        raise UserError(f"{name} has values that are not finite in {dtype}; repair the training run, or store bfloat16")
    return stored
