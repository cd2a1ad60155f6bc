"""What `mdmspeech.load` gives: an assistant that knows which release it is, and can be written down
and pushed to the Hugging Face Hub.

The methods have the names and arguments of `huggingface_hub.ModelHubMixin`, and are not inherited
from it: it removes config.json before it saves (so that a full disk costs an older release), fills
arguments of `__init__` with fields of config.json that have the same name, and tells what failed
in its own errors.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

from mdmspeech.cli.compiled import keep_programs
from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.devices import look_for_no_tpu
from mdmspeech.inference.factory import open_assistant
from mdmspeech.interop import hub
from mdmspeech.interop.any_thinker import AnyThinker, open_any_thinker, with_thinker
from mdmspeech.interop.copying import copy_release
from mdmspeech.interop.release import Release, find_release, load_release
from mdmspeech.interop.sources import load_speech_encoder, load_thinker
from mdmspeech.interop.voice_file import with_voice


class PretrainedAssistant(Assistant):
    """An opened release. Make one with `mdmspeech.load` or `from_pretrained`."""

    _release: Release
    _thinker: AnyThinker | None = None
    _voice: str | os.PathLike | None = None

    @property
    def repo_id(self) -> str | None:
        """The repository of the Hugging Face Hub that it was opened from; None: it was a folder."""
        snapshot = hub.snapshot_of(self._release.folder)
        return snapshot.repo if snapshot else None

    @property
    def commit_hash(self) -> str | None:
        """The commit of that repository; `revision=` of it opens this very model again."""
        snapshot = hub.snapshot_of(self._release.folder)
        return snapshot.commit if snapshot else None

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the voices it can speak in: the release's, or that of the file it was given."""
        return super().voices if self._voice is None else (Path(self._voice).stem,)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        thinker: str | os.PathLike | None = None,
        voice: str | os.PathLike | None = None,
        dtype: str = "float32",
    ) -> Self:
        """Opens a release.

        Args:
          pretrained_model_name_or_path: as `release` of `mdmspeech.load`.
          force_download, token, cache_dir, local_files_only, revision: of a repository on the Hub, as
            in `huggingface_hub.ModelHubMixin.from_pretrained`.
          thinker, voice, dtype: see `mdmspeech.load`.

        Raises:
          UserError: as `mdmspeech.load`.
        """
        look_for_no_tpu()
        keep_programs()
        if dtype not in ("float32", "bfloat16"):
            raise UserError(f"dtype={dtype!r}: the Thinker computes in float32 or bfloat16")
        access = hub.Access(token, cache_dir, local_files_only, force_download)
        folder = find_release(pretrained_model_name_or_path, revision, access)
        chosen = None if thinker is None else open_any_thinker(thinker, folder, dtype)
        opened = load_release(folder)
        read: Callable[..., Any] = partial(load_thinker, dtype=dtype)
        if voice:
            opened = with_voice(opened, voice)
        if chosen is not None:
            opened, read = with_thinker(opened, chosen), chosen.load
        assistant = cast(Self, open_assistant(opened, read, load_speech_encoder, cls))
        assistant._release, assistant._thinker, assistant._voice = opened, chosen, voice or None
        return assistant

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes it as a release folder that opens as this same model: the files that it was opened
        from, the voice file it was given, and its Thinker and speech encoder if the package does not
        bring them.

        Args:
          repo_id: where to push it (default: the folder's name). push_to_hub: whether to, with
            `push_to_hub_kwargs`.

        Returns:
          The URL of the commit if it was pushed.

        Raises:
          UserError: a folder of something else, or the release's own; a Thinker that is no Hugging
            Face folder; as `push_to_hub`.
        """
        if push_to_hub_kwargs and not push_to_hub:
            raise UserError(
                f"{', '.join(push_to_hub_kwargs)} is for pushing: add push_to_hub=True, or leave it out"
            )
        folder = Path(save_directory)
        if push_to_hub:
            hub.check_push(repo_id or folder.absolute().name, push_to_hub_kwargs.get("token"))
        names = self._save(folder)
        if not push_to_hub:
            return None
        return hub.push(folder, names, repo_id or folder.absolute().name, **push_to_hub_kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = hub.MESSAGE,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Writes what `save_pretrained` writes to a repository of the Hugging Face Hub, made if
        missing, as one commit.

        Args:
          repo_id: "OWNER/NAME", or "NAME" of whoever is logged in. The others as in
            `huggingface_hub.ModelHubMixin.push_to_hub`.

        Returns:
          The URL of the commit, or of the pull request.

        Raises:
          UserError: nobody is logged in, or the Hub refuses; as `save_pretrained`.
        """
        hub.check_push(repo_id, token)
        with tempfile.TemporaryDirectory() as folder:
            return hub.push(
                Path(folder),
                self._save(Path(folder)),
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
            )

    def _save(self, folder: Path) -> list[str]:
        thinker = None if self._thinker is None else self._thinker.opened
        if thinker is not None and thinker.folder is None:
            raise UserError(
                f"its Thinker is the {thinker.origin}, and a release holds a Hugging Face folder: write "
                "one with `mdmspeech convert`, load the release with that, and save it"
            )
        return copy_release(
            folder,
            self._release,
            changed=("voice",) if self._voice else (),
            thinker=thinker.folder if thinker else None,
        )
