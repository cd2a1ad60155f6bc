"""Everything needed to go on, in one Orbax checkpoint per step: state, random key, data position, clock, config.

Layout: `<workdir>/checkpoints/<step>/state` (arrays) and `.../about` (JSON). Saving is asynchronous; a failed save is raised at the
next call. A checkpoint that cannot be read is moved to `<workdir>/corrupt/`, named, and the one before is used.
"""

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mdmspeech.errors import UserError
from mdmspeech.training.config import differences
from mdmspeech.training.state import TrainState

for _name in ("absl", "orbax"):  # Orbax reports every save in a dozen lines
    logging.getLogger(_name).setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: of the run.
      config: the run's config as nested dicts; stored, and compared when resuming.
      keep: how many of the newest are kept.
      say: where messages go.
    """

    def __init__(self, workdir: Path, config: dict[str, Any], keep: int = 2, say: Callable[[str], None] = print):
        self.directory = Path(workdir).absolute() / "checkpoints"
        self._corrupt = self.directory.parent / "corrupt"
        self._config = json.loads(json.dumps(config, default=str))
        self._keep, self._say = keep, say
        self._manager = self._open()

    def save(self, state: TrainState, data_state: Any, seconds: float) -> None:
        """Starts saving `state`; a no-op if its step is already saved. Raises what an earlier save ran into."""
        step = int(state.step)
        self._manager.check_for_errors()
        if step in self._manager.all_steps():
            return
        arrays = _to_arrays(state)
        if jax.default_backend() == "cpu":
            # On CPU the host copy Orbax takes may be the device buffer itself, which the next (donating) step overwrites.
            arrays = jax.tree.map(jnp.copy, arrays)
        about = {"step": step, "seconds": seconds, "data": _encode(data_state), "config": self._config, "sums": _sums(arrays)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
        self._manager.save(step, args=items)

    def restore(self, like: TrainState) -> tuple[TrainState, Any, float] | None:
        """The newest readable checkpoint as (state, data position, training seconds); None if the run is new.

        Args:
          like: a state, abstract or real, with the shapes and shardings to restore to.

        Raises:
          UserError: the checkpoint is of another config, or none can be read.
        """
        failed: list[tuple[int, Exception]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
                self._check_config(step, about["config"])
                target = ocp.args.StandardRestore(_to_abstract(like))
                arrays = self._manager.restore(step, args=ocp.args.Composite(state=target))["state"]
                if _sums(arrays) != about["sums"]:
                    raise ValueError("the arrays on disk are not those that were saved: checksums differ")
                state = _from_arrays(arrays)
            except UserError:
                raise
            except Exception as error:  # Orbax and TensorStore raise a dozen types for damaged files
                failed.append((step, error))
            else:
                self._set_aside(failed)
                return state, _decode(about["data"]), float(about["seconds"])
        if failed:
            raise UserError(
                f"no checkpoint in {self.directory} can be read ({failed[0][0]}: {_first_line(failed[0][1])}): start in another workdir"
            )
        return None

    def wait(self) -> None:
        """Blocks until the last save is on disk; raises if it failed."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits and frees the threads."""
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=True, enable_async_checkpointing=True)
        return ocp.CheckpointManager(self.directory, options=options, item_names=("state", "about"))

    def _check_config(self, step: int, saved: dict[str, Any]) -> None:
        hard, soft = differences(saved, self._config)
        if hard:
            raise UserError(
                f"checkpoint {step} in {self.directory} is of another config ({'; '.join(hard[:5])}): use that config, or another workdir"
            )
        if soft:
            self._say(f"resuming with other settings: {'; '.join(soft)}")

    def _set_aside(self, failed: list[tuple[int, Exception]]) -> None:
        """Moves damaged checkpoints away, once an older one proved readable (else the fault may be elsewhere)."""
        if not failed:
            return
        self._manager.close()
        self._corrupt.mkdir(parents=True, exist_ok=True)
        for step, error in failed:
            target = self._corrupt / str(step)
            while target.exists():
                target = target.with_name(target.name + "_")
            (self.directory / str(step)).rename(target)
            self._say(f"checkpoint {step} cannot be read ({_first_line(error)}): moved to {target}, using the one before")
        self._manager = self._open()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _to_arrays(state: TrainState) -> Any:
    """Typed keys cannot be stored; their bits can."""
    return state.replace(rng=jax.random.key_data(state.rng))


def _to_abstract(like: TrainState) -> Any:
    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    bits = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    bits = jax.ShapeDtypeStruct(bits.shape, bits.dtype, sharding=like.step.sharding)
    return jax.tree.map(shape, like.replace(rng=bits))


def _from_arrays(arrays: Any) -> TrainState:
    return arrays.replace(rng=jax.random.wrap_key_data(arrays.rng))


@jax.jit
def _word_sums(arrays: list[jax.Array]) -> jax.Array:
    words = [jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}") for x in arrays]
    return jnp.stack([w.astype(jnp.uint32).sum(dtype=jnp.uint32) for w in words])


def _sums(arrays: Any) -> list[int]:
    """Checksum of each array, computed where it lies: TensorStore notices a missing piece, but not every flipped bit."""
    return [int(s) for s in jax.device_get(_word_sums(jax.tree.leaves(arrays)))]


def _encode(data_state: Any) -> dict[str, Any]:
    if isinstance(data_state, bytes):
        return {"bytes": base64.b64encode(data_state).decode()}
    return {"json": data_state}


def _decode(stored: dict[str, Any]) -> Any:
    return base64.b64decode(stored["bytes"]) if "bytes" in stored else stored["json"]
