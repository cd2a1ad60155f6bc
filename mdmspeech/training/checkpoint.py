"""Everything needed to go on, in one Orbax checkpoint per step: state, random key, data position,
clock, config.

Layout: `<workdir>/checkpoints/<step>/state` (arrays) and `.../about` (JSON). Saving is
asynchronous; a failed save is raised at the next call. A checkpoint that cannot be read is moved to
`<workdir>/corrupt/`, named, and the one before is used.

With several processes every one calls every method, each writes and reads its own pieces of the
arrays, and the lead writes the rest; `workdir` is a folder that all of them see. `<workdir>` may be
object storage (gs://...).
"""

import base64
import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    LatestN,
    PolicyCheckpointInfo,
    PreservationContext,
    PreservationPolicy,
)

from mdmspeech.config_names import upgrade_run
from mdmspeech.errors import UserError
from mdmspeech.training import distributed
from mdmspeech.training.config import differences
from mdmspeech.training.state import TrainState

for _name in ("absl", "orbax"):  # Orbax reports every save in a dozen lines
    logging.getLogger(_name).setLevel(logging.ERROR)


class Saved(NamedTuple):
    """Attributes: state; data, the position of the batches; seconds of training; log, numbers not
    yet in a line of the log.
    """

    state: TrainState
    data: Any
    seconds: float
    log: list[dict[str, float]]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: of the run.
      config: the run's config as nested dicts; stored, and compared when resuming.
      keep: how many of the newest are kept.
      best: ("min" or "max", name of a score): the checkpoint that is best by it is kept besides.
        ("", "") for none.
      say: where messages go.
    """

    def __init__(
        self,
        workdir: str | Path | epath.Path,
        config: dict[str, Any],
        keep: int = 2,
        best: tuple[str, str] = ("", ""),
        say: Callable[[str], None] = print,
    ):
        if best[1] and best[0] not in ("min", "max"):
            raise UserError(f"train.keep_best_mode is {best[0]!r}: use min or max")
        self.directory = absolute(workdir) / "checkpoints"
        self._corrupt = self.directory.parent / "corrupt"
        self._config = _plain(config)
        self._keep, self._mode, self._score, self._say = keep, *best, say
        self._manager = self._open()

    def save(
        self,
        state: TrainState,
        data_state: Any,
        seconds: float,
        log: list[dict[str, float]] | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Starts saving `state`; a no-op if its step is already saved. Raises what an earlier save
        ran into.

        Args:
          data_state: position of the batches: bytes, or anything JSON can hold.
          log: see `Saved`.
          scores: of an evaluation of this very state, if there was one.
        """
        step = int(state.step)
        self._manager.check_for_errors()
        if step in self._manager.all_steps():
            return
        arrays = _to_arrays(state)
        if jax.default_backend() == "cpu":
            # On CPU the host copy Orbax takes may be the device buffer itself, which the next
            # (donating) step overwrites.
            arrays = jax.tree.map(jnp.copy, arrays)
        kept = dict(scores or {})
        about = {
            "step": step,
            "seconds": seconds,
            "data": _merge_positions(distributed.gather(_encode(data_state))),
            "log": log or [],
            "scores": kept,
            "config": self._config,
            "sums": _checksums(arrays),
        }
        self._note(step, kept)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about)
        )
        self._manager.save(step, args=items)

    def is_best(self, scores: Mapping[str, float]) -> bool:
        """Whether a state with these scores is better than every checkpoint so far, by the score
        that `best` names.
        """
        if self._score not in scores:
            return False
        now, before = scores[self._score], self._scores.values()
        return all(now < b if self._mode == "min" else now > b for b in before)

    def restore(self, target: TrainState) -> Saved | None:
        """The newest readable checkpoint; None if the run is new.

        Args:
          target: a state, abstract or real, with the shapes and shardings to restore to. Neither
            the mesh nor the number of processes need be those it was saved with.

        Raises:
          UserError: the checkpoint is of another config, or none can be read.
        """
        steps = [
            sorted(s, reverse=True)
            for s in distributed.gather([int(s) for s in self._manager.all_steps()])
        ]
        if steps.count(steps[0]) < len(steps):
            raise UserError(
                f"{self.directory} does not hold the same on all hosts: give a "
                "--workdir that all of them share"
            )
        failed: list[tuple[int, str]] = []
        for step in steps[0]:
            about, arrays, problem = None, None, ""
            try:
                about = _read_about(self.directory, step)
                self._check_config(step, about["config"])
                # By the item's handler: the manager's restore waits for all processes, which one of
                # them may never reach.
                args = ocp.args.StandardRestore(_to_abstract(target))
                arrays = ocp.StandardCheckpointHandler().restore(
                    self.directory / str(step) / "state", args=args
                )
            except UserError:
                raise
            # Orbax and TensorStore raise a dozen types for damaged files
            except Exception as error:
                problem = _first_line(error)
            problem = next((p for p in distributed.gather(problem) if p), "")
            if not problem and about and _checksums(arrays) != about["sums"]:
                problem = "the arrays on disk are not those that were saved: checksums differ"
            if problem or not about:
                failed.append((step, problem))
                continue
            self._set_aside(failed)
            return Saved(
                _from_arrays(arrays),
                _decode(_own_position(about["data"])),
                float(about["seconds"]),
                about.get("log", []),
            )
        if failed:
            raise UserError(
                f"no checkpoint in {self.directory} can be read ({failed[0][0]}: "
                f"{failed[0][1]}): start in another workdir"
            )
        return None

    def newest(self) -> int | None:
        """The step of the newest, None if there is none."""
        return max((int(step) for step in self._manager.all_steps()), default=None)

    def wait(self) -> None:
        """Blocks until the last save is on disk; raises if it failed."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits and frees the threads."""
        self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(self._keep), _Best(self._best)]),
            create=True,
            cleanup_tmp_directories=True,  # of saves that a kill cut short
            enable_async_checkpointing=True,
        )
        manager = ocp.CheckpointManager(
            self.directory, options=options, item_names=("state", "about")
        )
        self._scores: dict[int, float] = {}
        stored = _stored_scores(self.directory) if self._score else []
        for step, scores in distributed.gather(stored)[0]:
            self._note(step, scores)
        return manager

    def _note(self, step: int, scores: Mapping[str, float]) -> None:
        if self._score in scores:
            self._scores[step] = scores[self._score]

    def _best(self) -> int | None:
        return _best_step(self._scores, self._mode)

    def _check_config(self, step: int, saved: dict[str, Any]) -> None:
        soft = _compare_configs(self.directory, step, saved, self._config)
        if soft:
            self._say(f"resuming with other settings: {'; '.join(soft)}")

    def _set_aside(self, failed: list[tuple[int, str]]) -> None:
        """Moves damaged checkpoints away, once an older one proved readable (else the fault may be
        elsewhere).
        """
        if not failed:
            return
        self._manager.close()
        if distributed.is_lead():
            self._corrupt.mkdir(parents=True, exist_ok=True)
            for step, problem in failed:
                place = self._corrupt / str(step)
                while place.exists():
                    place = place.with_name(place.name + "_")
                (self.directory / str(step)).rename(place)
                self._say(
                    f"checkpoint {step} cannot be read ({problem}): moved to "
                    f"{place}, using the one before"
                )
        distributed.barrier(f"set aside {failed}")
        self._manager = self._open()


