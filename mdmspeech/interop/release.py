"""The release format: a folder with config.json, one safetensors file a part and a card. JSON and
safetensors only: nothing in it is run.

Tensors are stored in 16 bits, or in 8 where asked, and are float32 in memory. config.json holds
every part's sizes and the SHA-256 of every file; a folder is opened only if each file is the one
that was written and each tensor is the one that the sizes ask for.

A *system folder* (`mdmspeech assemble`) is a release that also holds its Thinker and its speech
encoder, as Hugging Face folders `thinker/` and `encoder/`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, written_whole
from mdmspeech.interop import card as cards
from mdmspeech.interop import hub
from mdmspeech.interop.converted import converted
from mdmspeech.interop.int8 import from_int8
from mdmspeech.interop.parts import KINDS, Config, config_from, reads_prompt
from mdmspeech.interop.sources import SMOLLM2, WHISPER_BASE
from mdmspeech.interop.stored_part import DTYPES, EXACT, Part, fit, stored_tensors
from mdmspeech.interop.tensors import read_json, read_tensors, write_tensors
from mdmspeech.text import prompts

FORMAT, VERSION = "mdmspeech-release", 5
# version 1 had no 8-bit parts, 2 no Thinker or encoder inside, 3 the fields' older names, 4 no tables
# in 6 bits
_READS = (1, 2, 3, 4, 5)
CONFIG, CARD = "config.json", "README.md"
NARROW = {8: "int8", 6: "int6"}  # bits -> how config.json calls a part that is stored so


@dataclasses.dataclass(frozen=True)
class Release:
    """Everything this project trained, by name ("codec", "talker", "talker_ntp", "talker_mtp", "adaptor"),
    and which pretrained parts it was trained with.

    Attributes:
      thinker, encoder: what `sources.load_thinker` and `sources.load_speech_encoder` are asked for:
        a name, or the path of a folder.
      system, examples: the system message and the example turns (user, assistant) that begin every
        conversation, see `text.prompts`: those after which the parts that read the Thinker's states
        were trained.
      silence: codes that sound like silence (for the stop rules of Talkers that do not know their
        length).
      untrained: parts with random weights, as `assemble` puts them where training is still to come.
      folder: that it was opened from, None if it was not.
    """

    name: str
    parts: dict[str, Part]
    thinker: str = SMOLLM2
    encoder: str = WHISPER_BASE
    system: str = prompts.SYSTEM
    examples: tuple[tuple[str, str], ...] = ()
    silence: tuple[int, ...] = ()
    untrained: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def prompt(self) -> prompts.Prompt:
        """`system` and `examples`."""
        return prompts.Prompt(self.system, self.examples)

    def part(self, name: str) -> Part:
        """A part by name, or a UserError that says which there are."""
        _require(name, self.parts, self.name)
        return self.parts[name]


@dataclasses.dataclass(frozen=True)
class About:
    """What config.json says, without the weights.

    Attributes:
      folder: of the release. raw: the whole object. parts: name -> (kind, sizes). thinker, encoder,
        untrained: as in `Release`. prompt: of its conversations.
      trained_after: name -> the prompt of each trained part that reads one.
    """

    folder: Path
    raw: dict[str, Any]
    parts: dict[str, tuple[str, Config]]
    thinker: str
    encoder: str
    untrained: tuple[str, ...]
    prompt: prompts.Prompt
    trained_after: dict[str, prompts.Prompt]


def _require(name: str, parts: Collection[str], release: str) -> None:
    if name not in parts:
        raise UserError(
            f"release {release!r} has no {name}; it has {', '.join(parts) or 'nothing'}"
        )


def save_release(
    folder: str | os.PathLike,
    release: Release,
    card: str,
    dtype: str = "float16",
    bits: Mapping[str, int] | None = None,
    exact: Collection[str] = (),
    digests: Mapping[str, str] | None = None,
    taken: Mapping[str, tuple[Path, Mapping[str, Any]]] | None = None,
) -> int:
    """Writes the folder (created if missing) and returns its size in bytes.

    Args:
      card: the model card, Markdown; metadata that it lacks are added (`interop.card`). dtype:
        "float16" or "bfloat16" of the stored tensors. bits: name -> 8, of parts whose large matrices
        are stored in 8 bits instead, or 6, with tables in 6 bits, too (see `interop.int8`). exact:
        names of those stored as they are, in float32. digests: of a Thinker and encoder that are
        inside, by which evaluations know them. taken: name -> file and entry of a part that another
        release stores in the same way, see `stored_alike`: it is copied, not stored anew.

    Raises:
      UserError: parameters that do not fit their sizes, a value that `dtype` cannot hold, a folder
        of something else, or a disk that is full; an older release stays as it was.
    """
    if dtype not in DTYPES:
        raise UserError(f"a release stores {' or '.join(DTYPES)}, not {dtype}")
    folder = check_destination(folder)
    about: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "name": release.name, "thinker": release.thinker,
        "encoder": release.encoder,
        "system": release.system, "examples": release.examples, "silence": list(release.silence),
        "digests": dict(digests or {}), "untrained": list(release.untrained), "parts": {},
    }  # fmt: skip
    names = [CONFIG, CARD, *(f"{name}.safetensors" for name in release.parts)]
    names += [_tokenizer_file(name) for name, part in release.parts.items() if part.tokenizer]
    # they take their names when all are written, config.json as the last
    with contextlib.ExitStack() as files:
        new = {name: files.enter_context(written_whole(folder / name)) for name in names}
        for name, part in release.parts.items():
            path, how = new[f"{name}.safetensors"], EXACT if name in exact else dtype
            if taken and name in taken:
                shutil.copyfile(taken[name][0], path)
                about["parts"][name] = {**taken[name][1], "file": f"{name}.safetensors"}
            else:
                about["parts"][name] = store_part(path, name, part, how, (bits or {}).get(name, 16))
            if part.tokenizer:
                written = part.tokenizer.encode()
                new[_tokenizer_file(name)].write_bytes(written)
                about["parts"][name]["tokenizer"] = {
                    "file": _tokenizer_file(name), "sha256": hashlib.sha256(written).hexdigest()
                }  # fmt: skip
        new[CARD].write_text(cards.complete(card, cards.metadata(release)), encoding="utf-8")
        new[CONFIG].write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def stored_alike(
    folder: Path, names: Collection[str], dtype: str, bits: Mapping[str, int]
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """`taken` of `save_release`: those of the named parts that a release stores in these types.
    Storing them once more would round them once more, and give a file of other bytes.
    """
    about, found = read_about(folder), {}
    for name in set(names) & about.raw["parts"].keys():
        entry = about.raw["parts"][name]
        if entry["dtype"] == NARROW.get(bits.get(name, 16), dtype):
            sizes = {"config": dataclasses.asdict(about.parts[name][1])}  # with today's names
            prompt = about.trained_after.get(name)
            said = {} if prompt is None else {"prompt": dataclasses.asdict(prompt)}
            found[name] = (remote.whole(_file(folder, entry)), {**entry, **sizes, **said})
    return found


def store_part(
    path: Path, name: str, part: Part, dtype: str = EXACT, bits: int = 16
) -> dict[str, Any]:
    """Writes the tensors of a part and returns its entry of config.json. Arguments and errors as of
    `save_release`, for this part.
    """
    stored = stored_tensors(name, part, dtype, bits)
    write_tensors(path, stored, {"kind": part.kind})
    path.chmod(0o644)  # the safetensors library makes files that only their owner reads
    entry = {
        "kind": part.kind, "file": f"{name}.safetensors",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "dtype": NARROW.get(bits, dtype), "config": dataclasses.asdict(part.config),
    }  # fmt: skip
    return entry | ({} if part.prompt is None else {"prompt": dataclasses.asdict(part.prompt)})


def check_destination(folder: str | os.PathLike) -> Path:
    """The folder that a release is to be written to; a UserError if files of something else are in it,
    of which it would replace README.md and config.json.
    """
    folder = Path(folder)
    check_writable(folder, "give another -o", folder=True)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {"thinker", "encoder"} and (
        CONFIG not in names or read_json(folder / CONFIG).get("format") != FORMAT
    ):
        raise UserError(
            f"{folder} holds something else than a release, such as {min(names)}: "
            "give another -o, or an empty folder"
        )
    return folder


def load_release(name_or_path: str | os.PathLike, only: Collection[str] = ()) -> Release:
    """Opens a release, see `find_release`.

    Args:
      only: names of the parts to read, those of them that it has; () reads all.

    Raises:
      UserError: no such release; another format or version; a file that is missing, truncated or
        altered; tensors that do not fit the config.
    """
    about = read_about(name_or_path)
    raw = about.raw
    with _complete(about.folder):
        wanted = [name for name in about.parts if not only or name in only]
        parts = {name: _read_part(about, name) for name in wanted}
        silence = tuple(int(i) for i in raw["silence"])
        return Release(
            str(raw["name"]),
            parts,
            about.thinker,
            about.encoder,
            about.prompt.system,
            about.prompt.examples,
            silence,
            about.untrained,
            about.folder,
        )


def load_part(name_or_path: str | os.PathLike, name: str) -> Part:
    """One part; the others are not read. Raises UserError as `load_release`, or naming the parts there
    are.
    """
    about = read_about(name_or_path)
    _require(name, about.parts, str(about.raw.get("name")))
    with _complete(about.folder):
        return _read_part(about, name)


def read_about(name_or_path: str | os.PathLike) -> About:
    """What a release says of itself; no weights are read. Raises UserError as `load_release`."""
    folder = find_release(name_or_path)
    raw = read_json(folder / CONFIG)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise UserError(
            f"{folder / CONFIG} is the config of another model, not of an mdmspeech release; give "
            "the folder that `mdmspeech release` or `mdmspeech assemble` wrote"
        )
    if raw.get("version") not in _READS:
        raise UserError(
            f"{folder} has release format {raw.get('version')}, this program "
            f"reads {VERSION}; update mdmspeech or fetch that release again"
        )
    with _complete(folder):
        parts = {
            name: (entry["kind"], config_from(entry["kind"], entry["config"], f"{folder}: {name}"))
            for name, entry in raw["parts"].items()
        }
        thinker, encoder = (_inside(folder, str(raw[key])) for key in ("thinker", "encoder"))
        untrained = tuple(str(name) for name in raw.get("untrained", ()))
        prompt = prompts.Prompt.of(
            {"system": raw["system"], "examples": raw["examples"]}, str(folder / CONFIG)
        )
        # Releases of before this was stored say of no part what it was trained after: it is taken
        # for what they speak after.
        stored = {
            name: entry.get("prompt", dataclasses.asdict(prompt))
            for name, entry in raw["parts"].items()
        }
        reading = [
            name for name, part in parts.items() if reads_prompt(*part) and name not in untrained
        ]
        trained_after = {
            name: prompts.Prompt.of(stored[name], f"{folder / CONFIG}: {name}") for name in reading
        }
        cure = (
            f"write that of the {next(iter(trained_after), 'part')} back into "
            f"{CONFIG}, or train again on a system with the other"
        )
        agreed_prompt(
            {f"the {name} of {folder}": found for name, found in trained_after.items()},
            prompt,
            str(folder / CONFIG),
            cure,
        )
        return About(folder, raw, parts, thinker, encoder, untrained, prompt, trained_after)


def agreed_prompt(
    trained_after: Mapping[str, prompts.Prompt],
    wanted: prompts.Prompt | None = None,
    where: str = "",
    cure: str = "",
) -> prompts.Prompt | None:
    """The one prompt of parts (named for people) that were trained after one, and of a system that is
    to begin its conversations with `wanted`, if it is to.

    Raises:
      UserError: names two that differ, and what to do: `cure` where a part differs from `wanted`,
        which `where` says.
    """
    agreed, told = wanted, f"{where} has"
    for name, prompt in trained_after.items():
        if agreed is not None and prompt != agreed:
            raise UserError(
                f"{name} was trained after the prompt {prompt}; {told} {agreed} "
                f"({prompt.unlike(agreed)}). A part works after its own prompt only: {cure}"
            )
        agreed, told = prompt, f"{name} after"
        cure = (
            "train one of them again on a system that has the other's (mdmspeech assemble --system "
            "TEXT, then mdmspeech train --system DIR)"
        )
    return agreed


def _inside(folder: Path, name: str) -> str:
    """The sub-folder of that name as a path, if there is one; else the name."""
    plain = Path(name).name == name and name not in ("", ".", "..")
    if plain and (folder / name / CONFIG).is_file():
        return str(folder / name)
    snapshot = hub.snapshot_of(folder)
    if snapshot is None or name in (SMOLLM2, WHISPER_BASE):
        return name
    if plain and hub.has(folder / name / CONFIG):
        return str(folder / name)
    raise UserError(
        f"{snapshot.name} names {name!r} as a part of its system, which is not in it: its owner puts "
        "it in with `mdmspeech assemble`, and pushes it again"
    )


@contextlib.contextmanager
def _complete(folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / CONFIG} is incomplete ({type(error).__name__}: {error}); "
            "fetch the release again"
        ) from error


def find_release(
    name_or_path: str | os.PathLike, revision: str | None = None, access: hub.Access | None = None
) -> Path:
    """The folder of a release; of one in a bucket, a local one; of one on the Hub, that of the cache,
    whose files come when they are read (`hub.fetched`).

    Args:
      name_or_path: the name of one shipped in the package ("compact"), a folder or the URL of one,
        or where there is no such folder, "OWNER/NAME" or "OWNER/NAME@REVISION" on the Hugging Face
        Hub. revision, access: of one on the Hub, see `hub.find`.

    Raises:
      UserError: names the shipped ones if there is no such folder; as `hub.find`.
    """
    shipped = Path(str(resources.files("mdmspeech") / "assets"))
    text = os.fspath(name_or_path)
    if remote.is_remote(text):
        text = str(remote.local_folder(text))
    candidates = ([shipped / text] if text.isidentifier() else []) + [Path(text).expanduser()]
    found = next((folder for folder in candidates if (folder / CONFIG).is_file()), None)
    on_hub = found is None and not candidates[-1].exists() and hub.parse(text) is not None
    if revision and not on_hub:
        raise UserError(
            f"revision={revision!r} is of a repository on the Hugging Face Hub, and {text} is none: "
            "leave it out"
        )
    if found is None and on_hub:
        found = hub.find(text, revision, access)
    if found is not None:
        return found
    names = sorted(config.parent.name for config in shipped.glob(f"*/{CONFIG}"))
    raise UserError(
        f"no release {text!r} ({CONFIG} not found); shipped: {', '.join(names) or 'none yet'}; or "
        "give the path of a release folder, or OWNER/NAME of the Hugging Face Hub"
    )


def fetch_all(about: About) -> None:
    """Has all files of a release on the Hub in the cache, for who opens `about.folder`, or the Thinker
    and the encoder inside, in another process.
    """
    if hub.snapshot_of(about.folder):
        for entry in about.raw["parts"].values():
            for each in filter(None, (entry, entry.get("tokenizer"))):
                _file(about.folder, each)
        for inside in (about.thinker, about.encoder):
            hub.fetched_folder(Path(inside))


def _read_part(about: About, name: str) -> Part:
    entry, (kind, config) = about.raw["parts"][name], about.parts[name]
    path, sha256 = _file(about.folder, entry), entry["sha256"]

    def read() -> dict[str, Any]:
        hub.checked(remote.whole(path), sha256)
        stored = from_int8(read_tensors(path), str(path))
        tensors = {key: np.asarray(value, np.float32) for key, value in stored.items()}
        return fit(tensors, kind, config, str(path))

    params = read() if remote.hole(path) else converted(name, [path], (sha256, kind, config), read)
    tokenizer = None
    if KINDS[kind].reads_text(config) and (stored := entry.get("tokenizer")):
        file = remote.whole(_file(about.folder, stored))
        tokenizer = hub.checked(file, stored["sha256"]).decode()
    return Part(kind, config, params, about.trained_after.get(name), tokenizer)


def _tokenizer_file(part: str) -> str:
    return f"{part}.tokenizer.json"


def _file(folder: Path, entry: Mapping[str, Any]) -> Path:
    """The file that an entry of config.json names. UserError: it is not in the folder."""
    path = folder / str(entry["file"])
    if path.parent != folder or not hub.fetched(path).is_file():
        raise UserError(f"{path} is missing; fetch the release again")
    return path
