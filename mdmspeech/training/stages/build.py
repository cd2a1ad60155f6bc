"""From an experiment's config to its task: the only place that knows every stage by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training.task import Task


def make_task(
    config: ConfigDict, workdir: str | Path, root: str | Path | None = None, load_whisper_decoder: Callable | None = None
) -> Task:
    """The task of `config.stage`, reading the corpus under `root` (see `data.store.data_root`).

    `config.init_from` names the earlier run it starts from: a folder, or the name of a run beside `workdir`. `load_whisper_decoder` is
    `interop.whisper_decoder.load_whisper_decoder` (this room does not import that one), for an attention adaptor.
    """
    stages: dict[str, Callable[[ConfigDict, Path, str | Path | None], Task]] = {
        "codec": _codec,
        "talker": _talker,
        "hearing": partial(_hearing, load_whisper_decoder),
    }
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


def _hearing(load_whisper_decoder: Callable | None, config: ConfigDict, workdir: Path, root) -> Task:
    from mdmspeech.data.states import StateStore, pieces_then, state_batches
    from mdmspeech.training.stages.hearing import SpellingTask, WritingTask

    def batches(split: str, seed: int, **texts):
        return state_batches(StateStore(root, f"questions_{split}"), batch=config.data.batch, seed=seed, **texts)

    if config.mode == "ctc":
        from mdmspeech.models.spelling_adaptor import SpellingConfig, encode_text

        return SpellingTask(SpellingConfig(**config.adaptor), partial(batches, encode_text=encode_text))
    if config.mode != "attention":
        raise UserError(f"config.mode is {config.mode!r}: a hearing stage is 'attention' or 'ctc'")
    from mdmspeech.models.attention_adaptor import AttentionConfig

    model = AttentionConfig(**config.adaptor)
    start = None
    if config.start_layers:
        if load_whisper_decoder is None:
            raise UserError("config.start_layers names layers of Whisper's decoder, but this caller gave no function that loads them")
        start = partial(load_whisper_decoder, model, tuple(config.start_layers))

    pipeline = partial(batches, encode_text=pieces_then(model.end), ids_per_second=5, ids_more=10)
    return WritingTask(model, pipeline, start=start, **config.training)


def _start(config: ConfigDict, workdir: Path):
    """A function () -> parameters of the earlier run named by the config, or None."""
    if not config.init_from:
        return None
    from mdmspeech.training.warm_start import load_params

    return lambda: load_params(workdir.parent / Path(config.init_from).expanduser())