class _Best(PreservationPolicy):
    """Keeps the best by our scores. Not Orbax's `BestN`: of equal ones it keeps the last, and what
    it reads is a file that no checkpoint of ours has.
    """

    def __init__(self, best: Callable[[], int | None]):
        self._best = best

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: PreservationContext
    ) -> list[bool]:
        """One answer for each checkpoint, the oldest first."""
        best = self._best()
        return [checkpoint.step == best for checkpoint in checkpoints]


def check_config(workdir: str | Path | epath.Path, config: dict[str, Any]) -> bool:
    """Whether a run has checkpoints; UserError if the newest is of another config. Nothing is
    changed on disk.
    """
    directory = absolute(workdir) / "checkpoints"
    steps = (
        sorted(
            (int(path.name) for path in directory.iterdir() if path.name.isdigit()), reverse=True
        )
        if directory.is_dir()
        else []
    )
    for step in steps:
        try:
            saved = _read_about(directory, step)["config"]
        except (OSError, ValueError, KeyError):  # damaged: `Checkpoints.restore` deals with it
            continue
        _compare_configs(directory, step, saved, _plain(config))
        break
    return bool(steps)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config, default=str))


def _compare_configs(
    directory: epath.Path, step: int, saved: dict[str, Any], config: dict[str, Any]
) -> list[str]:
    """What differs and may; UserError for what may not."""
    hard, soft = differences(upgrade_run(saved, f"checkpoint {step} in {directory}"), config)
    if hard:
        raise UserError(
            f"checkpoint {step} in {directory} is of another config "
            f"({'; '.join(hard[:5])}): use that config, or another workdir"
        )
    return soft


