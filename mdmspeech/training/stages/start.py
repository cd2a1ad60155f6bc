"""Where a stage starts from: an earlier run, or a part of a release. It is found and looked at
before anything is loaded.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from mdmspeech import remote
from mdmspeech.config_names import upgrade_run
from mdmspeech.data.pipelines.conversations import Prompt
from mdmspeech.errors import UserError
from mdmspeech.training.checkpoint import absolute
from mdmspeech.training.stages.build import known_stage, stage_of
from mdmspeech.training.stages.stage import Origin
from mdmspeech.training.warm_start import load_params

# in place of a path or an earlier run: fresh parameters, to try a configuration out
RANDOM = "random"
_CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class Start:
    """What an experiment's `init_from` names.

    Attributes:
      name: for people.
      params: reads the parameters.
      trained: False for a part that `mdmspeech assemble` drew at random.
      autoregressive: see `stage.Origin`.
      prompt: after which it was trained, if it reads the Thinker's states, else None.
    """

    name: str
    params: Callable[[], Any]
    trained: bool = True
    autoregressive: bool = False
    prompt: Prompt | None = None


def find_start(config: ConfigDict, workdir: epath.PathLike, loaders: Any) -> Start | None:
    """The run or release that `config.init_from` names; None for "" and "random".

    It is looked for as given (a relative path from the current directory), then beside the workdir,
    then among the shipped releases. `config.init_part` is the part of a release that is meant, by
    default that of the stage's name. loaders: `build.Loaders`.

    Raises:
      UserError: names the places where nothing was, or the parts that a release has.
    """
    name = str(config.get("init_from", ""))
    if name in ("", RANDOM):
        return None
    if remote.is_remote(name):
        places = {name: None}
    else:
        beside = absolute(workdir).parent / epath.Path(name).expanduser()
        places = dict.fromkeys(map(str, (absolute(name), absolute(beside))))
    for place in places:
        if remote.is_dir(remote.join(place, "checkpoints")):
            return _run(place)
        if loaders.release is not None and "format" in _about(place):
            return _release(place, config, loaders)
    told = (
        f"init_from {name!r}: {' and '.join(map(str, places))} "
        f"hold{'s' if len(places) == 1 else ''} no checkpoint"
    )
    cure = "train that stage first, or name another folder (--set init_from=DIR)"
    if loaders.release is None or not name.isidentifier():
        raise UserError(f"{told} and no release: {cure}")
    try:
        return _release(name, config, loaders)
    except UserError as error:
        raise UserError(f"{told}: {cure}; and {error}") from error


def check_start(config: ConfigDict, workdir: epath.PathLike, loaders: Any) -> str:
    """Looks at an experiment's prompt and start before it is trained; what a user should know of
    them, or "".

    Raises:
      UserError: as `find_start`; a teacher (of self-distillation) that is untrained, writes one
        token after another, or was trained after another prompt; a prompt that is none.
    """
    prompt = Prompt.of(config.prompt.to_dict(), "config.prompt") if "prompt" in config else None
    teaches = stage_of(config.stage).teaches(config)
    resumed = (absolute(workdir) / "checkpoints").is_dir()
    start = find_start(config, workdir, loaders) if teaches or not resumed else None
    if start is None:
        return ""
    differs = start.prompt is not None and prompt is not None and start.prompt != prompt
    if teaches:
        cure = "name the run of stage 2 (--set init_from=RUN)"
        if not start.trained:
            raise UserError(
                f"the Talker of {start.name} is untrained and would be the "
                f"teacher of self-distillation, which teaches nothing: {cure}"
            )
        if start.autoregressive:
            raise UserError(
                f"the Talker of {start.name} writes one token after another and "
                f"cannot fill masks, as a teacher must: {cure}"
            )
        if differs and start.prompt and prompt:
            raise UserError(
                f"the teacher in {start.name} was trained after the prompt {start.prompt}, this "
                f"experiment has {prompt} ({start.prompt.unlike(prompt)}): give both the same "
                "(--system of the folder the teacher was trained on, or --set prompt.system=TEXT)"
            )
        return ""
    if not start.trained:
        return f"{start.name} is untrained: this stage starts from random parameters"
    return (
        (
            f"{start.name} was trained after another prompt ({start.prompt}) than this "
            f"run will be ({prompt})"
        )
        if differs
        else ""
    )


def _run(folder: str) -> Start:
    about = _about(folder)
    stage = known_stage(about.get("stage"))
    origin = stage.origin(about) if stage else Origin()
    told = origin.reads_prompt and isinstance(about.get("prompt"), dict)
    return Start(
        folder,
        lambda: load_params(absolute(folder)),
        autoregressive=origin.autoregressive,
        prompt=Prompt.of(about["prompt"], remote.join(folder, _CONFIG)) if told else None,
    )


def _release(name: str, config: ConfigDict, loaders: Any) -> Start:
    part = config.get("init_part", config.stage)
    told = (True, False, None) if loaders.describe is None else loaders.describe(name, part)
    return Start(name, lambda: loaders.release(name, part), *told)


def _about(folder: str) -> dict[str, Any]:
    """The config.json of a run or of a release; {} where there is none, or no readable one, which
    whoever opens the folder will say.
    """
    file = remote.join(folder, _CONFIG)
    if not remote.is_file(file):
        return {}
    try:
        about = json.loads(remote.read_bytes(file))
    except (UserError, ValueError):
        return {}
    return upgrade_run(about, file) if isinstance(about, dict) else {}
