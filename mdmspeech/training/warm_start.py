"""Parameters of an earlier run, to start another stage from."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from mdmspeech.errors import UserError
from mdmspeech.training.checkpoint import absolute, best_step

_NAMED = 4  # parameters in an error


def load_params(workdir: str | Path | epath.Path, which: str = "latest") -> Any:
    """Parameters in a run's checkpoints (the averaged ones if it keeps an EMA), as a nested dict of
    numpy arrays.

    Args:
      which: "latest", or "best" by the run's train.keep_best.
    """
    folder = absolute(workdir) / "checkpoints"
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []
    if not steps:
        raise UserError(
            f"{folder} holds no checkpoint: train that stage first, or name another workdir"
        )
    step = max(steps) if which == "latest" else best_step(workdir)
    if step is None:
        raise UserError(
            f"{folder}: no checkpoint has a score to be the best by: train it with "
            "train.keep_best, or load the latest"
        )
    path = folder / str(step) / "state"
    handler = ocp.StandardCheckpointHandler()  # unlike a checkpointer it waits for no other process
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tree = jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device),
        dict(handler.metadata(path).tree),
    )
    state = handler.restore(path, args=ocp.args.StandardRestore(tree))
    return jax.tree.map(
        np.asarray, state["ema"] if state.get("ema") is not None else state["params"]
    )


def overwrite(
    params: Any, loaded: Any, *, fresh: Sequence[str] = (), ignored: Sequence[str] = ()
) -> Any:
    """`params` (nested dicts) with every array replaced by that of `loaded`, which must have the
    same ones, of the same shapes.

    Args:
      fresh: regular expressions over whole paths ("layers_3/.*"): these of `params` stay as they
        are, in `loaded` or not.
      ignored: likewise, these of `loaded` are not wanted.

    Raises:
      UserError: names arrays that only one of the two has, and those of another shape; an
        expression that matches nothing.
    """
    ours, theirs = _leaves(params), _leaves(loaded)
    kept, dropped = _matching(fresh, ours, "init_fresh"), _matching(ignored, theirs, "init_ignored")
    wanted, offered = ours.keys() - kept, theirs.keys() - dropped - kept
    complaints = {
        "that the earlier run lacks (to start them fresh: init_fresh)": sorted(wanted - offered),
        "that only the earlier run has (to leave them out: init_ignored)": sorted(offered - wanted),
    }
    if told := [f"{_some(names)} {what}" for what, names in complaints.items() if names]:
        raise UserError(
            f"parameters differ: {'; '.join(told)}: use the earlier run's model "
            "config, or name what is meant to differ"
        )
    for path in sorted(wanted):
        if ours[path].shape != theirs[path].shape:
            raise UserError(
                f"parameter {path} has shape {tuple(theirs[path].shape)} in the earlier run and "
                f"{tuple(ours[path].shape)} here: use its model config"
            )
    new = {
        path: jax.numpy.asarray(theirs[path], leaf.dtype) if path in wanted else leaf
        for path, leaf in ours.items()
    }
    return unflatten_dict(new, sep="/")


def _leaves(tree: Any) -> dict[str, Any]:
    return flatten_dict(tree, sep="/", keep_empty_nodes=False)


def _matching(patterns: Sequence[str], leaves: Mapping[str, Any], setting: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        try:
            matched = {path for path in leaves if re.fullmatch(pattern, path)}
        except re.error as error:
            raise UserError(f"{setting} {pattern!r} is no regular expression ({error})") from error
        if not matched:
            raise UserError(
                f"{setting} {pattern!r} matches no parameter, of "
                f"{_some(sorted(leaves))}; it must match a whole path"
            )
        found |= matched
    return found


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
