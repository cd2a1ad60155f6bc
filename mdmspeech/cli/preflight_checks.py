"""The checks of `mdmspeech preflight`, each of which says what it has found, or raises a `UserError`.

C chips in all slices, B rows of the global batch.
"""

import argparse
import functools
import importlib.util
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from mdmspeech import remote
from mdmspeech.cli.experiment import (
    check_start,
    load_experiment,
    make_task,
    override,
    use_system,
)
from mdmspeech.errors import UserError
from mdmspeech.training.ranges import check_ranges
from mdmspeech.training.task import Task

RANDOM = "random"
_SHIPPED_WEIGHTS = ("whisper-base",)  # names that the installed package has


def look(args: argparse.Namespace) -> Iterator[tuple[str, str | UserError]]:
    """(check, what it says) one after another. args: of `mdmspeech preflight`."""
    try:
        config = _config(args)
        task = make_task(config, Path("unused"), args.data)
        spec = task.batch_spec()
    except UserError as error:
        yield "settings", error
        return
    rows = next(iter(spec.values())).shape[0]
    yield "settings", f"{args.config}, stage {config.stage}, {rows} rows a step"
    account = None
    if args.disks == "empty":
        try:
            told, account = _account(args)
            yield "account", told
        except UserError as error:
            yield "account", error
    checks: list[tuple[str, Callable[[], str]]] = [
        ("weights", lambda: _weights(config, args)),
        ("start", lambda: _start(config, args)),
        ("workdir", lambda: _workdir(config, args)),
        ("data", lambda: _data(config, args)),
        ("batch", lambda: _batch(config, rows, args)),
    ]
    fits = True
    for name, check in checks:
        try:
            with remote.acting_as(account):
                outcome: str | UserError = check()
        except UserError as error:
            fits &= name != "batch"
            outcome = error
        yield name, outcome
    if args.topology and fits:
        try:
            yield "memory", _memory(config, task, rows, args)
        except UserError as error:
            yield "memory", error


def _config(args: argparse.Namespace) -> ConfigDict:
    """As `mdmspeech train` makes it."""
    config = load_experiment(args.config)
    if args.system and _can_look(args.system, args.disks):
        use_system(config, args.system)
    for assignment in args.set:
        override(config, assignment)
    check_ranges(config)
    return config


def _can_look(place: str, disks: str) -> bool:
    """Whether a place can be looked at from here. A name of a shipped release can."""
    return disks != "there" or remote.is_remote(place) or place.isidentifier()


def _system_folder(args: argparse.Namespace) -> str:
    """The system that was given, as settings name it; "" for none, or one that is elsewhere."""
    from mdmspeech.interop.release import read_about

    if not args.system or not _can_look(args.system, args.disks):
        return ""
    return str(remote.origin(read_about(args.system).folder))


# ---- What it starts from, where it writes ---------------------------------------------------------


def _account(args: argparse.Namespace) -> tuple[str, Any]:
    """(what is said of it, its credentials): of the machines' service account, None where it cannot
    be known what it may.
    """
    if not args.account:
        return "NOT KNOWN which the machines have: buckets are looked at as you alone", None
    try:
        credentials = remote.credentials_of(args.account)
    except remote.NotKnown as unknown:
        return f"NOT KNOWN, buckets are looked at as you alone: {unknown}", None
    return f"buckets are looked at as {args.account}", credentials


def _weights(config: ConfigDict, args: argparse.Namespace) -> str:
    """Of each published part: it is where the machines will find it, and the experiment's model. Its
    weights are not read.
    """
    told, system = [], _system_folder(args)
    for name, path in config.get("weights", {}).items():
        key, path = f"weights.{name}", str(path)
        if not path:
            raise UserError(
                f"{key} is empty: name a checkpoint (--set {key}=PATH), give --system, or 'random' "
                "to try things out"
            )
        if path == RANDOM:
            told.append(f"{name} random")
            continue
        fetched = remote.is_remote(path) or path in _SHIPPED_WEIGHTS
        if args.disks == "empty" and not fetched and not path.startswith(f"{system or path}/"):
            raise UserError(
                f"{key} is {path!r}, but the machines begin with empty disks: copy it to a bucket "
                f"and give --set {key}=gs://BUCKET/FOLDER, or give a whole system by --system"
            )
        if args.disks == "there" and not fetched:
            told.append(f"{name}, on the machines: not looked at")
            continue
        try:
            _open(config, name, path)
        except UserError as error:
            raise UserError(f"{key}={remote.shown(path)}: {error}") from error
        told.append(f"{name} is that of the experiment")
    return ", ".join(told) or "none are read"


