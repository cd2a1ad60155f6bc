"""Parameters of an earlier run, to start another stage from."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mdmspeech.errors import UserError
from mdmspeech.training.checkpoint import absolute, best_step


def load_params(workdir: str | Path | epath.Path, which: str = "latest") -> Any:
    """Parameters in a run's checkpoints (the averaged ones if it keeps an EMA), as a nested dict of numpy arrays.

    Args:
      which: "latest", or "best" by the run's train.keep_best.
    """
    folder = absolute(workdir) / "checkpoints"
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []
    if not steps:
        raise UserError(f"{folder} holds no checkpoint: train that stage first, or name another workdir")
    step = max(steps) if which == "latest" else best_step(workdir)
    if step is None:
        raise UserError(f"{folder}: no checkpoint has a score to be the best by: train it with train.keep_best, or load the latest")
    path = folder / str(step) / "state"
    handler = ocp.StandardCheckpointHandler()  # unlike a checkpointer it waits for no other process
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tree = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device), dict(handler.metadata(path).tree))
    state = handler.restore(path, args=ocp.args.StandardRestore(tree))
    return jax.tree.map(np.asarray, state["ema"] if state.get("ema") is not None else state["params"])


def overwrite(params: Any, loaded: Any, where: str = "") -> Any:
    """`params` with every leaf that `loaded` has replaced by it; shapes must agree. Leaves that `loaded` lacks stay fresh."""
    if not isinstance(params, dict):
        if params.shape != loaded.shape:
            raise UserError(
                f"parameter {where} has shape {tuple(loaded.shape)} in the earlier run and {tuple(params.shape)} here: use its model config"
            )
        return jax.numpy.asarray(loaded, params.dtype)
    return {k: overwrite(v, loaded[k], f"{where}/{k}") if k in loaded else v for k, v in params.items()}
