"""From an experiment's config to its task: the only place that knows every stage by name."""

from pathlib import Path

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training.task import Task


def make_task(config: ConfigDict, root: str | Path | None = None) -> Task:
    """The task of `config.stage`, reading the corpus under `root` (see `data.store.data_root`) and earlier stages from `config.init_from`."""
    stages = {"codec": _codec}
    if config.stage not in stages:
        raise UserError(f"config.stage is {config.stage!r}: use one of {', '.join(stages)}")
    return stages[config.stage](config, root)


def _codec(config: ConfigDict, root) -> Task:
    from mdmspeech.codec.compact.config import CompactCodecConfig
    from mdmspeech.data import crops
    from mdmspeech.data.sources import speech
    from mdmspeech.training.stages.codec import CodecTask

    model = CompactCodecConfig(**config.codec)
    sizes = dict(token_samples=model.token_samples, phones=model.phones)

    def batches(split: str, seed: int):
        source = speech(root, tuple(config.data.parts), split)
        if split != "train":
            return crops.codec_crops(source, batch=min(32, len(source)), tokens=config.data.tokens, seed=0, train=False, **sizes)
        return crops.codec_crops(source, batch=config.data.batch, tokens=config.data.tokens, seed=seed, **sizes)

    return CodecTask(model, config.phase, batches, start=_start(config))


def _start(config: ConfigDict):
    """A function params -> params that loads the earlier run named by the config, or None."""
    if not config.get("init_from"):
        return None
    from mdmspeech.training.warm_start import load_params, overwrite

    return lambda params: overwrite(params, load_params(config.init_from))