def _open(config: ConfigDict, name: str, path: str) -> None:
    from mdmspeech.interop import loaders
    from mdmspeech.models.speech_encoder import SpeechEncoderConfig
    from mdmspeech.models.thinker import ThinkerConfig

    if name == "thinker":
        loaders.open_thinker(path, ThinkerConfig(**config.thinker))
    elif name == "encoder":
        loaders.open_encoder(path, SpeechEncoderConfig(**config.encoder))
    elif name == "tokenizer":
        loaders.load_tokenizer(path)


def _start(config: ConfigDict, args: argparse.Namespace) -> str:
    name = str(config.get("init_from", ""))
    if name in ("", RANDOM):
        return "fresh parameters"
    if not _can_look(name, args.disks):
        return f"{name}, on the machines: not looked at"
    if name == _system_folder(args):
        check_start(config, epath.Path(args.workdir).expanduser(), args.system)
        return f"the Talker of {args.system}"
    if args.disks == "empty" and not remote.is_remote(name) and not name.isidentifier():
        above = Path(name).is_absolute() or ".." in Path(name).parts
        beside = "" if above else remote.join(remote.parent(args.workdir), name, "checkpoints")
        if above or not remote.is_dir(beside):
            raise UserError(
                f"init_from is {name!r}, but the machines begin with empty disks: copy that run to "
                "a bucket and give --set init_from=gs://BUCKET/RUN"
            )
    check_start(config, epath.Path(args.workdir).expanduser(), args.system)
    return f"{name} is there"


def _workdir(config: ConfigDict, args: argparse.Namespace) -> str:
    """Written to, read, and cleaned; and what is there is of the same config."""
    from mdmspeech.training.checkpoint import check_config
    from mdmspeech.training.workdir import check_workdir

    place, access = args.workdir, ""
    if not _can_look(place, args.disks):
        return f"{place}, on the machines: not looked at"
    workdir = epath.Path(place).expanduser()
    if remote.is_remote(place):
        with remote.acting_as(None):  # a launcher brings the code there
            _probe(place)
        access = "written, read and removed a probe, as you; "
        if remote.acting() is not None:
            try:
                _probe(place)
            except UserError as error:
                raise UserError(f"as {args.account}, the machines' account: {error}") from error
            access = f"written, read and removed a probe, as you and as {args.account}; "
    else:
        check_workdir(workdir)
    going_on = check_config(workdir, config.to_dict())
    _check_hours(config, workdir)
    found = "goes on from its checkpoints" if going_on else "a new run"
    return f"{access}{found}"


def _probe(place: str) -> None:
    """Writes, reads and removes a small object."""
    probe, text = remote.join(place, "launch", f"preflight-{uuid.uuid4().hex}"), "a probe"
    remote.write_text(probe, text)
    read = remote.read_text(probe)
    remote.remove(probe)
    if read != text:
        raise UserError(f"{remote.shown(probe)} reads {read!r}, not what was written to it")


def _check_hours(config: ConfigDict, workdir: epath.Path) -> None:
    from mdmspeech.training.goodput import hours, read_goodput

    starts = read_goodput(workdir / "ledger.json").get("starts", [])
    most, spent = config.train.max_hours, hours(starts)
    if most and spent >= most:
        raise UserError(
            f"the {most:g} hours of train.max_hours are used up: {len(starts)} starts of this run took "
            f"{spent:.1f}; give more (--max-hours of a launcher), or another --workdir"
        )


# ---- Data -----------------------------------------------------------------------------------------


