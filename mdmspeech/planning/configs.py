"""From an experiment's configuration to plans: the task is built as for training, but no corpus, no
weights and no device are touched.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.planning.plan import Plan, make_plan
from mdmspeech.planning.program import (
    Program,
    decode_program,
    decode_state,
    train_program,
    train_state,
)
from mdmspeech.planning.sweep import candidates, sweep
from mdmspeech.planning.topology import Topology
from mdmspeech.training.mesh import AXES
from mdmspeech.training.task import Task

WHATS = ("train", "decode")


class Planned:
    """One configuration, ready to be compiled for any slice.

    Args:
      name: for tables. what: "train", or "decode" for one block of the Talker.
      make_task: (config) -> its task, for training; nothing of it is loaded.

    Raises:
      UserError: unknown `what`, or a decode of something that is no Talker.
    """

    def __init__(
        self, name: str, config: ConfigDict, what: str, make_task: Callable[[ConfigDict], Task]
    ):
        if what not in WHATS:
            raise UserError(f"what={what!r}: plan one of {', '.join(WHATS)}")
        if what == "decode" and "talker" not in config:
            raise UserError(
                f"{name} trains no Talker (stage {config.get('stage')!r}): --what decode needs one"
            )
        self.name, self.config, self.what = name, config, what
        self.task = make_task(config) if what == "train" else None

    def rows(self) -> int:
        """Of the configuration's global batch; for decoding one utterance."""
        return next(iter(self.task.batch_spec().values())).shape[0] if self.task else 1

    def plan(
        self, topology: Topology, sizes: dict[str, int], rows: int = 0, quick: bool = False
    ) -> Plan:
        """rows: of the global batch (or decoded together); 0 takes the configuration's. quick: see
        `make_plan`.
        """
        train = self.config.train
        settings = (
            {"remat": train.remat, "dtype": train.dtype, "accum": train.accum} if self.task else {}
        )
        plan = make_plan(
            self.name,
            self.what,
            topology,
            sizes,
            lambda mesh: self._program(mesh, rows or self.rows()),
            settings,
            quick,
        )
        jax.clear_caches()  # of the traced program: a long list of plans would fill the memory
        return plan

    def try_meshes(
        self,
        topology: Topology,
        rows_of: Callable[[dict[str, int]], int],
        tries: int,
        quick: bool = False,
    ) -> tuple[Iterator[Plan], list[tuple[dict[str, int], str]]]:
        """(plans of the most promising meshes as they are made, meshes left out and why). rows_of:
        rows of the global batch on a mesh.
        """
        fixed = {rows_of({"data": n, "fsdp": 1, "tensor": 1}) for n in (1, topology.chips)}
        rows = fixed.pop() if len(fixed) == 1 else 0
        accum = self.config.train.accum if self.task else 1
        meshes, left_out = candidates(topology, rows, accum, self._state)
        return sweep(
            meshes, lambda sizes: self.plan(topology, sizes, rows_of(sizes), quick), tries
        ), left_out

    def _program(self, mesh: Mesh, rows: int) -> Program:
        if self.task:
            return train_program(self.config, self.task, mesh, rows)
        return decode_program(
            _talker_config(self.config),
            mesh,
            rows,
            dtype=self.config.train.dtype,
            mode=self.config.get("mode", "mdm"),
        )

    def _state(self, mesh: Mesh) -> Any:
        return (
            train_state(self.config, self.task, mesh)
            if self.task
            else decode_state(_talker_config(self.config), mesh, self.config.train.dtype)
        )


def mesh_sizes(config: ConfigDict, chips: int, given: str = "") -> dict[str, int]:
    """ "data=2,fsdp=8" or the configuration's mesh -> devices per axis. A missing or negative data
    takes what is left; a missing axis is 1.
    UserError: more devices than chips, or a word that is no axis."""
    sizes = dict(config.mesh) if not given else {}
    for part in given.split(",") if given else ():
        axis, _, number = part.strip().partition("=")
        if axis not in AXES or not number.lstrip("-").isdigit():
            raise UserError(f"--mesh {given}: give devices per axis like data=2,fsdp=8,tensor=1")
        sizes[axis] = int(number)
    fsdp, tensor = (max(sizes.get(axis, 1), 1) for axis in ("fsdp", "tensor"))
    data = sizes.get("data", -1)
    data = data if data > 0 else chips // (fsdp * tensor)
    if not 0 < data * fsdp * tensor <= chips:
        raise UserError(
            f"mesh fsdp={fsdp} x tensor={tensor} needs "
            f"{max(data, 1) * fsdp * tensor} chips; the slice has {chips}"
        )
    return dict(zip(AXES, (data, fsdp, tensor), strict=True))


def _talker_config(config: ConfigDict) -> Any:
    from mdmspeech.models.talker import TalkerConfig

    return TalkerConfig(**config.talker)
