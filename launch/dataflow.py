"""Prepare a dataset on Google Cloud Dataflow: an image with the code, and the job, followed to its end.

What comes after `--` is for `mdmspeech data`: --import gs://..., --name, --format, --shards, --tokens,
... The job goes on if this is interrupted; started again after a failure it keeps finished shards.
"""

import argparse
import math
import re
import shlex
import sys

import accounts
import common
import pods

# of Beam, here and in the image: setup.cfg and tests/launch hold them together
BEAM = "2.77.0"
EXTRAS = "beam,data,eval,media,cloud"
_OURS = ("--root", "--runner", "--beam-args", "--workers")
_BUCKET = r"gs://[a-z0-9][-_.a-z0-9]+[a-z0-9](/.+)?"
# Beam's own image, whose entry point takes the work; constraints.txt has other versions
_DOCKERFILE = f"""
FROM apache/beam_python3.11_sdk:{BEAM}
WORKDIR /mdmspeech
COPY . .
RUN pip install --no-cache-dir apache-beam=={BEAM} -e '.[{{extras}}]'
"""


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = _parser()
    given = sys.argv[1:] if argv is None else argv
    at = given.index("--") if "--" in given else len(given)
    args, asked = parser.parse_args(given[:at]), given[at + 1 :]
    _check(parser, args, asked)
    script = common.Script(f"{args.name}: a dataset prepared on Dataflow")
    if not args.no_preflight:
        script.note("The buckets, before anything is paid for.")
        accounts.look_up(script, args.project, accounts.given(args.service_account or ""))
        accounts.try_buckets(script, [_temporary(args), args.data], [_source(asked)])
    pods.image(script, args, EXTRAS, args.build, _DOCKERFILE)
    venv = f"{common.stage(args.name)}/venv"
    script.note("What starts the job: the same code, which looks at the corpus and at the models.")
    script.raw(f"[ -x {shlex.quote(venv)}/bin/python ] || python3.11 -m venv {shlex.quote(venv)}")
    pip = [f"{venv}/bin/python", "-m", "pip", "install", "--quiet"]
    script.run(*pip, f"apache-beam[gcp]=={BEAM}", "-e", f".[{EXTRAS}]")
    script.note("The job. It is followed; it goes on if this ends.")
    script.run(
        *[f"{venv}/bin/mdmspeech", "data", *asked, "--root", args.data],
        *["--runner", "DataflowRunner", "--beam-args", shlex.join(beam_arguments(args))],
    )
    return common.finish(script, args)


def beam_arguments(args: argparse.Namespace) -> list[str]:
    """Options of the runner, see Dataflow's page of pipeline options."""
    temporary, seconds = _temporary(args), math.ceil(args.max_hours * 3600)
    words = [
        f"--project={args.project}",
        f"--region={args.region}",
        f"--job_name={args.name}",
        f"--temp_location={temporary}/temp",
        f"--staging_location={temporary}/staging",
        f"--sdk_container_image={args.image}",
        "--sdk_location=container",
        f"--max_num_workers={args.max_workers}",
        f"--machine_type={args.machine}",
        f"--disk_size_gb={args.disk}",
        # one unit a process at a time: a unit is held in memory
        "--number_of_worker_harness_threads=1",
        # Dataflow itself stops the job then
        f"--dataflow_service_options=max_workflow_runtime_walltime_seconds={seconds}",
    ]
    if args.service_account:
        words.append(f"--service_account_email={args.service_account}")
    return words


def _temporary(args: argparse.Namespace) -> str:
    return (args.temp or f"{args.data.rstrip('/')}/dataflow").rstrip("/")


def _source(asked: list[str]) -> str:
    """What --import names, "" if nothing."""
    (at,) = [n for n, word in enumerate(asked) if word.partition("=")[0] == "--import"][:1]
    return asked[at].partition("=")[2] or "".join(asked[at + 1 : at + 2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="dataflow.py --name NAME --data gs://BUCKET/CORPUS ... -- --import gs://... --name ...",
    )
    parser.add_argument(
        "--name", required=True, help="of the job: lower case letters, digits and hyphens"
    )
    parser.add_argument(
        "--data", required=True, help="corpus folder that the dataset goes into: gs://BUCKET/CORPUS"
    )
    parser.add_argument("--project", required=True, help="of Google Cloud; it pays")
    parser.add_argument("--region", required=True, help="for example us-central1")
    parser.add_argument("--temp", metavar="gs://...", help="for its files (default: DATA/dataflow)")
    parser.add_argument(
        "--max-workers", type=int, default=16, metavar="N", help="machines (default: %(default)s)"
    )
    parser.add_argument(
        "--machine", default="n2-standard-4", help="type of each (default: %(default)s)"
    )
    parser.add_argument(
        "--disk", type=int, default=50, metavar="GB", help="of each (default: %(default)s)"
    )
    parser.add_argument(
        "--service-account", metavar="EMAIL", help="of the workers (default: the project's own)"
    )
    common.add_hours(parser, 72.0, "Dataflow stops the job, and its machines, after so many hours")
    pods.add_image(parser)
    common.add_preflight(parser)
    common.add_go(parser)
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace, asked: list[str]) -> None:
    common.check_name(parser, args.name)
    common.check_hours(parser, args)
    for option in ("data", "temp"):
        place = getattr(args, option)
        if place is not None and not re.fullmatch(_BUCKET, place):
            parser.error(
                f"--{option} {place}: its workers share no disk, so give gs://BUCKET/FOLDER"
            )
    if args.max_workers < 1 or args.disk < 1:
        parser.error("--max-workers and --disk must be 1 or more")
    names = [word.partition("=")[0] for word in asked]
    if "--import" not in names:
        parser.error("say what to prepare: -- --import gs://BUCKET/RECORDINGS --name NAME")
    if wrong := [name for name in names if name in _OURS]:
        parser.error(f"{wrong[0]} follows from this program's own options: leave it out after --")
    place = _source(asked)
    if not re.fullmatch(_BUCKET, place):
        parser.error(f"--import {place}: its workers cannot read it; copy it to a bucket, gs://...")


if __name__ == "__main__":
    sys.exit(main())
