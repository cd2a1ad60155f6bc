"""What all launchers share: options, checks, and a bash script that is printed (the default) or run
(--go).

A launcher only ever *writes a script*. The dry run prints it, `--go` feeds the very same text to
bash, so what was read is what runs; and it can be saved, changed and run by hand. Only the Python
standard library is used: nothing of this repository has to be installed to launch it.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
UV = "0.13.9"  # fetches a Python where an image has only an older one
HOME = "mdmspeech"  # folder with the code on a worker, below its home folder
DONE, BAD_INPUT, STOPPED = 0, 2, 75


class Ending(NamedTuple):
    """How a worker can end: its exit code, what that means (README.md has the same table), and
    whether the same command resumes.
    """

    code: int
    meaning: str
    resumes: bool


# The one list that all launchers go by. Of the program: mdmspeech/cli (2), `loop.NonFiniteError`
# and `train.max_hours` (2), `distributed.TRY_AGAIN` (75); of timeout (124). Every other code is a
# crash.
ENDINGS = (
    Ending(DONE, "done", False),
    Ending(
        BAD_INPUT,
        "bad input, a loss that is no number, or its hours used up: again it would end the same",
        False,
    ),
    Ending(STOPPED, "told to stop, and saved; or another worker was lost", True),
    Ending(124, "still ran an hour after its hours were used up: stopped", False),
    Ending(134, "ended by JAX's own check, as after the loss of another worker", True),
    Ending(137, "killed: its time to stop was up, or memory ran out", True),
)
RESUMING = tuple(ending.code for ending in ENDINGS if ending.resumes)
TRY_AGAIN = "|".join(map(str, RESUMING))
# An attempt that a lost worker ended within these seconds counts as a crash: nothing was learnt.
QUICK_S = 900
_BUCKET = r"gs://[a-z0-9][-_.a-z0-9]+[a-z0-9](/.+)?"


def parser(doc: str, *, cloud: bool) -> argparse.ArgumentParser:
    """An argument parser with what every launcher takes. cloud: with --project and --zone."""
    shared = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    shared.add_argument(
        "--name",
        required=True,
        help="of the job and of what is made for it: lower case letters, digits and hyphens",
    )
    shared.add_argument(
        "--config", required=True, help="experiment file, for example experiments/compact_talker.py"
    )
    shared.add_argument(
        "--workdir",
        required=True,
        help="checkpoints and logs; a run that finds its own checkpoints there goes on from them",
    )
    shared.add_argument(
        "--data",
        help="corpus: a bucket (gs://BUCKET/CORPUS) or a folder on the workers; where these begin "
        "with empty disks, a folder here, which is copied to the bucket; default: what the workers' "
        "MDMSPEECH_HOME says",
    )
    shared.add_argument(
        "--system",
        metavar="DIR",
        help="train parts of this system folder (see `mdmspeech assemble`); where it is: as --data",
    )
    shared.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting; may be given often",
    )
    if cloud:
        shared.add_argument("--project", required=True, help="of Google Cloud; it pays")
        shared.add_argument("--zone", required=True, help="for example us-east5-b")
    add_preflight(shared)
    add_go(shared)
    return shared


def add_go(shared: argparse.ArgumentParser) -> None:
    """The options that `finish` reads."""
    do = shared.add_mutually_exclusive_group()
    do.add_argument(
        "--dry-run", action="store_true", help="print the commands and do nothing (the default)"
    )
    do.add_argument("--go", action="store_true", help="run them")


def add_hours(
    shared: argparse.ArgumentParser, default: float, what: str, *, in_run: bool = False
) -> None:
    """The option --max-hours, which `parse` reads.

    Args:
      default: 0 if it may be left out.
      what: becomes of the run after so many hours.
      in_run: training itself counts them, over all its starts (`train.max_hours`).
    """
    shared.add_argument(
        "--max-hours",
        type=float,
        default=default,
        metavar="H",
        help=f"{what} (default {f'{default:g}' if default else 'no limit'})",
    )
    shared.set_defaults(hours_in_run=in_run, hours_needed=bool(default))


def check_hours(shared: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program for hours that bound nothing."""
    if not 0 < args.max_hours < 1e5 and (args.hours_needed or args.max_hours != 0):
        shared.error("--max-hours must be above 0: it bounds what the run can cost")


