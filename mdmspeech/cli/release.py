"""`mdmspeech release`: put trained parts together into a release folder."""

import argparse
from pathlib import Path
from typing import Any

from mdmspeech.cli.voice_options import RELEASE
from mdmspeech.errors import UserError

_PARTS = ("codec", "talker", "talker_ntp", "talker_mtp", "adaptor", "aligner", "thinker_lora")


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "release",
        help="make a release folder from trained parts",
        description="Takes the newest checkpoint of each given training run and writes one "
        "folder of safetensors, config.json and a card. "
        "Parts that are not given are taken from --base, if there is one.",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help="the release folder; the shipped one is mdmspeech/assets/compact",
    )
    for name in _PARTS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", metavar="WORKDIR", help=f"run that trained the {name}"
        )
    parser.add_argument(
        "--base", metavar=RELEASE, help="a release to take all other parts from, see chat --model"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name of the release (default: the folder's)"
    )
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="system message of every conversation (default: that of the trained parts or of --base)",
    )
    parser.add_argument(
        "--card",
        metavar="FILE",
        help="the model card, Markdown (default: a short one with the sizes); metadata of the "
        "Hugging Face Hub that it lacks are added",
    )
    parser.add_argument(
        "--license", metavar="ID", help="for the card: apache-2.0, mit, cc-by-4.0, ..."
    )
    parser.add_argument(
        "--datasets",
        default="",
        metavar="OWNER/NAME,...",
        help="for the card: data sets of the Hub that its parts were trained on",
    )
    parser.add_argument(
        "--scores", metavar="FILE", help="for the card: the JSON file of `mdmspeech eval`"
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="also push the folder to this repository of the Hugging Face Hub (made if missing), as "
        "one commit; needs `hf auth login` or HF_TOKEN",
    )
    parser.add_argument(
        "--dtype",
        default="float16",
        choices=("float16", "bfloat16"),
        help="how tensors are stored (default: %(default)s)",
    )
    parser.add_argument(
        "--int8",
        default="",
        metavar="PARTS",
        help="parts stored in 8 bits instead, for example adaptor,talker",
    )
    parser.add_argument(
        "--int6",
        default="",
        metavar="PARTS",
        help="parts stored in 8 bits whose tables (embeddings) are stored in 6",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    from mdmspeech.interop import hub
    from mdmspeech.interop.copying import elsewhere, files_of
    from mdmspeech.interop.release import (
        Release,
        check_destination,
        fetch_all,
        load_release,
        read_about,
        save_release,
        stored_alike,
    )
    from mdmspeech.interop.sources import PUBLISHED, open_thinker, updated
    from mdmspeech.interop.stored_part import as_stored
    from mdmspeech.models.thinker import ThinkerConfig

    check_destination(args.output)
    if args.push:
        hub.check_push(args.push)
    base = load_release(args.base) if args.base else None
    if base and base.folder:
        fetch_all(read_about(base.folder))
    parts = dict(base.parts) if base else {}
    for name in _PARTS:
        workdir = getattr(args, name)
        if workdir:
            parts[name] = part_of_run(workdir, name)
    if not parts:
        raise UserError(
            "no part is given: name at least one of "
            + ", ".join(f"--{name.replace('_', '-')}" for name in _PARTS)
        )
    ordered = {name: parts[name] for name in _PARTS if name in parts}
    card = _read(args.card) if args.card else ""
    bits = {}
    for option, few, names in (("--int8", 8, args.int8), ("--int6", 6, args.int6)):
        for name in filter(None, names.split(",")):
            if name not in ordered:
                raise UserError(f"{option} {name}: this release has {', '.join(ordered)}")
            bits[name] = few
    codec = ordered.get("codec")
    if codec is not None and args.codec:  # which codes it gives to silence the rounding may change
        codec = as_stored("codec", codec, args.dtype, bits.get("codec", 16))
    silence = silence_codes(codec) if codec is not None else ()
    prompt = _prompt(args, ordered, base)
    pretrained: dict[str, Any] = {"thinker": base.thinker, "encoder": base.encoder} if base else {}
    untrained = tuple(
        name for name in (base.untrained if base else ()) if not getattr(args, name, None)
    )
    release = Release(
        args.name or Path(args.output).absolute().name,
        ordered,
        system=prompt.system,
        examples=prompt.examples,
        silence=silence,
        untrained=untrained,
        **pretrained,
    )
    update = ordered.get("thinker_lora")
    if update is not None and isinstance(update.config, ThinkerConfig):
        # that it is of another Thinker is told before anything is written
        updated(open_thinker(release.thinker), update.config, update.params)
    for name, source in {"thinker": release.thinker, "encoder": release.encoder}.items():
        if args.push and source not in PUBLISHED:
            raise elsewhere(name, source)
    kept = [name for name in ordered if not getattr(args, name)]
    taken = stored_alike(base.folder, kept, args.dtype, bits) if base and base.folder else {}
    size = save_release(
        args.output, release, _card(args, release, card), args.dtype, bits, taken=taken
    )
    print(f"{args.output}: {', '.join(ordered)}, {size / 1e6:.1f} MB")
    if args.push:
        print(f"pushed: {hub.push(Path(args.output), files_of(args.output), args.push)}")


def _card(args: argparse.Namespace, release, card: str) -> str:
    """The card with what the options say."""
    from mdmspeech.interop import card as cards
    from mdmspeech.interop.tensors import read_json

    known: dict[str, Any] = {"license": args.license} if args.license else {}
    if args.datasets:
        known["datasets"] = args.datasets.split(",")
    if args.scores:
        known["model-index"] = cards.model_index(
            release.name, read_json(args.scores), release.parts
        )
    return cards.complete(card or cards.default_card(release), cards.metadata(release) | known)


def _prompt(args: argparse.Namespace, parts: dict[str, Any], base):
    """The prompt of the release: as asked for, that of --base (of a new LoRA of the Thinker: its own),
    that of the trained parts, or the compact model's. UserError where they disagree.
    """
    import dataclasses

    from mdmspeech.interop.release import agreed_prompt
    from mdmspeech.text import prompts

    trained = {
        f"the {name} of {getattr(args, name, None) or args.base}": part.prompt
        for name, part in parts.items()
        if part.prompt is not None
    }
    again = "or train it again on a system with the other (mdmspeech train --system DIR)"
    found = (
        agreed_prompt(
            trained,
            base.prompt if base and not args.thinker_lora else None,
            f"--base {args.base}",
            f"take another --base, {again}",
        )
        or prompts.FEW_SHOT
    )
    asked = found if args.system is None else dataclasses.replace(found, system=args.system)
    agreed_prompt(trained, asked, "the release you ask for", f"leave --system out, {again}")
    return asked


def run_config(folder: Path) -> dict[str, Any]:
    """config.json of a training run, with today's names. UserError: it is damaged."""
    from mdmspeech.config_names import upgrade_run
    from mdmspeech.interop.tensors import read_json

    path = folder / "config.json"
    return upgrade_run(read_json(path), str(path))


def part_of_run(workdir: str, name: str):
    """The newest parameters of a training run, with the sizes in its config.json, as an
    `interop.release.Part`.
    """
    from mdmspeech.interop.parts import KINDS
    from mdmspeech.interop.release import Part
    from mdmspeech.training.warm_start import load_params

    folder = Path(workdir).expanduser()
    if not folder.is_dir():
        raise UserError(f"no training run at {workdir}")
    config = run_config(folder)
    exported = _exported(config, name, workdir)
    sizes = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in exported.sizes.items()
    }
    try:
        part = Part(
            exported.kind,
            KINDS[exported.kind].config(**sizes),
            exported.params(load_params(folder)),
        )
        whole = _mixed(part, config) if config.get("start_share") else part
        return _with_tokenizer(_with_prompt(whole, config, folder), config, folder)
    except TypeError as error:
        raise UserError(
            f"{folder / 'config.json'} has sizes that no {exported.kind} has ({error})"
        ) from error


