"""What a stage tells of itself, and what stages share when they are built from an experiment's
config.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training.stages.start import RANDOM, find_start
from mdmspeech.training.task import Task


@dataclasses.dataclass(frozen=True)
class Loaders:
    """What loads weights of other people's making; this room does not know their formats, so the
    caller brings them (`interop`).

    Attributes:
      whisper_decoder: (Seq2SeqConfig, layers) -> parameters of a seq2seq adaptor.
      encoder: (path, SpeechEncoderConfig, abstract parameters) -> parameters of a speech encoder,
        in the type and at the places that the abstract ones have.
      thinker: (path, ThinkerConfig, abstract parameters) -> parameters of a Thinker, likewise.
      tokenizer: (path) -> the Thinker's `text.tokenizer.Tokenizer`.
      release: (name or folder of a release, part) -> that part's parameters. describe: (the same)
        -> (its kind, whether it is trained, its prompt or None).
    """

    whisper_decoder: Callable | None = None
    encoder: Callable | None = None
    thinker: Callable | None = None
    tokenizer: Callable | None = None
    release: Callable | None = None
    describe: Callable | None = None


class Exported(NamedTuple):
    """A finished run as a part of a release.

    Attributes:
      kind: on disk, a key of `interop.parts.KINDS`. sizes: of the part's config. section: where the
        run's config.json has them, for messages.
      params: the run's parameters -> the part's.
    """

    kind: str
    sizes: Mapping[str, Any]
    section: str
    params: Callable[[Any], Any] = lambda params: params


@dataclasses.dataclass(frozen=True)
class Stage:
    """Everything of a training stage. One file holds it, and puts it into the registry
    (`build.register`, or a line in `build.SHIPPED`).

    Attributes:
      name: `config.stage` of its experiments. needs: the settings it reads beside those of all
        stages.
      from_config: (config, workdir, folder of the corpus or None, loaders) -> its task. Nothing is
        loaded yet, and the config stays as it is.
      tiny: makes a fresh config one of a small model; `experiments.local` sets batch, data, and
        steps.
      exports: part of a release -> (config.json of a finished run) -> what the run gives to it.
        Raises UserError if it gives something else.
      show: (config, workdir, folder of the corpus or None) -> function (params, step, outdir) ->
        scores that writes samples, or None. The stages of this package need voices and recognisers
        for it, which this room may not import: theirs are in `evaluation.samples`.
    """

    name: str
    needs: tuple[str, ...]
    from_config: Callable[[ConfigDict, Path, str | Path | None, Loaders], Task]
    tiny: Callable[[ConfigDict], None]
    exports: Mapping[str, Callable[[Mapping[str, Any]], Exported]] = dataclasses.field(
        default_factory=dict
    )
    show: Callable[[ConfigDict, Path, str | Path | None], Callable | None] | None = None


def load_named(config: ConfigDict, part: str, load: Callable | None, model) -> Callable | None:
    """A function (what else `load` takes) -> the parameters of `config.weights.<part>`, a path; None
    if that is "random".
    """
    path = config.weights[part]
    if path == RANDOM:
        return None

    def read(*places):
        if not path:
            raise UserError(
                f"weights.{part} is empty: name a checkpoint on this machine "
                f"(--set weights.{part}=PATH), or 'random' to try things out"
            )
        if load is None:
            raise UserError(
                f"weights.{part} is {path!r}, but this caller gave no function that loads it"
            )
        return load(path, model, *places)

    return read


def start_of(config: ConfigDict, workdir: Path, loaders: Loaders) -> dict[str, Any]:
    """Of a task: start, a function () -> parameters of what `config.init_from` names, looked for when
    it is called, or None; and which may differ.
    """
    if config.get("init_from", "") in ("", RANDOM):
        return {"start": None}

    def start():
        found = find_start(config, workdir, loaders)
        assert found is not None
        return found.params()

    return {
        "start": start,
        "differing": {name: tuple(config.get(f"init_{name}", ())) for name in ("fresh", "ignored")},
    }


def mixture_weights(data: ConfigDict) -> dict[str, float] | None:
    """How often each part is drawn; None: by their sizes."""
    return dict(zip(data.parts, data.weights, strict=True)) if data.weights else None


def chat_of(config: ConfigDict, loaders: Loaders):
    """How conversations are written for the Thinker of this config."""
    from mdmspeech.data.pipelines.conversations import Conversations

    return Conversations(tokenizer_of(config, loaders), config.prompt.to_dict())


def tokenizer_of(config: ConfigDict, loaders: Loaders):
    """The Thinker's tokenizer; one of bytes where its weights are random."""
    from mdmspeech.data.pipelines.random_source import byte_tokenizer

    load = loaders.tokenizer
    read = load_named(config, "tokenizer", load and (lambda path, _: load(path)), None)
    return read() if read else byte_tokenizer()


def tiny_thinker(config: ConfigDict) -> None:
    """A Thinker of a few thousand parameters, random as everything that would be loaded."""
    config.thinker.update(
        vocab_size=512, dim=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, ffn_dim=128
    )
    for part in config.weights:
        config.weights[part] = RANDOM
    config.prompt.system = ""
