"""A system folder from published checkpoints and our own parts (`mdmspeech assemble`): everything
is checked before anything is written.

DIR/config.json, README.md     as of any release, see `release`
DIR/thinker/, DIR/encoder/     Hugging Face folders, see `export`; left out where a name
                               stands for what this package brings
DIR/codec.safetensors, talker.safetensors, adaptor.safetensors, ...
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.config_names import RENAMED
from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.export import How, complete_or_absent, write_opened
from mdmspeech.interop.parts import KINDS, StackConfig
from mdmspeech.interop.release import Part, Release, save_release
from mdmspeech.models import talker
from mdmspeech.models.stack_adaptor import StackAdaptor

THINKER, ENCODER = "thinker", "encoder"  # sub-folders, and fields of a release
# bytes at each end of a weights file that its digest reads: a whole 16 GB would take a minute
_ENDS = 1 << 20


def talker_sizes(thinker_dim: int, sizes: Mapping[str, int]) -> talker.TalkerConfig:
    """Sizes of a Talker with fixed anchors on a Thinker of that width: as in the paper, 4 layers of
    the Thinker's width, unless `sizes` says otherwise.

    Raises:
      UserError: a size that no Talker has, or had under another name; a width that its heads do not
        divide.
    """
    known = {"dim", "num_layers", "num_heads", "ffn_dim", "block", "anchors_per_block"}
    if unknown := sorted(set(sizes) - known):
        if new := RENAMED["TalkerConfig"].get(unknown[0]):
            raise UserError(f"a Talker's {unknown[0]} is called {new} now")
        raise UserError(f"a Talker has no size {unknown[0]!r}; it has {', '.join(sorted(known))}")
    width = sizes.get("dim", thinker_dim)
    default: dict[str, Any] = {
        "dim": width,
        "num_layers": 4,
        "num_heads": max(width // 128, 1),
        "ffn_dim": 4 * width,
    }
    config = talker.TalkerConfig(
        **default | dict(sizes), anchors="fixed", text_dim=2 * thinker_dim, structured_codes=False
    )
    if config.dim % config.num_heads or config.head_dim % 2:
        raise UserError(
            f"a Talker of width {config.dim} cannot have {config.num_heads} heads: "
            "give heads that divide it into even parts"
        )
    return config


def random_talker(config: talker.TalkerConfig, seed: int = 0) -> Part:
    """A fresh Talker."""
    params = jax.jit(lambda key: talker.init(config, key))(jax.random.key(seed))
    return Part("talker_mdm", config, jax.tree.map(np.asarray, params))


def random_adaptor(encoder_dim: int, thinker_dim: int, seed: int = 0) -> Part:
    """A fresh adaptor of the paper's kind."""
    config = StackConfig(encoder_dim=encoder_dim, out_dim=thinker_dim)
    module = StackAdaptor(config.out_dim, config.stack, config.hidden_dim)
    params = jax.jit(module.init)(
        jax.random.key(seed), jnp.zeros((1, config.stack, config.encoder_dim))
    )["params"]
    return Part("stack_adaptor", config, jax.tree.map(np.asarray, params))


def check_parts(parts: Mapping[str, Part], thinker_dim: int, encoder_dim: int) -> None:
    """UserError if a Talker or an adaptor was made for a Thinker or an encoder of other sizes."""
    for name, part in parts.items():
        if told := KINDS[part.kind].misfit(part.config, thinker_dim, encoder_dim):
            raise UserError(f"the {name} {told}")


def assemble(
    folder: str | os.PathLike,
    release: Release,
    card: str,
    thinker: sources.OpenedThinker | None,
    encoder: sources.OpenedEncoder | None,
    how: How,
) -> int:
    """Writes the system folder and returns its size in bytes.

    Args:
      release: everything but Thinker and encoder. thinker, encoder: what is copied in; None: the
        release names what this package brings.
      how: dtype and progress of the two.

    Raises:
      UserError: the folder exists; whatever `export` refuses.
    """
    opened = {
        name: source
        for name, source in ((THINKER, thinker), (ENCODER, encoder))
        if source is not None
    }
    inside: dict[str, Any] = {name: name for name in opened}
    with complete_or_absent(folder) as part:
        for name, source in opened.items():
            write_opened(part / name, source, how)
        digests = {name: digest(part / name) for name in opened}
        # equal to the reference, and to stay so
        imported = [name for name, part in release.parts.items() if KINDS[part.kind].imported]
        save_release(
            part,
            dataclasses.replace(release, **inside),
            card,
            "bfloat16",
            exact=imported,
            digests=digests,
        )
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def digest(folder: Path) -> str:
    """By which an evaluation knows a folder of weights: names, sizes and both ends of its files."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        found.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            found.update(file.read(_ENDS))
            file.seek(max(size - _ENDS, 0))
            found.update(file.read(_ENDS))
    return found.hexdigest()[:16]