def _exported(config: dict[str, Any], name: str, workdir: str):
    """What the run's stage says of it (`Stage.exports`). UserError: it trained something else, or
    its config.json is damaged.
    """
    from mdmspeech.training.stages.build import SHIPPED, stage_of

    stage = config.get("stage")
    exports = stage_of(stage).exports if isinstance(stage, str) and stage in SHIPPED else {}
    if name not in exports:
        raise UserError(
            f"{workdir} trained {stage or 'something else'}, not the {name}; give another workdir"
        )
    try:
        exported = exports[name](config)
    except UserError as error:
        raise UserError(f"{workdir} {error}") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{Path(workdir) / 'config.json'} lacks sizes of the {name} "
            f"({error}); give the folder of a run of `mdmspeech train`"
        ) from error
    if not isinstance(exported.sizes, dict):
        raise UserError(
            f"{Path(workdir) / 'config.json'} has no sizes in {exported.section!r}; give the "
            "folder of a run of `mdmspeech train`"
        )
    return exported


def _with_prompt(part, config, folder: Path):
    """The part with the prompt after which its run trained it, if that matters."""
    import dataclasses

    from mdmspeech.interop.release import reads_prompt
    from mdmspeech.text.prompts import Prompt

    if not reads_prompt(part.kind, part.config) and part.kind != "thinker_lora":
        return part
    if not isinstance(config.get("prompt"), dict):
        raise UserError(
            f"{folder / 'config.json'} does not say after which prompt the run "
            "trained; give the folder of a run of `mdmspeech train`"
        )
    return dataclasses.replace(
        part, prompt=Prompt.of(config["prompt"], f"{folder / 'config.json'}")
    )


