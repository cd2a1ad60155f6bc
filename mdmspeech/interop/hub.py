"""Releases on the Hugging Face Hub by name, "OWNER/NAME" or "OWNER/NAME@REVISION": config.json first,
then the files that it names, when they are read. The network is asked for nothing else, and not
before such a name is given. Never fetched: programs, pickles.

What was fetched lies in the Hub's own cache, which `hf cache` lists and prunes. Without a network,
what lies there is used.
"""

import dataclasses
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.files import as_user_error
from mdmspeech.interop.tensors import check_sha256
from mdmspeech.remote.retrying import passes, reason, status

CONFIG = "config.json"
MESSAGE = "Push model using mdmspeech."  # of a commit
_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^@\s]+))?")
_TARGET = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DATA = re.compile(r"[\w-][\w.-]*\.(?:safetensors|json)|README\.md")  # files of a release
_FOLDER_DATA = ("*.json", "*.safetensors", "*.jinja", "*.txt")  # of a Thinker or encoder in it
_LOG_IN = "log in (`hf auth login`, or HF_TOKEN) with an account that may read it"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Access:
    """How the Hub is asked; the fields are those of `huggingface_hub.hf_hub_download`.

    Attributes:
      token: None: the one that is logged in. cache_dir: None: the Hub's own. local_files_only: the
        network is not asked. force_download: what is in the cache is fetched anew.
    """

    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One commit of a repository. `folder` of the cache has those of its files that were fetched.

    Attributes:
      commit: its hash. offline: why the Hub was not asked for the newest one, "" where it was, or
        where a commit was asked for. renewed: names of the files that `force_download` has had fetched
        anew.
    """

    repo: str
    commit: str
    folder: Path
    access: Access
    offline: str = ""
    renewed: set[str] = dataclasses.field(default_factory=set, compare=False)

    @property
    def name(self) -> str:
        """By which exactly this is found again: "OWNER/NAME@COMMIT"."""
        return f"{self.repo}@{self.commit}"


# folder -> the snapshot that this process last opened there
_opened: dict[Path, Snapshot] = {}
_told_of: set[tuple[str, str]] = set()


def parse(name: str | os.PathLike) -> tuple[str, str | None] | None:
    """(repository, revision or None) of a name on the Hub; None for whatever is no such name."""
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    return (found[1], found[2]) if found else None


def snapshot_of(folder: Path | None) -> Snapshot | None:
    """What a folder that `find` gave is a snapshot of; None for any other folder."""
    return None if folder is None else _opened.get(folder)


def find(name: str, revision: str | None = None, access: Access | None = None) -> Path:
    """The cache's folder of a release on the Hub, with its config.json: of the newest commit of
    `revision` (a branch, tag or commit; None: that in the name, else the main branch). Which one it
    is, is logged.

    Raises:
      UserError: no such repository, revision or release; one that must be asked for; no network and
        nothing in the cache.
    """
    repo, said = parse(name) or (name, None)
    if said and revision and said != revision:
        raise UserError(f"{name} and revision={revision!r} are two revisions; give one of them")
    wanted, access = revision or said, access or Access()
    folder, offline = _cached(repo, wanted, access), ""
    exact = bool(wanted and _COMMIT.fullmatch(wanted))
    if access.local_files_only:
        offline = "local_files_only"
    elif access.force_download or folder is None or not exact:
        try:
            folder = _newest(repo, wanted, access, folder)
        except Exception as error:
            if folder is None or not passes(error):
                raise _refused(error, repo, wanted) from error
            offline = _without_network(error)
    if folder is None:
        raise UserError(
            f"no folder {repo} here, and nothing of it in the cache of the Hugging Face Hub "
            f"({_cache(access)}): fetch it with local_files_only=False, or `hf download {repo}`"
        )
    snapshot = Snapshot(repo, folder.name, folder, access, offline)
    _opened[folder] = snapshot
    _tell(snapshot, wanted)
    return folder


def fetched(path: Path, again: bool = False) -> Path:
    """The same file, fetched first if it is one of a snapshot and not there yet. again: even if it is
    there.

    Raises:
      UserError: it is none of the files that are fetched, is not in the repository, or cannot be had.
    """
    snapshot = _opened.get(path.parent) or _opened.get(path.parent.parent)
    if snapshot is None:
        return path
    name = path.relative_to(snapshot.folder).as_posix()
    again = again or (snapshot.access.force_download and name not in snapshot.renewed)
    if path.is_file() and not again:
        return path
    if not _DATA.fullmatch(path.name):
        raise UserError(
            f"{snapshot.name} names {name} as a file of its release; only .safetensors and .json "
            "files are fetched: its owner must push it as `mdmspeech release` writes it"
        )
    return _download(snapshot, name, again)


def has(path: Path) -> bool:
    """Whether a file is there, or can be fetched. UserError as `fetched`, but for one that is not in
    the repository.
    """
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return fetched(path).is_file()
    except TryAgainError:  # nobody knows
        raise
    except UserError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return False
        raise


def fetched_folder(path: Path) -> Path:
    """The same folder, all data files of a model fetched first if it is one of a snapshot (a
    release's thinker/ or encoder/). UserError as `fetched`.
    """
    snapshot = _opened.get(path.parent)
    if snapshot is None:
        return path
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            snapshot.repo,
            revision=snapshot.commit,
            cache_dir=snapshot.access.cache_dir,
            token=snapshot.access.token,
            local_files_only=bool(snapshot.offline),
            force_download=snapshot.access.force_download and path.name not in snapshot.renewed,
            allow_patterns=[f"{path.name}/{pattern}" for pattern in _FOLDER_DATA],
        )
    except Exception as error:
        raise _refused(error, snapshot.repo, snapshot.commit, f"{path.name}/") from error
    snapshot.renewed.add(path.name)
    return path


def checked(path: Path, sha256: str) -> bytes:
    """The bytes of a file that has that SHA-256; one of a snapshot that has not is fetched anew, once.

    Raises:
      UserError: it is another file.
    """
    data = fetched(path).read_bytes()
    snapshot = _opened.get(path.parent)
    try:
        check_sha256(memoryview(data), sha256, str(path))
    except UserError as error:
        if snapshot is None:
            raise
        if snapshot.offline:
            raise TryAgainError(
                f"{snapshot.name}: {error} (with a network it is fetched again by itself; now: "
                f"{snapshot.offline})"
            ) from error
        data = fetched(path, again=True).read_bytes()
        try:
            check_sha256(memoryview(data), sha256, str(path))
        except UserError as error:
            raise UserError(
                f"{snapshot.name}: {path.name} is not the file that its {CONFIG} names, nor was it "
                "when it was fetched again: take another revision, or ask its owner to push the "
                "release again"
            ) from error
    return data


def check_push(repo_id: str, token: str | None = None) -> None:
    """A UserError for what cannot be pushed to, before anything is written: no name of a repository,
    or nobody is logged in.
    """
    from huggingface_hub import get_token

    if not _TARGET.fullmatch(repo_id):
        raise UserError(f"cannot push to {repo_id!r}: name a repository, OWNER/NAME")
    if not (token or get_token()):
        raise UserError(
            f"cannot push to {repo_id}: nobody is logged in; `hf auth login` with a token that may "
            "write, or set HF_TOKEN"
        )


def push(
    folder: Path,
    names: Sequence[str],
    repo_id: str,
    *,
    commit_message: str = MESSAGE,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Writes files of a folder to a repository, made if missing, as one commit; returns its URL.

    Args:
      names: of the files, from `folder`. repo_id and the others: as in
        `huggingface_hub.ModelHubMixin.push_to_hub`.

    Raises:
      UserError: as `check_push`, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_push(repo_id, token)
    api = HfApi(token=token, library_name="mdmspeech")
    try:
        target = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        # all files in one commit: at no time does config.json name weights that are not there
        commit = api.create_commit(
            target,
            [CommitOperationAdd(name, folder / name) for name in names],
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    except Exception as error:
        raise _not_pushed(error, repo_id) from error
    return str(commit.pr_url or commit.commit_url)


def _newest(repo: str, wanted: str | None, access: Access, cached: Path | None) -> Path:
    """The folder of the commit that the Hub has for it now."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(repo, CONFIG, revision=wanted)
    now = get_hf_file_metadata(url, token=access.token)
    if cached is not None and cached.name == now.commit_hash and not access.force_download:
        return cached
    file = hf_hub_download(
        repo,
        CONFIG,
        revision=wanted,
        cache_dir=access.cache_dir,
        token=access.token,
        force_download=access.force_download,
    )
    return Path(file).parent


def _cached(repo: str, wanted: str | None, access: Access) -> Path | None:
    """The folder of the newest commit that the cache knows of it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(repo, CONFIG, cache_dir=_cache(access), revision=wanted)
    except HFValidationError as error:
        raise UserError(
            f"{repo} is no name of a repository on the Hugging Face Hub, and no folder"
        ) from error
    return Path(file).parent if isinstance(file, str) else None


def _cache(access: Access) -> Path:
    from huggingface_hub import constants

    return Path(access.cache_dir or constants.HF_HUB_CACHE).expanduser()


def _download(snapshot: Snapshot, name: str, again: bool) -> Path:
    from huggingface_hub import hf_hub_download

    access = snapshot.access
    try:
        file = hf_hub_download(
            snapshot.repo,
            name,
            revision=snapshot.commit,
            cache_dir=access.cache_dir,
            token=access.token,
            local_files_only=bool(snapshot.offline),
            force_download=again,
        )
    except Exception as error:
        raise _refused(error, snapshot.repo, snapshot.commit, name) from error
    snapshot.renewed.add(name)
    return Path(file)


def _tell(snapshot: Snapshot, wanted: str | None) -> None:
    """Which commit it is, once a process; without a network as a warning."""
    if (snapshot.name, snapshot.offline) in _told_of:
        return
    _told_of.add((snapshot.name, snapshot.offline))
    which = f"{snapshot.repo}: commit {snapshot.commit}"
    if snapshot.offline:
        said = wanted or "main"
        _log.warning(
            "%s, the one in the cache for %s (%s); the Hub may have a newer one",
            which, said, snapshot.offline,
        )  # fmt: skip
    else:
        _log.info("%s of the Hugging Face Hub", which)


def _without_network(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return f"the Hub does not answer: {reason(error)}"


def _refused(error: Exception, repo: str, revision: str | None, file: str = CONFIG) -> Exception:
    """What the Hub's library raised, for people."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"the repository {repo} is gated: ask for access on its page of the Hugging Face Hub, "
            f"then {_LOG_IN}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"there is no folder {repo} here, and no such repository on the Hugging Face Hub: check "
            f"the name; if it is private, {_LOG_IN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(
            f"the repository {repo} has no revision {revision}: give a branch, a tag or a commit that "
            "its page lists, or none for the newest"
        )
    if isinstance(error, errors.LocalEntryNotFoundError) or passes(error):
        cause = error.__cause__ or error
        why = reason(cause) if isinstance(cause, Exception) else ""
        missing = f"{repo}: {file} is not in the cache"
        if file == CONFIG:
            missing = f"there is no folder {repo} here, nothing of such a repository in the cache"
        return TryAgainError(
            f"{missing}, and the Hugging Face Hub cannot be asked ({why}): check the name; connect, "
            f"unset HF_HUB_OFFLINE, or fetch it before: `hf download {repo}`"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return UserError(
            f"the repository {repo} has no {file}, so it is no whole release of mdmspeech: its owner "
            "pushes one with `mdmspeech release --push`, or take another revision"
        )
    if status(error) in (401, 403):
        return UserError(f"the Hugging Face Hub refuses {repo} ({reason(error)}): {_LOG_IN}")
    if isinstance(error, OSError) and error.errno is not None:
        return as_user_error(error)
    return UserError(f"cannot fetch {file} of {repo}: {reason(error)}; try another revision")


def _not_pushed(error: Exception, repo: str) -> Exception:
    """Why the Hub did not take it, for people."""
    if status(error) in (401, 403, 404):
        return UserError(
            f"cannot push to {repo} ({reason(error)}): log in (`hf auth login`, or HF_TOKEN) with a "
            "token that may write there, and check the owner's name and the branch"
        )
    if passes(error):
        return TryAgainError(
            f"cannot push to {repo}: the Hugging Face Hub does not answer ({reason(error)}); nothing "
            "was changed there, try again"
        )
    return UserError(f"cannot push to {repo}: the Hugging Face Hub refuses it: {reason(error)}")
