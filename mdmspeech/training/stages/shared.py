"""What stages share when they are built from an experiment's config."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.training.stages.stage import Loaders
from mdmspeech.training.stages.start import RANDOM, find_start


def load_named(config: ConfigDict, part: str, load: Callable | None, model) -> Callable | None:
    """A function (what else `load` takes) -> the parameters of `config.weights.<part>`, a path;
    None if that is "random".
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
    """Of a task: start, a function () -> parameters of what `config.init_from` names, looked for
    when it is called, or None; and which may differ.
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


def mixture(data: ConfigDict) -> dict[str, Any]:
    """How often each part is drawn: `weights` and `temperature` of `packing.mixing.Mixture`."""
    weights = dict(zip(data.parts, data.weights, strict=True)) if data.weights else None
    return {"weights": weights, "temperature": data.get("temperature", 1.0)}


def each_source(config: ConfigDict, pipeline: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """`Task.sources` of a mixture: for each part `pipeline(config, split, seed)` of a config that
    has this part alone.
    """

    def alone(part: str) -> ConfigDict:
        one = copy.deepcopy(config)
        with one.unlocked():
            one.data.parts, one.data.weights = (part,), ()
        return one

    parts = tuple(config.data.parts)
    return {part: partial(pipeline, alone(part)) for part in parts if len(parts) > 1}


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


def mark_of(config: ConfigDict, loaders: Loaders) -> str:
    """What tells the Thinker's weights of this config from others'; "" where they are random."""
    model, mark = ThinkerConfig(**config.thinker), loaders.mark
    read = load_named(config, "thinker", mark, model)
    return read() if read else ""


def tiny_thinker(config: ConfigDict) -> None:
    """A Thinker of a few thousand parameters, random as everything that would be loaded."""
    config.thinker.update(
        vocab_size=512, dim=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, ffn_dim=128
    )
    for part in config.weights:
        config.weights[part] = RANDOM
    config.prompt.system = ""