def _with_tokenizer(part, config, folder: Path):
    """The part with the tokenizer whose ids its run taught it, if it reads any."""
    import dataclasses

    from ml_collections import ConfigDict

    from mdmspeech.interop.loaders import load_tokenizer
    from mdmspeech.interop.parts import KINDS
    from mdmspeech.training.stages.shared import tokenizer_of
    from mdmspeech.training.stages.stage import Loaders

    if not KINDS[part.kind].reads_text(part.config):
        return part
    path, weights = folder / "config.json", config.get("weights")
    if not isinstance(weights, dict) or not isinstance(weights.get("tokenizer"), str):
        raise UserError(
            f"{path} does not say with which tokenizer the run read its texts; give the folder of a "
            "run of `mdmspeech train`"
        )
    try:
        read = tokenizer_of(ConfigDict(config), Loaders(tokenizer=load_tokenizer))
    except UserError as error:
        raise UserError(
            f"the Talker of {folder} reads texts with the tokenizer at {weights['tokenizer']}, which "
            f"is to be stored with it: {error} (or write where it is now into weights.tokenizer of "
            f"{path})"
        ) from error
    return dataclasses.replace(part, tokenizer=read.tokenizer.to_str())


def _mixed(part, config):
    """The part with `start_share` of what it started from (Wortsman et al. 2022, arXiv 2109.01903):
    it keeps more of what its corpus does not have.
    """
    import dataclasses

    import jax

    from mdmspeech.interop.whisper_decoder import load_whisper_decoder

    share = float(config["start_share"])
    start = load_whisper_decoder(part.config, tuple(config["start_layers"]))
    return dataclasses.replace(
        part,
        params=jax.tree.map(lambda now, then: (1 - share) * now + share * then, part.params, start),
    )


def codec_part(source: str):
    """The codec of a training run's workdir or of a release."""
    from mdmspeech.interop.release import load_part

    return part_of_run(source, "codec") if is_run(source) else load_part(source, "codec")


def codec_parts(source: str) -> dict[str, Any]:
    """The same with the voice it speaks in, if the release has one."""
    from mdmspeech.interop.release import load_release

    voice = {} if is_run(source) else load_release(source, only=("voice",)).parts
    return {"codec": codec_part(source), **voice}


def open_codec(source: str) -> tuple[Any, str]:
    """The codec of a run, of a release or of a system folder, ready to be used, and what its tokens
    are known by.
    """
    from mdmspeech.data.datasets.make import fingerprint
    from mdmspeech.inference import factory
    from mdmspeech.interop.release import Release

    release = Release("codec", codec_parts(source))
    return factory.open_codec(release), fingerprint(release.part("codec").params)


def is_run(source: str) -> bool:
    """Whether this is the workdir of a training run."""
    return (Path(source).expanduser() / "checkpoints").is_dir()


def silence_codes(part) -> tuple[int, ...]:
    """The codes that a codec gives to digital silence and to very faint noise; none where only a
    voice makes it one that can hear them.
    """
    import numpy as np

    from mdmspeech.codec.compact.bound import CompactCodec
    from mdmspeech.interop.parts import KINDS

    if not KINDS[part.kind].has_silence:
        return ()

    noise = np.random.default_rng(0).normal(size=part.config.sample_rate).astype(np.float32)
    heard = CompactCodec(part.config, part.params).encode([0.0 * noise, 1e-4 * noise])
    return tuple(sorted({int(i) for row in heard for i in row[2:-2]}))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the card {path} ({error})") from error
