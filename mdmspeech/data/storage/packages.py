"""Finds the data files that some voices bring inside registry packages: an installed package first, else a downloaded archive in $MDMSPEECH_PARTS."""

import importlib.util
import os
import pathlib
import tarfile
import zipfile

from mdmspeech.errors import UserError

FOLDER_VARIABLE = "MDMSPEECH_PARTS"


def read_member(module: str, member: str, cure: str) -> bytes:
    """The bytes of `member` (a path inside the Python package `module`), from the installed package or from its wheel in the parts folder.

    cure: the command that fetches it, named in the `UserError` when it is nowhere.
    """
    spec = importlib.util.find_spec(module)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (pathlib.Path(root) / member).is_file():
            return (pathlib.Path(root) / member).read_bytes()
    for wheel in _archives(f"{module}-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(f"{module}/{member}")
    raise UserError(f"{module} is not installed and its wheel is not in ${FOLDER_VARIABLE}: {cure}")


def read_tar_member(archive_pattern: str, member: str, cure: str) -> bytes:
    """The bytes of `member` of the first archive in the parts folder that fits the pattern, for example an npm package."""
    for path in _archives(archive_pattern):
        with tarfile.open(path) as archive:
            file = archive.extractfile(member) if member in archive.getnames() else None
            if file is None:
                raise UserError(f"{path} has no {member}; download it again: {cure}")
            return file.read()
    raise UserError(f"{archive_pattern} is not in ${FOLDER_VARIABLE}: {cure}")


def _archives(pattern: str) -> list[pathlib.Path]:
    folder = os.environ.get(FOLDER_VARIABLE)
    return sorted(pathlib.Path(folder).expanduser().glob(pattern)) if folder else []
