"""What a stage tells of itself."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

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
      mark: (path, ThinkerConfig) -> what tells that Thinker's weights from others'.
      tokenizer: (path) -> the Thinker's `text.tokenizer.Tokenizer`.
      release: (name or folder of a release, part) -> that part's parameters. describe: (the same)
        -> (whether it is trained, whether it is autoregressive as in `Origin`, its prompt or None).
    """

    whisper_decoder: Callable | None = None
    encoder: Callable | None = None
    thinker: Callable | None = None
    tokenizer: Callable | None = None
    release: Callable | None = None
    describe: Callable | None = None
    mark: Callable | None = None


class Origin(NamedTuple):
    """What matters of something that a stage starts from.

    Attributes:
      autoregressive: it predicts the next token or tokens only, and cannot fill masks. reads_prompt: it works
        with a Thinker's states, which are what they are after one prompt.
    """

    autoregressive: bool = False
    reads_prompt: bool = False


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
      choices: words that a setting may have, by its dotted name. teaches: (config) -> whether what
        this experiment starts from is its teacher, too. origin: (config.json of a finished run) ->
        what matters to whoever starts from it. updates_thinker: (the same) -> whether it brings a
        low-rank update of the Thinker.
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
    choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    teaches: Callable[[ConfigDict], bool] = lambda config: False
    origin: Callable[[Mapping[str, Any]], Origin] = lambda run: Origin()
    updates_thinker: Callable[[Mapping[str, Any]], bool] = lambda run: False
    show: Callable[[ConfigDict, Path, str | Path | None], Callable | None] | None = None