def add_preflight(shared: argparse.ArgumentParser) -> None:
    """The option that `preflight` reads."""
    shared.add_argument(
        "--no-preflight",
        action="store_true",
        help="do not look first whether the run can work (`mdmspeech preflight`)",
    )


def check_name(shared: argparse.ArgumentParser, name: str) -> None:
    """Ends the program for what cannot be the name of a job."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        shared.error(
            f"--name {name!r}: use at most 40 lower case letters, digits and "
            "hyphens, beginning with a letter"
        )


def parse(
    shared: argparse.ArgumentParser, argv: list[str] | None = None, *, bucket: bool
) -> argparse.Namespace:
    """Parsed and checked arguments; a wrong one ends the program with a line that says what is wrong
    and exit code 2.

    Args:
      bucket: the workdir must be on object storage, because the machines do not outlive the run.
    """
    args = shared.parse_args(argv)
    check_name(shared, args.name)
    path, colon, variant = args.config.partition(":")  # "experiments/talker_8b.py:runlocal"
    config = (ROOT / path).resolve()
    if not config.is_file() or not config.is_relative_to(ROOT):
        shared.error(
            f"--config {path}: no such file in this repository; its experiments are in experiments/"
        )
    args.config = config.relative_to(ROOT).as_posix() + colon + variant
    if bucket and not re.fullmatch(_BUCKET, args.workdir):
        shared.error(
            f"--workdir {args.workdir}: these machines are deleted with their "
            "disks, so give a bucket: gs://BUCKET/RUN"
        )
    for setting in args.set:
        if not re.fullmatch(r"[\w.]+=.*", setting, re.DOTALL):
            shared.error(f"--set {setting}: write KEY=VALUE, for example train.steps=200")
    if "max_hours" in args:
        check_hours(shared, args)
        if args.hours_in_run:
            if any(setting.startswith("train.max_hours=") for setting in args.set):
                shared.error("--set train.max_hours: give --max-hours instead")
            hours = [f"train.max_hours={args.max_hours:g}"] if args.max_hours else []
            args.set = [*args.set, *hours]
    args.local = {"data": args.data, "system": args.system}  # as they were given
    args.copied = {}
    for option, given in args.local.items() if bucket else ():
        if (
            not given
            or re.fullmatch(_BUCKET, given)
            or (option == "system" and given.isidentifier())
        ):
            continue  # an identifier: a release that the package ships
        if not Path(given).expanduser().is_dir():
            shared.error(
                f"--{option} {given}: the machines begin with empty disks, and there is no such "
                "folder here to copy; give gs://BUCKET/FOLDER, or a folder of this machine"
            )
        setattr(args, option, f"{args.workdir.rstrip('/')}/launch/{option}")
        args.copied[option] = (str(Path(given).expanduser().resolve()), getattr(args, option))
    return args


def copy_local(script: "Script", args: argparse.Namespace) -> None:
    """Copies what `parse` found on this machine to the bucket, where the workers read it."""
    for option, (here, there) in args.copied.items():
        script.note(f"--{option} from this machine: what the bucket has already is left out.")
        folder = "/datasets" if option == "data" else ""
        script.run("gcloud", "storage", "rsync", "--recursive", here + folder, there + folder)


def python() -> str:
    """The one of this repository's environment, else the one that runs this."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own if own.exists() else sys.executable)


