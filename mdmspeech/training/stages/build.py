"""From an experiment's config to its task: the only place that knows every stage by name."""

from pathlib import Path

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training.task import Task


def make_task(config: ConfigDict, workdir: str | Path, root: str | Path | None = None) -> Task:
    """The task of `config.stage`, reading the corpus under `root` (see `data.store.data_root`).

    `config.init_from` names the earlier run it starts from: a folder, or the name of a run beside `workdir`.
    """
    stages = {"codec": _codec, "talker": _talker, "hearing": _hearing}
    if config.stage not in stages:
        raise UserError(f"config.stage is {config.stage!r}: use one of {', '.join(stages)}")
    config.init_from = config.get("init_from", "")
    return stages[config.stage](config, Path(workdir).expanduser(), root)


def _codec(config: ConfigDict, workdir: Path, root) -> Task:
    from mdmspeech.codec.compact.config import CompactCodecConfig
    from mdmspeech.data import crops
    from mdmspeech.data.sources import speech
    from mdmspeech.training.stages.codec import CodecTask

    model = CompactCodecConfig(**config.codec)

    def batches(split: str, seed: int):
        source, train = speech(root, tuple(config.data.parts), split), split == "train"
        return crops.codec_crops(
            source,
            batch=config.data.batch if train else min(config.data.batch, len(source)),
            tokens=config.data.tokens,
            token_samples=model.token_samples,
            seed=seed,
            train=train,
            phones=model.phones,
        )

    return CodecTask(model, config.phase, batches, start=_start(config, workdir))


def _talker(config: ConfigDict, workdir: Path, root) -> Task:
    from mdmspeech.data.talker import talker_batches
    from mdmspeech.data.tokens import TokenStore
    from mdmspeech.diffusion import masking
    from mdmspeech.models import talker
    from mdmspeech.training.stages.talker import TalkerTask

    model = talker.TalkerConfig(**config.talker)
    data = config.data

    def batches(split: str, seed: int):
        source = TokenStore(root, tuple(data.parts), split)
        return talker_batches(
            source, batch=data.batch, length=data.length, symbols=data.symbols, block=model.block, eos=talker.EOS, pad=talker.PAD,
            token_seconds=data.token_seconds, seed=seed,
        )  # fmt: skip

    schedule = masking.get(config.masking.name, **{k: v for k, v in config.masking.items() if k != "name"})
    return TalkerTask(
        model,
        config.mode,
        batches,
        schedule,
        distillation=dict(config.distillation),
        capacity=config.capacity,
        start=_start(config, workdir),
    )


def _hearing(config: ConfigDict, workdir: Path, root) -> Task:
    from mdmspeech.data.states import StateStore, state_batches
    from mdmspeech.models.spelling_adaptor import SpellingConfig, encode_text
    from mdmspeech.training.stages.hearing import SpellingTask

    def batches(split: str, seed: int):
        return state_batches(StateStore(root, f"questions_{split}"), batch=config.data.batch, seed=seed, encode_text=encode_text)

    return SpellingTask(SpellingConfig(**config.adaptor), batches)


def _start(config: ConfigDict, workdir: Path):
    """A function () -> parameters of the earlier run named by the config, or None."""
    if not config.init_from:
        return None
    from mdmspeech.training.warm_start import load_params

    return lambda: load_params(workdir.parent / Path(config.init_from).expanduser())
