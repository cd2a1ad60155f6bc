"""The folder of a run, on a disk or on object storage ("gs://bucket/run"): making it, and writing
files there.
"""

from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable
from mdmspeech.training import distributed

# etils' paths go by the same retries
remote.register()


def check_workdir(workdir: epath.Path) -> None:
    """A UserError if nothing could be written there; nothing is written to find out."""
    if not remote.is_remote(workdir):
        check_writable(Path(workdir), "name another --workdir", folder=True)


def make_workdir(workdir: epath.Path, config: ConfigDict) -> None:
    """Makes the folder, which all hosts must share, and writes config.json. All processes must
    call.

    Raises:
      UserError: it cannot be written to, or is not the same folder on all hosts.
    """
    try:
        if distributed.is_lead():
            workdir.mkdir(parents=True, exist_ok=True)
            write_whole(workdir / "config.json", config.to_json_best_effort(indent=1))
    except ImportError as error:
        raise UserError(
            f"{workdir}: {error}; pip install mdmspeech[cloud] brings what object storage needs"
        ) from error
    except OSError as error:  # places there are (/proc) that say they can be written to
        raise UserError(
            f"cannot write {workdir}: {(error.strerror or str(error)).lower()}; "
            "name another --workdir"
        ) from error
    distributed.barrier("config.json is written")
    if not (workdir / "config.json").exists():
        raise UserError(
            f"{workdir} on this host is not the folder that process 0 writes to: "
            "give a --workdir that all hosts share"
        )


def write_whole(path: epath.Path, text: str) -> None:
    """Writes a text beside its place and moves it there: a kill or a full disk leaves the old one
    whole. On object storage too, unlike `files.write_text`.
    """
    new = path.parent / (path.name + ".new")
    new.write_text(text)
    new.replace(path)


def upload(source: Path, target: remote.Place) -> None:
    """Copies every file below the local folder `source` to the same place below `target`."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        remote.upload(file, remote.join(target, *file.relative_to(source).parts))
