"""From an experiment's config to its task: the only place that knows every stage by name."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training import distributed
from mdmspeech.training.stages.start import RANDOM, find_start
from mdmspeech.training.task import Task


@dataclasses.dataclass(frozen=True)
class Loaders:
    """What loads weights of other people's making; this room does not know their formats, so the caller brings them (`interop`).

    Attributes:
      whisper_decoder: (AttentionConfig, layers) -> parameters of an attention adaptor.
      encoder: (path, SpeechEncoderConfig, abstract parameters) -> parameters of a speech encoder, in the type and at the places that the abstract ones have.
      thinker: (path, ThinkerConfig, abstract parameters) -> parameters of a Thinker, likewise.
      tokenizer: (path) -> the Thinker's `text.tokenizer.Tokenizer`.
      release: (name or folder of a release, part) -> that part's parameters. describe: (the same) -> (its kind, whether it is trained, its prompt or None).
    """

    whisper_decoder: Callable | None = None
    encoder: Callable | None = None
    thinker: Callable | None = None
    tokenizer: Callable | None = None
    release: Callable | None = None
    describe: Callable | None = None


# What the config of a stage holds, beside what all have.
_NEEDS = {
    "codec": ("codec", "phase", "data"),
    "talker": ("talker", "mode", "masking", "distillation", "data"),
    "hearing": ("adaptor", "mode", "data"),
    "thinker": ("encoder", "thinker", "weights", "prompt", "data"),
    "phones": ("aligner", "data"),
}


def make_task(config: ConfigDict, workdir: str | Path, root: str | Path | None = None, loaders: Loaders = Loaders()) -> Task:
    """The task of `config.stage`, reading the corpus under `root` (see `data.storage.record_store.data_root`). Nothing is loaded yet.

    `config.init_from` names what it starts from, a run or a part of a release ("compact"), see `start.find_start`; or "random". `config.init_fresh` and
    `config.init_ignored` name the parameters that may differ, see `warm_start.overwrite`.
    """
    stages: dict[str, Callable[[ConfigDict, Path, str | Path | None, Loaders], Task]] = {
        "codec": _codec,
        "talker": _talker,
        "hearing": _hearing,
        "thinker": _thinker,
        "phones": _phones,
    }
    if config.stage not in stages:
        raise UserError(f"config.stage is {config.stage!r}: use one of {', '.join(stages)}")
    if missing := [name for name in _NEEDS[config.stage] if name not in config]:
        raise UserError(
            f"config.stage is {config.stage!r}, but the experiment has no {missing[0]!r}: leave its stage as it was, or give --config an experiment of that stage"
        )
    config.init_from = config.get("init_from", "")
    return stages[config.stage](config, Path(workdir).expanduser(), root, loaders)


def _codec(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    from mdmspeech.codec.compact.config import CompactCodecConfig
    from mdmspeech.data.pipelines import codec_crops
    from mdmspeech.data.pipelines.random_source import RandomRecordings
    from mdmspeech.data.storage.sources import speech
    from mdmspeech.training.stages.codec import CodecTask

    model = CompactCodecConfig(**config.codec)
    if config.train.dtype != "float32":
        raise UserError(f"train.dtype is {config.train.dtype!r}: the codec's spectra need float32")

    def batches(split: str, seed: int):
        random, train = config.data.parts == (RANDOM,), split == "train"
        source: Any = RandomRecordings(seed=seed, symbols=model.phones) if random else speech(root, tuple(config.data.parts), split)
        return codec_crops.codec_crops(
            source,
            batch=config.data.batch if train else min(config.data.batch, len(source)),
            tokens=config.data.tokens,
            token_samples=model.token_samples,
            seed=seed,
            train=train,
            phones=model.phones,
            shard=_shard(),
        )

    return CodecTask(
        model, config.phase, batches, sizes=dict(batch=config.data.batch, tokens=config.data.tokens), **_start(config, workdir, loaders)
    )


def _talker(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    from mdmspeech.diffusion import masking
    from mdmspeech.models import talker
    from mdmspeech.models.thinker import ThinkerConfig
    from mdmspeech.training.stages.talker import TalkerTask

    model = talker.TalkerConfig(**config.talker)
    if config.mode == "isd" and not config.init_from:
        raise UserError("self-distillation starts from a trained Talker: set init_from to its run (or 'random', to try things out)")
    thinker = ThinkerConfig(**config.thinker) if model.anchors == "fixed" else None
    schedule = masking.get(config.masking.name, **{k: v for k, v in config.masking.items() if k != "name"})
    sizes = {name: config.data[name] for name in ("batch", "length", "layout", "symbols", "text") if name in config.data}
    return TalkerTask(
        model,
        config.mode,
        partial(_talker_batches, config, model, root, loaders),
        schedule,
        sizes=sizes,
        distillation=dict(config.distillation),
        **_start(config, workdir, loaders),
        thinker=thinker,
        load_thinker=_named(config, "thinker", loaders.thinker, thinker) if thinker else None,
        **{name: config[name] for name in ("capacity", "streams", "new_mask", "label_smoothing", "z_loss") if name in config},
    )


def _talker_batches(config: ConfigDict, model, root, loaders: Loaders, split: str, seed: int):
    from mdmspeech.data.pipelines import random_source, talker_packed
    from mdmspeech.data.pipelines.talker_joined import talker_batches
    from mdmspeech.data.storage.token_store import TokenStore
    from mdmspeech.models import talker

    data = config.data
    paced = model.anchors == "paced"
    shared = dict(batch=data.batch, length=data.length, block=model.block, eos=talker.EOS, pad=talker.PAD, seed=seed, shard=_shard())
    if data.layout == "joined":
        random = tuple(data.parts) == (RANDOM,)
        joined: Any = random_source.RandomSpeech(seed=seed, symbols=model.symbols) if random else TokenStore(root, tuple(data.parts), split)
        if (least := int(talker_packed.counts_of(joined, "symbols").min())) > data.symbols:
            raise UserError(f"data.symbols={data.symbols} is too small: no utterance has fewer than {least} symbols")
        return talker_batches(joined, symbols=data.symbols, token_seconds=data.token_seconds, **shared)
    if data.layout != "packed":
        raise UserError(f"data.layout is {data.layout!r}: use 'packed' (utterances side by side) or 'joined' (one after another, cut)")

    def source(part: str):
        if part == RANDOM:
            return random_source.RandomSpeech(seed=seed, symbols=model.symbols, token_seconds=data.token_seconds)
        return TokenStore(root, (part,), split, needs_text=not paced)

    text: Any
    if paced:
        text = talker_packed.PacedText(data.symbols, data.token_seconds)
    elif model.anchors == "prefix":
        text = talker_packed.PrefixText(data.text, _tokenizer(config, loaders).encode)
    else:
        text = talker_packed.FixedText(data.text, _chat(config, loaders), model.block, model.anchors_per_block)
    return talker_packed.packed_talker_batches(
        {p: source(p) for p in data.parts}, text, weights=_weights(data), threads=data.threads, **shared
    )


def _thinker(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    from mdmspeech.models.speech_encoder import SpeechEncoderConfig
    from mdmspeech.models.thinker import ThinkerConfig
    from mdmspeech.training.stages.thinker import SpeechToTextTask

    encoder, thinker = SpeechEncoderConfig(**config.encoder), ThinkerConfig(**config.thinker)
    load = {
        "encoder": _named(config, "encoder", loaders.encoder, encoder),
        "thinker": _named(config, "thinker", loaders.thinker, thinker),
    }
    sizes = {name: config.data[name] for name in ("batch", "length", "frames")}
    settings = {name: config[name] for name in ("hidden", "chunk", "label_smoothing", "z_loss") if name in config}
    return SpeechToTextTask(encoder, thinker, partial(_conversations, config, root, loaders), sizes, load=load, **settings)


def _conversations(config: ConfigDict, root, loaders: Loaders, split: str, seed: int):
    from mdmspeech.data.pipelines import random_source, thinker_packed
    from mdmspeech.data.storage import sources

    data = config.data

    def source(part: str):
        return random_source.RandomQuestions(seed=seed) if part == RANDOM else sources.questions(root, split, parts=(part,))

    return thinker_packed.lm_batches(
        {part: source(part) for part in data.parts},
        _chat(config, loaders),
        batch=data.batch,
        frames=data.frames,
        length=data.length,
        num_mels=config.encoder.num_mels,
        seed=seed,
        weights=_weights(data),
        shard=_shard(),
        threads=data.threads,
    )


def _chat(config: ConfigDict, loaders: Loaders):
    """How conversations are written for the Thinker of this config."""
    from mdmspeech.data.pipelines.conversations import Conversations

    return Conversations(_tokenizer(config, loaders), config.prompt.to_dict())


def _tokenizer(config: ConfigDict, loaders: Loaders):
    from mdmspeech.data.pipelines.random_source import byte_tokenizer

    load = loaders.tokenizer
    read = _named(config, "tokenizer", load and (lambda path, _: load(path)), None)
    return read() if read else byte_tokenizer()


def _weights(data: ConfigDict) -> dict[str, float] | None:
    """How often each part is drawn; None: by their sizes."""
    return dict(zip(data.parts, data.weights, strict=True)) if data.weights else None


def _shard() -> tuple[int, int]:
    """Which share of each batch this process makes, of how many."""
    return distributed.share()


def _hearing(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    from mdmspeech.data.pipelines.bucketed_states import pieces_then, state_batches
    from mdmspeech.data.pipelines.random_source import RandomStates
    from mdmspeech.data.storage.state_store import StateStore
    from mdmspeech.training.stages.hearing import CTCTask, Seq2SeqTask

    def batches(split: str, seed: int, **texts):
        random = tuple(config.data.get("parts", ())) == (RANDOM,)
        source: Any = RandomStates(config.adaptor.states, seed=seed) if random else StateStore(root, f"questions_{split}")
        return state_batches(source, batch=config.data.batch, seed=seed, shard=_shard(), **texts)

    if config.mode == "ctc":
        from mdmspeech.models.ctc_adaptor import CTCConfig, text_to_ids

        texts: dict[str, Any] = dict(ids_per_second=24, ids_more=0)
        pipeline = partial(batches, encode_text=text_to_ids, **texts)
        return CTCTask(CTCConfig(**config.adaptor), pipeline, sizes=dict(batch=config.data.batch, **texts))
    if config.mode != "attention":
        raise UserError(f"config.mode is {config.mode!r}: a hearing stage is 'attention' or 'ctc'")
    if "start_layers" not in config:
        raise UserError(
            "config.mode is 'attention', but the experiment has no 'start_layers': take one of that mode, experiments/compact_hearing.py"
        )
    from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig

    model = Seq2SeqConfig(**config.adaptor)
    start = None
    if config.start_layers:
        if loaders.whisper_decoder is None:
            raise UserError("config.start_layers names layers of Whisper's decoder, but this caller gave no function that loads them")
        start = partial(loaders.whisper_decoder, model, tuple(config.start_layers))

    texts = dict(ids_per_second=5, ids_more=10)
    pipeline = partial(batches, encode_text=pieces_then(model.end), **texts)
    return Seq2SeqTask(model, pipeline, sizes=dict(batch=config.data.batch, **texts), start=start, **config.training)


def _named(config: ConfigDict, part: str, load: Callable | None, model) -> Callable | None:
    """A function (what else `load` takes) -> the parameters of `config.weights.<part>`, a path; None if that is "random"."""
    path = config.weights[part]
    if path == RANDOM:
        return None

    def read(*places):
        if not path:
            raise UserError(
                f"weights.{part} is empty: name a checkpoint on this machine (--set weights.{part}=PATH), or 'random' to try things out"
            )
        if load is None:
            raise UserError(f"weights.{part} is {path!r}, but this caller gave no function that loads it")
        return load(path, model, *places)

    return read


def _phones(config: ConfigDict, workdir: Path, root, loaders: Loaders) -> Task:
    from mdmspeech.data.storage.phone_states import RandomStretches, Stretches, phone_batches
    from mdmspeech.models.phone_classifier import PhoneClassifierConfig
    from mdmspeech.training.stages.phones import PhonesTask

    model, data = PhoneClassifierConfig(**config.aligner), config.data

    def batches(split: str, seed: int):
        source = RandomStretches(model.states, model.symbols) if RANDOM in data.parts else Stretches(root, split)
        return phone_batches(source, split, data.batch, seed)

    return PhonesTask(model, batches, data.batch)


def _start(config: ConfigDict, workdir: Path, loaders: Loaders) -> dict[str, Any]:
    """Of a task: start, a function () -> parameters of what `config.init_from` names, looked for when it is called, or None; and which may differ."""
    if config.init_from in ("", RANDOM):
        return {"start": None}

    def start():
        found = find_start(config, workdir, loaders)
        assert found is not None
        return found.params()

    return {"start": start, "differing": {name: tuple(config.get(f"init_{name}", ())) for name in ("fresh", "ignored")}}