def absolute(path: str | Path | epath.Path) -> epath.Path:
    """The path in full; an address ("gs://...") stays as it is."""
    return epath.Path(path) if "://" in str(path) else epath.Path(path).expanduser().absolute()


def best_step(workdir: str | Path | epath.Path) -> int | None:
    """Step of the checkpoint that is best by its config's train.keep_best; None if none has that
    score.
    """
    directory = absolute(workdir) / "checkpoints"
    steps = (
        [int(p.name) for p in directory.iterdir() if p.name.isdigit()] if directory.exists() else []
    )
    if not steps:
        return None
    train = _read_about(directory, max(steps))["config"]["train"]
    name = train.get("keep_best", "")
    return _best_step(
        {step: scores[name] for step, scores in _stored_scores(directory) if name in scores},
        train.get("keep_best_mode", "min"),
    )


def _best_step(scores: Mapping[int, float], mode: str) -> int | None:
    """The first of the best: an equal score later on does not replace it."""
    sign = 1 if mode == "min" else -1
    return min(scores, key=lambda step: (sign * scores[step], step), default=None)


def _stored_scores(directory: epath.Path) -> list[tuple[int, dict[str, float]]]:
    found = []
    for path in directory.iterdir():
        if path.name.isdigit():
            try:
                found.append(
                    (int(path.name), _read_about(directory, int(path.name)).get("scores", {}))
                )
            # damaged, or half deleted when a run was killed: `restore` deals with it
            except (OSError, ValueError):
                continue
    return found


def _read_about(directory: epath.Path, step: int) -> dict[str, Any]:
    return json.loads((directory / str(step) / "about" / "metadata").read_text())


def _merge_positions(positions: list[dict[str, Any]]) -> dict[str, Any]:
    """One data position if all processes have the same, as they do if it is the position in the
    global stream.
    """
    return positions[0] if all(p == positions[0] for p in positions) else {"each": positions}


def _own_position(stored: dict[str, Any]) -> dict[str, Any]:
    if "each" not in stored:
        return stored
    each = stored["each"]
    if len(each) != jax.process_count():
        raise UserError(
            f"the checkpoint was saved by {len(each)} processes, each with a data position of its "
            f"own; here are {jax.process_count()}: start it with {len(each)}"
        )
    return each[jax.process_index()]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _to_arrays(state: TrainState) -> Any:
    """Typed keys cannot be stored; their bits can."""
    return state.replace(rng=jax.random.key_data(state.rng))


def _to_abstract(target: TrainState) -> Any:
    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    bits = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    bits = jax.ShapeDtypeStruct(bits.shape, bits.dtype, sharding=target.step.sharding)
    return jax.tree.map(shape, target.replace(rng=bits))


def _from_arrays(arrays: Any) -> TrainState:
    return arrays.replace(rng=jax.random.wrap_key_data(arrays.rng))


def _checksums_of(arrays: list[jax.Array]) -> jax.Array:
    words = [jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}") for x in arrays]
    return jnp.stack([w.astype(jnp.uint32).sum(dtype=jnp.uint32) for w in words])


def _checksums(arrays: Any) -> list[int]:
    """Checksum of each array, computed where it lies: TensorStore notices a missing piece, but not
    every flipped bit.
    """
    leaves = jax.tree.leaves(arrays)
    everywhere = NamedSharding(leaves[0].sharding.mesh, PartitionSpec())  # all processes compare
    return [int(s) for s in jax.device_get(_jitted_checksums(everywhere)(leaves))]


@functools.cache
def _jitted_checksums(sharding: NamedSharding) -> Callable[[list[jax.Array]], jax.Array]:
    return jax.jit(_checksums_of, out_shardings=sharding)


def _encode(data_state: Any) -> dict[str, Any]:
    if isinstance(data_state, bytes):
        return {"bytes": base64.b64encode(data_state).decode()}
    return {"json": data_state}


def _decode(stored: dict[str, Any]) -> Any:
    return base64.b64decode(stored["bytes"]) if "bytes" in stored else stored["json"]
