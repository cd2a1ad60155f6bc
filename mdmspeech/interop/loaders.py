"""What training loads of other people's making, by path: checkpoints whose sizes must be those of
the experiment's config.
"""

import dataclasses
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.interop import release as releases
from mdmspeech.interop import sources
from mdmspeech.interop.parts import KINDS
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.text.tokenizer import ChatTokenizer

_OURS = ("scan_layers", "lora_rank", "lora_alpha")  # settings that no checkpoint has


def load_thinker(path: str, config: ThinkerConfig, like: Any = None) -> dict[str, Any]:
    """Parameters of the Thinker at `path` (see `sources.open_thinker`).

    Args:
      like: abstract parameters (`jax.ShapeDtypeStruct` with shardings) whose type and places the
        result has: each process reads its own share, one parameter at a time, and reads no others
        than these. None: all of them, as float32 numpy arrays.

    Raises:
      UserError: names each size in which it is another model than `config`, before any weight is
        read.
    """
    only = None if like is None else set(like)
    return open_thinker(path, config).params(only=only, **_places(like))


def thinker_mark(path: str, config: ThinkerConfig) -> str:
    """Short digest that tells one Thinker's weights from another's, a low-rank update included: of one
    row of every layer, read from its file.
    """
    tensors, digest = open_thinker(path, config).tensors, zlib.crc32(str(config.dim).encode())
    for name in sorted(tensors):
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            row = np.asarray(tensors[name][slice(0, 1)], np.float32)
            digest = zlib.crc32(row.tobytes(), digest)
    return f"{digest:08x}"


def open_thinker(path: str, config: ThinkerConfig) -> sources.OpenedThinker:
    """The Thinker at `path` in the layout of `config`, its weights not read yet. UserError as
    `load_thinker`.
    """
    opened = sources.open_thinker(path, scan_layers=config.scan_layers)
    _same(path, config, opened.config)
    return opened


def load_encoder(path: str, config: SpeechEncoderConfig, like: Any = None) -> dict[str, Any]:
    """Parameters of the speech encoder at `path` (see `sources.open_speech_encoder`). Arguments and
    errors as `load_thinker`.
    """
    return open_encoder(path, config).params(**_places(like))


def open_encoder(path: str, config: SpeechEncoderConfig) -> sources.OpenedEncoder:
    """The speech encoder at `path`, as `open_thinker`."""
    opened = sources.open_speech_encoder(path, scan_layers=config.scan_layers)
    _same(path, config, opened.config)
    return opened


def load_tokenizer(path: str) -> ChatTokenizer:
    """The tokenizer beside a Thinker's weights."""
    if remote.is_remote(path):
        return sources.open_thinker(path).tokenizer()
    return (
        ChatTokenizer.from_folder(path)
        if Path(path).is_dir()
        else sources.open_thinker(path).tokenizer()
    )


def load_part(release: str, part: str) -> dict[str, Any]:
    """Parameters of a part of a release ("compact", or a folder), to go on training from."""
    return releases.load_part(release, part).params


class Described(NamedTuple):
    """Of a part: whether it is trained, whether it only predicts the next token, and the prompt
    after which it was trained, or None.
    """

    trained: bool
    autoregressive: bool
    prompt: Any


def describe_part(release: str, part: str) -> Described:
    """What a release says of a part, without reading weights. UserError: no such release, or no
    such part.
    """
    about = releases.read_about(release)
    if part not in about.parts:
        raise UserError(
            f"release {release!r} has no {part}; it has {', '.join(about.parts) or 'nothing'}"
        )
    kind = KINDS[about.parts[part][0]]
    return Described(
        part not in about.untrained, kind.autoregressive, about.trained_after.get(part)
    )


def _places(like: Any) -> dict[str, Any]:
    leaves = jax.tree.leaves(like)
    if not leaves:
        return {}
    placed = all(leaf.sharding is not None for leaf in leaves)
    return {
        "dtype": leaves[0].dtype,
        "shardings": jax.tree.map(lambda leaf: leaf.sharding, like) if placed else None,
    }


def _same(path: str, wanted: Any, found: Any) -> None:
    pairs = (
        (field.name, getattr(wanted, field.name), getattr(found, field.name))
        for field in dataclasses.fields(wanted)
    )
    alike = lambda name, here, there: (
        here == there or (name == "rope_scaling" and dict(here or ()) == dict(there or ()))
    )
    differ = [
        f"{name} {here!r}, there {there!r}"
        for name, here, there in pairs
        if name not in _OURS and not alike(name, here, there)
    ]
    if differ:
        raise UserError(
            f"{path} is another model than the experiment's: {'; '.join(differ)}; "
            "give its own checkpoint or change the config"
        )
