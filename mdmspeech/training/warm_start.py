"""Parameters of an earlier run, to start another stage from."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mdmspeech.errors import UserError


def load_params(workdir: str | Path) -> Any:
    """The newest parameters in a run's checkpoints (the averaged ones if it keeps an EMA), as a nested dict of numpy arrays."""
    folder = Path(workdir).absolute() / "checkpoints"
    steps = sorted((int(p.name) for p in folder.glob("*") if p.name.isdigit()), reverse=True)
    if not steps:
        raise UserError(f"{folder} holds no checkpoint: train that stage first, or name another workdir")
    path = folder / str(steps[0]) / "state"
    checkpointer = ocp.StandardCheckpointer()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device), dict(checkpointer.metadata(path).item_metadata.tree)
    )
    state = checkpointer.restore(path, target)
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