def preflight(
    script: "Script", args: argparse.Namespace, *machines: str, account: bool = False
) -> None:
    """Puts a look at everything that can be known beforehand in front of what costs.

    Args:
      machines: options of `mdmspeech preflight` that say what will run it.
      account: $account says which service account they have.
    """
    if args.no_preflight:
        script.note("No preflight, as asked.")
        script.raw("echo 'no preflight: what is wrong shows when the machines run' >&2")
        return
    script.note("Preflight: settings, mesh, memory, data and buckets, before anything is paid for.")
    script.raw(
        f"{shlex.join([python(), '-c', 'import jax, flax'])} 2>/dev/null || {{ echo 'the preflight "
        'needs this repository installed here (make demo, or pip install -e ".[data,cloud,plan]"); '
        "or give --no-preflight' >&2; exit 2; }"
    )
    words = [python(), "-m", "mdmspeech", "preflight", "--config", args.config]
    words += ["--workdir", args.workdir]
    for option, given in args.local.items():
        words += [f"--{option}", given] if given else []
    words += [word for setting in args.set for word in ("--set", setting)]
    script.raw(
        shlex.join(["env", "JAX_PLATFORMS=cpu", *words, *machines])
        + (' --account "$account"' if account else "")
    )


def uses_bucket(args: argparse.Namespace) -> bool:
    """Whether the run writes to or reads from object storage."""
    return any(
        "://" in (place or "") for place in (args.workdir, args.data, args.system, *args.set)
    )


def train(args: argparse.Namespace, program: str = "mdmspeech") -> str:
    """The command that every worker runs: on all of them the same. What is compiled is kept in the
    workdir, for the next start and for workers that are new.
    """
    words = ["env", f"JAX_COMPILATION_CACHE_DIR={args.workdir.rstrip('/')}/compiled"]
    words += [program, "train", "--config", args.config, "--workdir", args.workdir]
    words += ["--data", args.data] if args.data else []
    words += ["--system", args.system] if args.system else []
    words += [word for setting in args.set for word in ("--set", setting)]
    return shlex.join(words)


class Script:
    """A bash script that grows line by line."""

    def __init__(self, title: str):
        self._lines = [
            "#!/usr/bin/env bash",
            f"# {title}",
            "set -euo pipefail",
            shlex.join(["cd", str(ROOT)]),
        ]

    def note(self, text: str) -> "Script":
        """A comment, and an empty line before it."""
        self._lines += ["", f"# {text}"]
        return self

    def run(self, *words: str) -> "Script":
        """One command, every word quoted as it needs."""
        self._lines.append(shlex.join(words))
        return self

    def raw(self, text: str) -> "Script":
        """Shell as it is: loops, pipes. The caller quotes."""
        self._lines.append(text.strip("\n"))
        return self

    def file(self, path: str, text: str) -> "Script":
        """Writes `text` to `path`, readable in the dry run."""
        end = "END_OF_FILE"
        while end in text:
            end += "_"
        self._lines += [f"cat > {shlex.quote(path)} <<'{end}'", text.rstrip("\n"), end]
        return self

    @property
    def text(self) -> str:
        """The whole script."""
        return "\n".join(self._lines) + "\n"


def finish(script: Script, args: argparse.Namespace) -> int:
    """Prints the script, or runs it with --go; its exit code."""
    if not args.go:
        print(script.text, end="")
        print("dry run: nothing was done. The same with --go does it.", file=sys.stderr)
        return 0
    return subprocess.run(["bash", "-c", script.text], cwd=ROOT).returncode


def stage(name: str) -> str:
    """Local folder where what goes to the workers is gathered."""
    return str(Path.home() / ".cache" / "mdmspeech" / "launch" / name)


def pack(script: Script, name: str) -> str:
    """Packs the tracked files, as they lie on disk, into `<stage>/code.tgz`; returns its path."""
    folder = stage(name)
    script.run("mkdir", "-p", folder)
    script.note("The tracked files as they lie here, changes that are not committed included.")
    script.raw(
        f"git ls-files -z | tar --null --files-from=- -czf {shlex.quote(folder + '/code.tgz')}"
    )
    return f"{folder}/code.tgz"


def install(extras: str) -> str:
    """Shell that makes `venv` in the current folder and installs the code that lies there. Images with
    an older Python get 3.11 from uv.
    """
    return f"""
if [ ! -x venv/bin/python ]; then
  if command -v python3.11 >/dev/null; then python3.11 -m venv venv
  else python3 -m pip install --quiet --user uv=={UV} && python3 -m uv venv --seed --python 3.11 venv; fi
fi
venv/bin/python -m pip install --quiet -c constraints.txt -e {shlex.quote(f".[{extras}]")}
""".strip()


