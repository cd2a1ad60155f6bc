"""Voices for CosyVoice2's codec on disk: one small safetensors file (tokens, mel, speaker vector)
that says what it is and what it was made from.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt, check_prompt
from mdmspeech.codec.cosyvoice2.voice import voice_params
from mdmspeech.errors import UserError
from mdmspeech.interop.release import Part, Release
from mdmspeech.interop.tensors import read_metadata, read_tensors, write_tensors

FORMAT, VERSION = "mdmspeech-voice", "1"
_CURE = "make it again with `mdmspeech voice`"
_TENSORS = {"ids": (1, np.int32), "mel": (2, np.float32), "speaker": (1, np.float32)}  # axes, type


def save_voice(
    path: str | os.PathLike, prompt: Prompt, about: Mapping[str, str] | None = None
) -> int:
    """Writes a voice and returns the file's size in bytes. about: where it comes from, kept beside it."""
    tensors = {
        name: np.asarray(getattr(prompt, name), dtype) for name, (_, dtype) in _TENSORS.items()
    }
    try:
        write_tensors(path, tensors, {**(about or {}), "format": FORMAT, "version": VERSION})
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error}); use a folder that exists and can be written"
        ) from error
    os.chmod(path, 0o644)  # the safetensors library makes files that only their owner reads
    return Path(path).stat().st_size


def load_voice(path: str | os.PathLike) -> tuple[Prompt, dict[str, str]]:
    """A voice and what is said about it.

    Raises:
      UserError: not there, no voice, of another version, or with tensors that no voice has. Whether
        it fits a codec is told by the codec.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; make a voice with `mdmspeech voice`")
    about = read_metadata(path)
    if about.get("format") != FORMAT:
        raise UserError(f"{path} is no voice file; {_CURE}")
    if about.get("version") != VERSION:
        raise UserError(
            f"{path} has voice format {about.get('version', '?')[:20]}, this "
            f"program reads {VERSION}; {_CURE}, or update mdmspeech"
        )
    tensors = read_tensors(path)
    wrong = sorted(tensors.keys() ^ _TENSORS.keys())
    wrong += [
        name
        for name, (axes, dtype) in _TENSORS.items()
        if name in tensors and (tensors[name].ndim, tensors[name].dtype) != (axes, dtype)
    ]
    wrong += [
        name
        for name in ("mel", "speaker")
        if name not in wrong and not np.isfinite(tensors[name]).all()
    ]
    if wrong:
        raise UserError(
            f"{path} is damaged: its {', '.join(wrong[:6])} cannot be a voice's; {_CURE}"
        )
    return Prompt(**tensors), {
        key: value for key, value in about.items() if key not in ("format", "version")
    }


def voice_part(prompt: Prompt) -> Part:
    """A voice as a part of a release."""
    return Part("cosyvoice2_voice", *voice_params(prompt))


def with_voice(release: Release, path: str | os.PathLike) -> Release:
    """The release speaking with the voice in a file. Raises UserError: as `load_voice`; a codec
    that has no voices, or which it does not fit.
    """
    codec = release.part("codec").config
    if not isinstance(codec, CosyVoice2Config):
        raise UserError(
            f"release {release.name!r} has a codec with one voice of its own; "
            f"{path} is a voice for CosyVoice2's codec"
        )
    prompt, _ = load_voice(path)
    check_prompt(codec.flow, prompt, str(path))
    return dataclasses.replace(release, parts={**release.parts, "voice": voice_part(prompt)})
