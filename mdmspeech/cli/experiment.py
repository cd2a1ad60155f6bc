"""Experiment files: reading one, changing a setting, and making its task with everything that can
be loaded.
"""

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdmspeech.config_names import check_names, current_name, name_now
from mdmspeech.errors import UserError

# settings of which one is 0: how long a run is, and how long its warm-up
_EITHER = {"train.steps": "train.epochs", "optim.warmup": "optim.warmup_share"}
_EITHER |= {other: one for one, other in _EITHER.items()}


def load_config(path: str):
    """The ConfigDict of an experiment file's `get_config()`; of "FILE:ARG" that of
    `get_config(ARG)`, for example "experiments/talker_8b.py:runlocal".

    Raises:
      UserError: no such file, no `get_config`, or an argument it does not take.
    """
    name, _, argument = path.partition(".py:")
    file = Path(name + ".py" if argument else path)
    if not file.is_file():
        raise UserError(f"no experiment file {file}; the repository's are in experiments/")
    # experiments build on one another: `from experiments import ...`
    root = str(file.resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UserError(
            f"{path} is no Python file; name an experiment such as experiments/compact_codec.py"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{file} has no get_config()")
    if argument and not inspect.signature(module.get_config).parameters:
        raise UserError(f"{file} knows no {argument!r}: its get_config() takes no argument")
    try:
        return module.get_config(*([argument] if argument else []))
    except AttributeError as error:
        new = name_now(str(error.name)) if hasattr(error.obj, "to_dict") else None
        if not new:
            raise
        raise UserError(f"{path} reads {error.name} of a config: it is called {new} now") from error


def load_experiment(path: str):
    """As `load_config`; a UserError as well if what it gives is no config of an experiment, or has
    a setting under a name of before (`config_names`).
    """
    config = load_config(path)
    given = hasattr(config, "items")
    if missing := [
        name for name in ("stage", "train", "optim", "mesh") if not given or name not in config
    ]:
        raise UserError(
            f"{path}: its get_config() gives a {type(config).__name__} without {missing[0]!r}; "
            "return a config such as that of experiments/compact_talker.py"
        )
    check_names(config, path)
    return config


def override(config, assignment: str) -> None:
    """Applies one KEY=VALUE, keeping the type the setting has; a tuple is written with commas. Of
    two settings that say one thing (`_EITHER`) the last that is given counts.
    UserError: no such setting, or out of its range.
    """
    from flax.traverse_util import flatten_dict

    from mdmspeech.training.ranges import check_setting, choices_of

    key, _, text = assignment.partition("=")
    settings = flatten_dict(config.to_dict(), sep=".")
    # Looked up here because `update_from_flattened_dict` adds a misspelt setting, and knows neither
    # its type nor what was meant.
    if key not in settings:
        if new := current_name(config, key):
            raise UserError(f"--set {key}: {key} is called {new} now")
        if group := [name for name in settings if name.startswith(f"{key}.")]:
            raise UserError(
                f"--set {key}: this is a group of settings; give one of them, such as {group[0]}"
            )
        near = difflib.get_close_matches(key, settings, 3, 0.5)
        raise UserError(
            f"--set {key}: the experiment has no such setting"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    old = settings[key]
    try:
        value = _like(old, text)
        check_setting(key, value, choices_of(config.get("stage")))
    except UserError as error:
        raise UserError(f"--set {key}={text[:60]}: {error}") from error
    except (KeyError, ValueError, OverflowError) as error:
        raise UserError(f"--set {key}={text[:60]}: expected a {type(old).__name__}") from error
    other = _EITHER.get(key)
    if other and not value and key.startswith("train."):
        raise UserError(f"--set {key}={text}: {key} is 0: give a number above 0, or {other}")
    config.update_from_flattened_dict({key: value} | ({other: 0} if other in settings else {}))


def _like(old, text: str):
    if isinstance(old, bool):
        return {"true": True, "false": False}[text.lower()]
    if old is None:
        raise UserError(
            "it is unset in the experiment, so its type is not known; set it in the file"
        )
    if isinstance(old, tuple):
        if any(isinstance(item, (tuple, list)) for item in old):
            raise UserError("it is a table; set it in the file")
        kind = type(old[0]) if old else str
        return tuple(kind(part) for part in text.split(",") if part)
    return type(old)(text)


def use_system(config, folder: str) -> None:
    """Makes an experiment one of a system folder (`mdmspeech assemble`): its sizes, its
    weights, its Talker to start from. What the experiment says of training stays.

    Raises:
      UserError: no such folder, or a stage that has nothing to do with it.
    """
    from dataclasses import asdict

    from mdmspeech import remote
    from mdmspeech.interop import sources
    from mdmspeech.interop.release import fetch_all, read_about

    about = read_about(folder)
    fetch_all(about)
    if not {"thinker", "encoder", "talker"} & set(config):
        raise UserError(f"--system {folder}: stage {config.stage!r} trains no part of it")
    paths = {"thinker": about.thinker, "tokenizer": about.thinker, "encoder": about.encoder}
    openers: dict[str, Callable[[str], Any]] = {
        "thinker": sources.open_thinker,
        "encoder": sources.open_speech_encoder,
    }
    for name, opener in openers.items():
        if name in config:
            kept = {
                key: config[name][key]
                for key in ("scan_layers", "lora_rank", "lora_alpha")
                if key in config[name]
            }
            config[name] = {**asdict(opener(paths[name]).config), **kept}
    if "talker" in config:
        if "talker" not in about.parts:
            raise UserError(f"--system {folder}: it has no Talker to train")
        sizes: Any = about.parts["talker"][1]
        if (mine := config.talker.get("anchors", "paced")) != sizes.anchors:
            raise UserError(
                f"--system {folder}: its Talker has {sizes.anchors} anchors, this "
                f"experiment trains one with {mine} anchors"
            )
        # what the experiment adds to the trunk is its own
        config.talker = asdict(sizes) | {"mtp_modules": config.talker.get("mtp_modules", 0)}
        config.init_from = remote.origin(about.folder)
        if "init_part" in config:
            config.init_part = "talker"
    if "prompt" in config:
        config.prompt = asdict(about.prompt)
    for name in config.get("weights", {}):
        config.weights[name] = remote.origin(paths[name])


def make_task(config, workdir: Path, data: str | None = None):
    """The task of an experiment, with what this project can load. Nothing is loaded yet."""
    from mdmspeech.interop import loaders
    from mdmspeech.interop.whisper_decoder import load_whisper_decoder
    from mdmspeech.training.stages import build

    of_parts = loaders.load_part, loaders.describe_part
    known = build.Loaders(
        load_whisper_decoder,
        loaders.load_encoder,
        loaders.load_thinker,
        loaders.load_tokenizer,
        *of_parts,
        mark=loaders.thinker_mark,
    )
    return build.make_task(config, workdir, data, known)


def check_start(config, workdir, system: str | None = None) -> None:
    """Looks, before anything is loaded or written, at what an experiment starts from, and at its
    prompt; tells what is unusual.

    Raises:
      UserError: as `stages.start.check_start`; another prompt than that of the system folder it was
        given (`use_system`).
    """
    from mdmspeech.interop import loaders
    from mdmspeech.interop.release import read_about
    from mdmspeech.text.prompts import Prompt
    from mdmspeech.training.stages import build, start

    known = build.Loaders(release=loaders.load_part, describe=loaders.describe_part)
    told = start.check_start(config, workdir, known)
    if system and "prompt" in config:
        prompt, wanted = (
            Prompt.of(config.prompt.to_dict(), "config.prompt"),
            read_about(system).prompt,
        )
        if prompt != wanted:
            raise UserError(
                f"--set prompt: {prompt} is not that of --system {system}, {wanted} "
                f"({prompt.unlike(wanted)}): a system has one; leave it out, or assemble another "
                "system with it (mdmspeech assemble --system TEXT)"
            )
    if told:
        print(told, file=sys.stderr)