def _data(config: ConfigDict, args: argparse.Namespace) -> str:
    """The index of every part is opened, and tokens are of one codec, the system's."""
    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.storage.record_store import chosen_root

    parts = tuple(config.data.get("parts", ()))
    if parts == (RANDOM,):
        return "random"
    if args.disks == "empty" and not args.data:
        raise UserError(
            "no data: the machines begin with empty disks; give --data gs://BUCKET/CORPUS (or a "
            "folder here, which a launcher copies there)"
        )
    place = chosen_root(args.data)
    if not _can_look(place, "there" if args.disks == "there" else "here"):
        return f"{place}, on the machines: not looked at"
    root, real = args.data, tuple(part for part in parts if part != RANDOM)
    needs_text = "talker" in config and config.talker.get("anchors", "paced") != "paced"
    readers: dict[str, Callable[[], Any]] = {
        "talker": lambda: corpus.tokens(root, real, "train", needs_text=needs_text),
        "codec": lambda: corpus.speech(root, real, "train"),
        "thinker": lambda: corpus.questions(root, "train", parts=real),
        "hearing": lambda: corpus.states(root, "questions", "train"),
        "phones": lambda: corpus.states(root, "phones", "train"),
    }
    if config.stage not in readers:
        return f"stage {config.stage} is not one of ours: not looked at"
    records = readers[config.stage]()
    told = f"{len(records):,} records to train on"
    if config.stage != "talker":
        return told
    (made_by,) = {str(dataset.about.get("codec")) for dataset in records.datasets}
    source, wanted = _codec(config, args)
    if wanted and made_by != wanted:
        raise UserError(
            f"the tokens in {remote.shown(records.datasets[0].folder)} are of codec {made_by}, "
            f"that of {source} is {wanted}: make them anew (mdmspeech data --tokens --codec "
            f"{source} --parts {' '.join(real)}), or train on the system they were made by"
        )
    return f"{told}, tokens of codec {made_by}{f', that of {source}' if wanted else ''}"


def _codec(config: ConfigDict, args: argparse.Namespace) -> tuple[str, str]:
    """(what says which codec it must be, its fingerprint); "" for both where nothing says it."""
    from mdmspeech.data.datasets.make import fingerprint
    from mdmspeech.interop.hub import parse
    from mdmspeech.interop.release import load_part, read_about

    start = str(config.get("init_from", ""))
    if parse(start):  # a run that is not here is not asked for on the Hub
        start = str(Path(start).absolute())
    for source in (args.system, start):
        if not source or source == RANDOM or not _can_look(source, args.disks):
            continue
        try:
            parts = read_about(source).parts
        except UserError:  # a run: it does not know the codec
            continue
        if "codec" in parts:
            return source, fingerprint(load_part(source, "codec").params)
    return "", ""


# ---- Chips ----------------------------------------------------------------------------------------


