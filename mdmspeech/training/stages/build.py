"""From an experiment's config to its task: a look-up among the stages, each of which tells
everything of itself in its own file.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mdmspeech.config_names import check_names
from mdmspeech.errors import UserError
from mdmspeech.training.stages.stage import Loaders, Stage
from mdmspeech.training.task import Task

# Name -> module whose STAGE it is. Imported when looked up.
SHIPPED = {
    name: f"mdmspeech.training.stages.{name}"
    for name in ("codec", "talker", "hearing", "thinker", "thinker_sft", "phones")
}
_registered: dict[str, Stage] = {}


def register(stage: Stage) -> Stage:
    """Makes a stage known by its name; for one of your own, whose module your experiment file
    imports.
    UserError: the name is taken by another.
    """
    if stage.name in SHIPPED or _registered.get(stage.name, stage) != stage:
        raise UserError(f"there is a stage {stage.name!r} already: give yours another name")
    _registered[stage.name] = stage
    return stage


def known_stage(name: Any) -> Stage | None:
    """The stage of that name, of whatever stands in a config in its place; None if there is none."""
    if not isinstance(name, str):
        return None
    return import_module(SHIPPED[name]).STAGE if name in SHIPPED else _registered.get(name)


def stage_of(name: str) -> Stage:
    """The stage of that name. UserError: lists those that are known."""
    if stage := known_stage(name):
        return stage
    raise UserError(f"config.stage is {name!r}: use one of {', '.join((*SHIPPED, *_registered))}")


def make_task(
    config: ConfigDict,
    workdir: str | Path,
    root: str | Path | None = None,
    loaders: Loaders | None = None,
) -> Task:
    """The task of `config.stage`, reading the corpus under `root` (see
    `data.storage.record_store.data_root`). Nothing is loaded yet.

    `config.init_from` names what it starts from, a run or a part of a release ("compact"), see
    `start.find_start`; or "random". `config.init_fresh` and `config.init_ignored` name the
    parameters that may differ, see `warm_start.overwrite`.
    """
    stage = stage_of(config.stage)
    check_names(config)
    if missing := [name for name in stage.needs if name not in config]:
        raise UserError(
            f"config.stage is {config.stage!r}, but the experiment has no {missing[0]!r}: leave "
            "its stage as it was, or give --config an experiment of that stage"
        )
    return stage.from_config(config, Path(workdir).expanduser(), root, loaders or Loaders())