def supervised(command: str, forward: bool) -> str:
    """Shell, one line, that runs a training command and leaves its exit code, but with `STOPPED` if it
    was told to stop (SIGTERM): training then saves and exits with 0, as if it were done, and nobody
    would start it again.

    Args:
      forward: the signal reaches this shell alone and must be passed on. If it reaches both, it
        need not be.
    """
    if not forward:
        return (
            f"stopped=; trap 'stopped=1' TERM; {command}; code=$?; [ -z \"$stopped\" "
            f"] || code={STOPPED}; (exit $code)"
        )
    pass_on = "trap 'stopped=1; kill -TERM \"$child\" 2>/dev/null' TERM"
    # A signal may come before `child` is set: then it is passed on here. One that comes later ends
    # the first wait, so that there is a second one.
    late = 'if [ -n "$stopped" ]; then kill -TERM "$child" 2>/dev/null; fi'
    wait = (
        f'child=$!; {late}; wait "$child"; code=$?; if [ -n "$stopped" ]; then wait '
        f'"$child"; code={STOPPED}; fi; (exit $code)'
    )
    return f"stopped=; {pass_on}; {command} & {wait}"


def rotate(file: str, most: int = 5) -> str:
    """Shell that moves a file out of the way, to .1, that to .2, ...; the oldest goes."""
    return (
        f"for n in $(seq {most - 1} -1 1); do [ ! -f {file}.$n ] || mv {file}.$n {file}.$((n+1)); "
        f"done; [ ! -f {file} ] || mv {file} {file}.1"
    )


def worker(args: argparse.Namespace, extras: str, unpack: bool = True, logs: str = "") -> str:
    """A script for a worker's code folder: unpacks code.tgz, installs, then starts training so that it
    outlives the connection. Running it again while it trains does nothing. The log is run.log,
    those of earlier starts run.log.1, ...

    Args:
      logs: a folder in a bucket where a copy of the log is kept, as it was five minutes ago, and at
        the end; one file a start and a worker.
    """
    run = supervised(train(args, "venv/bin/mdmspeech"), forward=False) + "; echo $? > run.exit"
    if logs:
        copy = (
            f"timeout 120 gcloud storage cp --quiet run.log {shlex.quote(logs + '/')}"
            '"$started-$(hostname).log" >/dev/null 2>&1'
        )
        run = (
            f"started=$(date -u +%Y%m%dT%H%M%SZ); (while sleep 300; do {copy}; done) & copier=$!; "
            f"{run}; kill $copier 2>/dev/null; {copy}"
        )
    lines = [
        "set -euo pipefail",
        (
            'if [ -f run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; then echo '
            '"already training"; exit 0; fi'
        ),
        *(["tar -xzf code.tgz"] if unpack else []),
        install(extras),
        "rm -f run.exit",
        rotate("run.log"),
        f"setsid nohup bash -c {shlex.quote(run)} > run.log 2>&1 < /dev/null &",
        "echo $! > run.pid",
    ]
    return "\n".join(lines) + "\n"


ENDED = "training ended with exit code"


def follow(first: str = "1") -> str:
    """Shell for the code folder of a worker: shows its log, from that line on, until training ends,
    then says its exit code and ends with it.
    """
    return (
        f'tail -n +{first} --pid="$(cat run.pid)" -F run.log; code=$(cat run.exit 2>/dev/null || '
        f'echo 1); echo "{ENDED} $code"; exit "$code"'
    )


def stop(seconds: int = 120) -> str:
    """Shell for the code folder of a worker: has training save and end, and ends it if it takes longer
    than so many seconds. Never fails.
    """
    kill = lambda signal: f'kill {signal} -- "-$(cat run.pid)" 2>/dev/null'
    return (
        f"if [ -f run.pid ] && {kill('-TERM')}; then for _ in $(seq {seconds}); do {kill('-0')} || "
        f"break; sleep 1; done; {kill('-KILL')}; fi; true"
    )
