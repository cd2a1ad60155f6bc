"""From an experiment's configuration to plans: the task is built as for training, but no corpus, no
weights and no device are touched.
"""

import copy
import math
from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.planning.decode import find_way, speech_program, thinking_program
from mdmspeech.planning.plan import Plan, make_plan
from mdmspeech.planning.program import Program, train_program, train_state
from mdmspeech.planning.sweep import MOST_TENSOR, candidates, layouts, sweep
from mdmspeech.planning.topology import Topology
from mdmspeech.training.mesh import AXES
from mdmspeech.training.task import Task

# a step of training; a block of speech; a token of the Thinker
WHATS = ("train", "decode", "think")


class Planned:
    """One configuration, ready to be compiled for any slice.

    Args:
      name: for tables. what: of WHATS. way: of talking, for "decode", by its name in tables.
      make_task: (config) -> its task, for training; nothing of it is loaded.

    Raises:
      UserError: unknown `what` or `way`, or a configuration that has nothing of the kind.
    """

    def __init__(
        self,
        name: str,
        config: ConfigDict,
        what: str,
        make_task: Callable[[ConfigDict], Task],
        way: str = "",
    ):
        if what not in WHATS:
            raise UserError(f"what={what!r}: plan one of {', '.join(WHATS)}")
        part = {"decode": "talker", "think": "thinker"}.get(what)
        if part and part not in config:
            raise UserError(
                f"{name} has no {part.title()} (stage {config.get('stage')!r}): --what {what} needs "
                "one"
            )
        if what == "decode" and config.talker.get("anchors") == "prefix":
            raise UserError(
                f"{name}: a text in front of the speech is not decoded by the engine that --what "
                "decode plans"
            )
        self.name, self.config, self.what = name, config, what
        self.way = find_way(way) if what == "decode" else None
        self.task = make_task(config) if what == "train" else None

    def rows(self) -> int:
        """Of the configuration's global batch; for decoding one."""
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
            self.way.name if self.way else "",
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
        if not self.task:
            raise UserError(f"meshes are tried for training, not for --what {self.what}")
        fixed = {rows_of({"data": n, "fsdp": 1, "tensor": 1}) for n in (1, topology.chips)}
        rows = fixed.pop() if len(fixed) == 1 else 0
        state = lambda mesh: train_state(self.config, self.task, mesh)
        meshes, left_out = candidates(topology, rows, self.config.train.accum, state)
        return sweep(
            meshes, lambda sizes: self.plan(topology, sizes, rows_of(sizes), quick), tries
        ), left_out

    def try_layouts(
        self, topology: Topology, start: Plan, tries: int, quick: bool = False
    ) -> Iterator[Plan]:
        """Plans of the same step on the same mesh as `start`'s, with other remat policies and more or
        fewer rows at a time, see `sweep.layouts`.
        """

        def plan_of(remat: str, accum: int) -> Plan:
            other = copy.copy(self)
            other.config = copy.deepcopy(self.config)
            other.config.train.update(remat=remat, accum=accum)
            return other.plan(topology, start.mesh, start.rows, quick)

        return layouts(start, plan_of, tries)

    def _program(self, mesh: Mesh, rows: int) -> Program:
        if self.task:
            return train_program(self.config, self.task, mesh, rows)
        dtype = self.config.train.dtype
        if self.way:
            sizes = TalkerConfig(**self.config.talker)
            return speech_program(sizes, mesh, self.way, rows, dtype=dtype)
        return thinking_program(ThinkerConfig(**self.config.thinker), mesh, rows, dtype=dtype)


def decoding_mesh(what: str, chips: int) -> dict[str, int]:
    """Devices per axis where none are given: a Talker speaks on one chip, a Thinker's layers are
    split.
    """
    tensor = 1 if what == "decode" else math.gcd(chips, MOST_TENSOR)
    return dict(zip(AXES, (chips // tensor, 1, tensor), strict=True))


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
