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

ROOT = Path(__file__).resolve().parents[1]
HOME = "mdmspeech"  # folder with the code on a worker, below its home folder
# Exit codes after which the same command resumes: told to stop (see `supervised`) or lost a peer
# (both 75, see mdmspeech/training/distributed.py), ended by JAX for the same reason (134), killed
# (137).
STOPPED = 75
TRY_AGAIN = f"{STOPPED}|134|137"


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
        help="corpus: a folder on the workers or a bucket (gs://BUCKET/CORPUS); default: what the "
        "workers' MDMSPEECH_HOME says",
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
    add_go(shared)
    return shared


def add_go(shared: argparse.ArgumentParser) -> None:
    """The options that `finish` reads."""
    do = shared.add_mutually_exclusive_group()
    do.add_argument(
        "--dry-run", action="store_true", help="print the commands and do nothing (the default)"
    )
    do.add_argument("--go", action="store_true", help="run them")


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
    if bucket and not re.fullmatch(r"gs://[a-z0-9][-_.a-z0-9]+[a-z0-9](/.+)?", args.workdir):
        shared.error(
            f"--workdir {args.workdir}: these machines are deleted with their "
            "disks, so give a bucket: gs://BUCKET/RUN"
        )
    for setting in args.set:
        if not re.fullmatch(r"[\w.]+=.*", setting, re.DOTALL):
            shared.error(f"--set {setting}: write KEY=VALUE, for example train.steps=200")
    return args


def uses_bucket(args: argparse.Namespace) -> bool:
    """Whether the run writes to or reads from object storage."""
    return any("://" in (place or "") for place in (args.workdir, args.data))


def train(args: argparse.Namespace, program: str = "mdmspeech") -> str:
    """The command that every worker runs: on all of them the same."""
    words = [program, "train", "--config", args.config, "--workdir", args.workdir]
    words += ["--data", args.data] if args.data else []
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
  else python3 -m pip install --quiet --user uv && python3 -m uv venv --seed --python 3.11 venv; fi
fi
venv/bin/python -m pip install --quiet -c constraints.txt -e {shlex.quote(f".[{extras}]")}
""".strip()


def supervised(command: str, forward: bool) -> str:
    """Shell, one line, that runs a training command and leaves its exit code, but with `STOPPED` if it
    was told to stop (SIGTERM): training then saves and exits with 0, as if it were done, and nobody
    would start it again.

    Args:
      forward: the signal reaches this shell alone and must be passed on. If it reaches both, it
        must not be: a second one stops without saving.
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


def worker(args: argparse.Namespace, extras: str, unpack: bool = True) -> str:
    """A script for a worker's code folder: unpacks code.tgz, installs, then starts training so that it
    outlives the connection. Running it again while it trains does nothing."""
    run = supervised(train(args, "venv/bin/mdmspeech"), forward=False) + "; echo $? > run.exit"
    lines = [
        "set -euo pipefail",
        (
            'if [ -f run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; then echo '
            '"already training"; exit 0; fi'
        ),
        *(["tar -xzf code.tgz"] if unpack else []),
        install(extras),
        "rm -f run.exit",
        f"setsid nohup bash -c {shlex.quote(run)} > run.log 2>&1 < /dev/null &",
        "echo $! > run.pid",
    ]
    return "\n".join(lines) + "\n"


def follow() -> str:
    """Shell for the code folder of a worker: shows its log until training ends, then gives its exit
    code.
    """
    return (
        'tail -n +1 --pid="$(cat run.pid)" -F run.log; exit "$(cat run.exit 2>/dev/null || echo 1)"'
    )


def stop() -> str:
    """Shell for the code folder of a worker: ends what is left of training there. Never fails."""
    kill = lambda signal: f'kill {signal} -- "-$(cat run.pid)" 2>/dev/null'
    return f"if [ -f run.pid ] && {kill('-TERM')}; then sleep 10; {kill('-KILL')}; fi; true"


_DOCKERFILE = """
FROM python:3.11-slim
WORKDIR /mdmspeech
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[{extras}]'
"""


def image(
    script: Script,
    args: argparse.Namespace,
    extras: str,
    build: str,
    dockerfile: str = _DOCKERFILE,
) -> None:
    """Packs the tracked files and makes a container image of them with everything installed.

    Args:
      args: with `image`, its full name, for example
        us-docker.pkg.dev/PROJECT/REPOSITORY/mdmspeech:NAME.
      build: "cloud" (Google Cloud Build, no Docker needed here) or "docker".
      dockerfile: what makes it, with {extras} for the extras.
    """
    folder = f"{stage(args.name)}/image"
    code = pack(script, args.name)
    script.note("An image of them: nothing is left to install when a pod starts.")
    script.run("rm", "-rf", folder)
    script.run("mkdir", "-p", folder)
    script.run("tar", "-xzf", code, "-C", folder)
    script.file(f"{folder}/Dockerfile", dockerfile.format(extras=extras).lstrip())
    if build == "cloud":
        script.run(
            "gcloud", "builds", "submit", folder, f"--project={args.project}", f"--tag={args.image}"
        )
    else:
        script.run("docker", "build", "--tag", args.image, folder)
        script.run("docker", "push", args.image)


def add_image(shared: argparse.ArgumentParser) -> None:
    """The options that `image` reads."""
    shared.add_argument(
        "--image", required=True, help="container image to make and use, with registry and tag"
    )
    shared.add_argument(
        "--build",
        choices=("cloud", "docker"),
        default="cloud",
        help="who makes it: Google Cloud Build, or Docker on this machine",
    )


def in_pod(args: argparse.Namespace) -> str:
    """Shell for a pod with that image. A pod that is told to stop must not succeed, or its job would
    count as done.
    """
    return f"cd /mdmspeech; {supervised(train(args), forward=True)}"


def pod_logs(script: Script, selector: str, pods: int) -> None:
    """Waits for the pods that a label chooses and follows the logs of all of them."""
    chosen = f"--selector={selector}"
    script.raw(
        f"until {shlex.join(['kubectl', 'get', 'pods', chosen, '--output=name'])} | "
        "grep -q .; do sleep 10; done"
    )
    script.run("kubectl", "wait", "pods", chosen, "--for=condition=Ready", "--timeout=24h")
    script.run(
        "kubectl", "logs", chosen, "--follow", "--prefix", "--tail=-1", f"--max-log-requests={pods}"
    )
