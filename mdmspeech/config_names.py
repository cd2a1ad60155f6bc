"""One dialect of configuration fields, and the names that some fields had before.

The rule (docs/glossary.md, "Fields of configurations"): `dim`, `num_layers`, `num_heads`,
`num_kv_heads`, `head_dim`, `ffn_dim`, `vocab_size`, `num_mels` are a model's own; those of one part
of it, or of what it reads, have that part's name before them: `decoder_dim`, `decoder_num_layers`,
`text_dim`.

Configs that were stored under the old names open as before: whoever reads one calls `upgrade` or
`upgrade_run`. Whoever types an old name today is told the new one. Nothing here imports JAX.
"""

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from mdmspeech.errors import UserError

_Class = TypeVar("_Class")

# Config dataclass -> {old name of a field: its name}
RENAMED: dict[str, dict[str, str]] = {
    "TalkerConfig": {
        "width": "dim",
        "layers": "num_layers",
        "heads": "num_heads",
        "kv_heads": "num_kv_heads",
        "ffn": "ffn_dim",
        "text_width": "text_dim",
        "text_rows": "text_vocab_size",
    },
    "StackConfig": {"states": "encoder_dim"},
    "CTCConfig": {"states": "encoder_dim", "width": "dim", "layers": "num_layers"},
    "Seq2SeqConfig": {
        "states": "encoder_dim",
        "width": "dim",
        "layers": "num_layers",
        "heads": "num_heads",
        "ffn": "ffn_dim",
    },
    "PhoneClassifierConfig": {"states": "encoder_dim", "width": "dim"},
    "CompactCodecConfig": {
        "n_mels": "num_mels",
        "encoder_width": "encoder_dim",
        "encoder_layers": "encoder_num_layers",
        "decoder_width": "decoder_dim",
        "decoder_layers": "decoder_num_layers",
        "frame_width": "frame_dim",
    },
    "FlowEncoderConfig": {"num_blocks": "num_layers", "num_up_blocks": "up_num_layers"},
    "FlowEstimatorConfig": {"stage_blocks": "stage_num_layers"},
    "HiFTConfig": {"n_mels": "num_mels", "f0_layers": "f0_num_layers"},
    "VocalNetConfig": {
        "width": "dim",
        "heads": "num_heads",
        "ffn": "ffn_dim",
        "projector_layers": "projector_num_layers",
        "layers": "num_layers",
    },
}
# Stage -> {section of its experiments ("": the top): {old name: name}}. Stages that people add
# name their settings as they like.
SECTIONS: dict[str, dict[str, dict[str, str]]] = {
    "codec": {"codec": RENAMED["CompactCodecConfig"]},
    "talker": {"talker": RENAMED["TalkerConfig"]},
    "hearing": {
        "adaptor": RENAMED["Seq2SeqConfig"]
    },  # and of CTCConfig, whose names are among them
    "phones": {"aligner": RENAMED["PhoneClassifierConfig"]},
    "thinker": {"": {"hidden": "hidden_dim"}},
}


def upgrade(kind: str, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A stored config with today's names; the order and all else stay.

    Args:
      kind: name of its dataclass, see `RENAMED`. stored: field -> value. where: for errors.

    Raises:
      UserError: it has a field under both names.
    """
    return _renamed(RENAMED.get(kind, {}), stored, where, "")


def upgrade_run(stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same of a whole experiment, as a run's config.json or its checkpoints have it."""
    config = dict(stored)
    for section, names in _sections(config).items():
        if not section:
            config = _renamed(names, config, where, "")
        elif isinstance(config.get(section), Mapping):
            config[section] = _renamed(names, config[section], where, f"{section}.")
    return config


def _renamed(
    names: Mapping[str, str], stored: Mapping[str, Any], where: str, before: str
) -> dict[str, Any]:
    if twice := [old for old in stored if names.get(old) in stored]:
        old, new = f"{before}{twice[0]}", f"{before}{names[twice[0]]}"
        raise UserError(
            f"{where}: it has both {old} and {new}, the old and the new name of one field: "
            f"take {old} out"
        )
    return {names.get(key, key): value for key, value in stored.items()}


def _sections(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    stage = config.get("stage")
    return SECTIONS.get(stage, {}) if isinstance(stage, str) else {}


def current_name(config: Mapping[str, Any], key: str) -> str | None:
    """What a dotted setting of an experiment is called now, if `key` is its old name; else None."""
    section, _, field = key.rpartition(".")
    new = _sections(config).get(section, {}).get(field)
    return None if new is None else f"{section}.{new}".lstrip(".")


def check_names(config: Mapping[str, Any], where: str = "") -> None:
    """A UserError if an experiment has a setting under its old name; it says the new one."""
    for section, names in _sections(config).items():
        inside: Any = config.get(section) if section else config
        for old in names:
            if hasattr(inside, "keys") and old in inside:
                key = f"{section}.{old}".lstrip(".")
                raise UserError(
                    f"{where and f'{where}: '}{key} is called {current_name(config, key)} now"
                )


def name_now(old: str) -> str | None:
    """What a field of that old name is called now, in whatever config; None if no field had it."""
    names = [*RENAMED.values(), *(names for stage in SECTIONS.values() for names in stage.values())]
    return next((table[old] for table in names if old in table), None)


def renamed_fields(cls: type[_Class]) -> type[_Class]:
    """Decorates a config dataclass of `RENAMED`: making one with an old name is a UserError that
    says the new one.
    """
    names, init = RENAMED[cls.__name__], vars(cls)["__init__"]

    @functools.wraps(init)
    def checked(self, *args, **kwargs):
        for old in kwargs:
            if old in names:
                raise UserError(f"{cls.__name__}: {old} is called {names[old]} now")
        init(self, *args, **kwargs)

    setattr(cls, "__init__", checked)  # noqa: B010 (mypy knows no assignment to it)
    return cls
