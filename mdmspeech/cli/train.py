"""`mdmspeech train`: run (or resume) one training stage."""

import argparse
import importlib.util
import sys
from pathlib import Path

from mdmspeech.errors import UserError


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser("train", help="train one stage from an experiment file; resumes by itself")
    parser.add_argument("--config", required=True, metavar="FILE", help="experiment, for example experiments/compact_codec.py")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics, plots and samples go here")
    parser.add_argument("--data", metavar="DIR", help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting, for example train.steps=200")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    from mdmspeech.evaluation import samples
    from mdmspeech.interop.whisper_decoder import load_whisper_decoder
    from mdmspeech.training import loop
    from mdmspeech.training.stages.build import make_task

    config = load_config(args.config)
    for assignment in args.set:
        override(config, assignment)
    workdir = Path(args.workdir).expanduser()
    task = make_task(config, workdir, args.data, load_whisper_decoder)
    task.show = samples.show(config, workdir, args.data)
    loop.run(config, task, workdir)


def load_config(path: str):
    """The ConfigDict of an experiment file's `get_config()`."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no experiment file {path}; the repository's are in experiments/")
    root = str(file.resolve().parent.parent)  # experiments build on one another: `from experiments import ...`
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; name an experiment such as experiments/compact_codec.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} has no get_config()")
    return module.get_config()


def override(config, assignment: str) -> None:
    """Applies one KEY=VALUE, keeping the type the setting has."""
    key, _, text = assignment.partition("=")
    *path, last = key.split(".")
    node = config
    for name in path:
        node = node.get(name) if name in node else None
        if node is None:
            break
    if node is None or last not in node:
        raise UserError(f"--set {key}: the experiment has no such setting")
    old = node[last]
    try:
        node[last] = {"true": True, "false": False}[text.lower()] if isinstance(old, bool) else type(old)(text)
    except (KeyError, ValueError) as error:
        raise UserError(f"--set {key}={text}: expected a {type(old).__name__}") from error
