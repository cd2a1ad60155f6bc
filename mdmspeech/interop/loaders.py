"""What training loads of other people's making, by path: checkpoints whose sizes must be those of the experiment's config."""

import dataclasses
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.release import load_release
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.text.tokenizer import ChatTokenizer

_OURS = ("scan_layers", "lora_rank", "lora_alpha")  # settings that no checkpoint has


def load_thinker(path: str, config: ThinkerConfig) -> dict[str, Any]:
    """Parameters of the Thinker at `path` (see `sources.load_thinker`). UserError names each size in which it is another model than `config`."""
    loaded = sources.load_thinker(path, scan_layers=config.scan_layers)
    _same(path, config, loaded.config)
    return loaded.params


def load_encoder(path: str, config: SpeechEncoderConfig) -> dict[str, Any]:
    """Parameters of the speech encoder at `path` (see `sources.load_speech_encoder`). UserError as above."""
    loaded = sources.load_speech_encoder(path, scan_layers=config.scan_layers)
    _same(path, config, loaded.config)
    return loaded.params


def load_tokenizer(path: str) -> ChatTokenizer:
    """The tokenizer beside a Thinker's weights."""
    return ChatTokenizer.from_folder(path) if Path(path).is_dir() else sources.load_thinker(path).tokenizer


def load_part(release: str, part: str) -> dict[str, Any]:
    """Parameters of a part of a release ("compact", or a folder), to go on training from."""
    return load_release(release).part(part).params


def _same(path: str, wanted: Any, found: Any) -> None:
    pairs = ((field.name, getattr(wanted, field.name), getattr(found, field.name)) for field in dataclasses.fields(wanted))
    differ = [f"{name} {here!r}, there {there!r}" for name, here, there in pairs if here != there and name not in _OURS]
    if differ:
        raise UserError(f"{path} is another model than the experiment's: {'; '.join(differ)}; give its own checkpoint or change the config")