def mesh_of(config: ConfigDict, chips: int, slices: int = 1) -> dict[str, int]:
    """Devices of one slice for each axis of the mesh that C chips make.

    Raises:
      UserError: they do not make one, or some of them would have nothing to do.
    """
    mesh = config.mesh
    data, fsdp, tensor = (int(mesh.get(axis, 1)) for axis in ("data", "fsdp", "tensor"))
    one = chips // slices
    inside = fsdp * tensor
    if inside > one or one % inside:
        raise UserError(
            f"mesh.fsdp={fsdp} x mesh.tensor={tensor} does not divide the {one} chips"
            f"{' of a slice' if slices > 1 else ''}: set them so that it does"
        )
    whole = chips // inside
    if data not in (-1, whole):
        raise UserError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} has {data * inside} places for "
            f"{chips} chips: set mesh.data=-1, which takes all, or ask for as many chips"
        )
    return {"data": whole // slices, "fsdp": fsdp, "tensor": tensor}


def _batch(config: ConfigDict, rows: int, args: argparse.Namespace) -> str:
    if args.topology:
        chips = _topology(args).chips * args.slices
    elif args.chips:
        chips = args.chips
    else:
        return f"{rows} rows on an unknown number of devices"
    sizes = mesh_of(config, chips, args.slices)
    shards, accum = sizes["data"] * sizes["fsdp"] * args.slices, config.train.accum
    if rows % (shards * accum):
        least = shards * accum
        below = rows // least * least
        more = f"{below} or {below + least}" if below else str(least)
        raise UserError(
            f"{rows} rows (data.batch) do not divide into {shards} data-parallel chips x "
            f"train.accum={accum}: set data.batch to a multiple of {least} ({more}), or more "
            f"mesh.tensor{', or less train.accum' if accum > 1 else ''}"
        )
    told = f"{rows} rows, {rows // shards // accum} a chip at a time, on {chips} chips: mesh data="
    told += f"{sizes['data'] * args.slices} fsdp={sizes['fsdp']} tensor={sizes['tensor']}"
    if args.topology and _has_compiler():
        told += f"; each of {_hosts(sizes, args)} hosts (of a slice) has whole rows"
    return told


def _hosts(sizes: dict[str, int], args: argparse.Namespace) -> int:
    """Of a slice. UserError if the rows of a host are not one piece."""
    from mdmspeech.training.distributed import rows_by_process, share_of

    mesh = _mesh(args.topology, tuple(sizes.items()))
    rows_of = rows_by_process(mesh, {device.process_index for device in mesh.devices.flat})
    share_of(rows_of, min(rows_of), dict(mesh.shape))
    return len(rows_of)


def _memory(config: ConfigDict, task: Task, rows: int, args: argparse.Namespace) -> str:
    """What a chip holds between steps, by arithmetic; then, where the TPU compiler is installed, the
    whole step, compiled for one slice.
    """
    from mdmspeech.planning.configs import Planned
    from mdmspeech.planning.memory import part_bytes
    from mdmspeech.planning.plan import HEADROOM
    from mdmspeech.planning.program import train_state
    from mdmspeech.planning.units import size

    topology = _topology(args)
    sizes = mesh_of(config, topology.chips * args.slices, args.slices)
    memory = topology.tpu.chip.memory
    held = part_bytes(train_state(config, task, _mesh(args.topology, tuple(sizes.items()))))
    if held > (1 - HEADROOM) * memory:
        raise UserError(
            f"parameters, optimiser and frozen parts take {size(held)} of the {size(memory)} of a "
            f"{topology.tpu.name} chip: split them further (mesh.fsdp={sizes['fsdp'] * 2}), or ask "
            "for more or larger chips"
        )
    state = f"{size(held)} of {size(memory)} a chip between steps"
    if args.no_compile or not _has_compiler():
        why = "as asked" if args.no_compile else "the package libtpu is not installed"
        return f"at least {state}; the step itself was not compiled ({why})"
    planned = Planned(args.config, config, "train", lambda _: task)
    one = rows // args.slices
    plan = planned.plan(topology, sizes, one, quick=True)
    if not plan.fits:  # with little effort it needs somewhat more than it would
        plan = planned.plan(topology, sizes, one)
    if not plan.fits:
        raise UserError(
            f"a step needs {size(plan.needed)} of the {size(plan.available)} of a "
            f"{topology.tpu.name} chip, of which a tenth must stay free: {'; '.join(plan.advice)}"
        )
    return f"{size(plan.needed)} of {size(plan.available)} a chip in a step, {state}"


def _topology(args: argparse.Namespace) -> Any:
    from mdmspeech.planning.topology import parse

    return parse(args.topology)


def _has_compiler() -> bool:
    return importlib.util.find_spec("libtpu") is not None


@functools.cache
def _mesh(topology: str, sizes: tuple[tuple[str, int], ...]) -> Any:
    """Of one slice: of its devices where the TPU compiler can tell them, else of none."""
    from jax.sharding import AbstractMesh, AxisType

    from mdmspeech.planning.plan import slice_mesh
    from mdmspeech.planning.topology import parse

    if _has_compiler():
        return slice_mesh(parse(topology), dict(sizes))
    names, numbers = zip(*sizes, strict=True)
    return AbstractMesh(numbers, names, axis_types=(AxisType.Auto,) * len(names))
