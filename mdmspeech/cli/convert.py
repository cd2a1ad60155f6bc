"""`mdmspeech convert`: checkpoints of other programs, and what was trained here, as Hugging Face
folders.
"""

import argparse
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError

_DTYPES = ("float32", "bfloat16", "float16")
_TRAIN_THINKER = ("thinker", "thinker_sft")  # stages
# How far the outputs may be apart, as a share of the largest: rounding of weights that are stored
# in fewer bits, or of sums in another order.
_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
_TEXT = "The 24 naïve cafés\n日本 🎈!"
_CHAT = [{"role": "user", "content": _TEXT}]


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "convert",
        help="turn a checkpoint into a Hugging Face folder",
        description="Reads a text LLM (Llama, Qwen2, Qwen3) or a Whisper encoder and writes "
        "a Hugging Face folder, which transformers and every option "
        "that takes a model folder here can read. Also brings folders of an "
        "older layout up to date, and merges the LoRA that a run trained.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a Hugging Face folder, a .gguf file, a CTranslate2 Whisper folder, a "
        "name such as smollm2-135m-instruct or whisper-base, or the workdir of "
        "a run that trained a LoRA of the Thinker (merged in)",
    )
    parser.add_argument("destination", metavar="DEST", help="the folder to write")
    parser.add_argument(
        "--lora",
        metavar="WORKDIR",
        help="merge the LoRA of this run into SOURCE, the Thinker it was trained on",
    )
    parser.add_argument(
        "--dtype",
        choices=_DTYPES,
        help="type of the stored weights (default: that of SOURCE; float32 for GGUF)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="take the tokenizer and chat template from this folder (default: SOURCE's)",
    )
    parser.add_argument(
        "--shard-gb",
        type=float,
        default=4.0,
        metavar="GB",
        help="the most a weights file holds (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the outputs of SOURCE and DEST; needs 4 bytes a parameter of memory",
    )
    parser.add_argument("--force", action="store_true", help="replace DEST if it is a model folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    import jax.numpy as jnp
    from tqdm import tqdm

    from mdmspeech.interop import sources
    from mdmspeech.interop.export import How, refuse_existing, write_opened

    if not 0 < args.shard_gb < math.inf:
        raise UserError(f"--shard-gb {args.shard_gb}: give a positive number")
    refuse_existing(args.destination, args.force, (args.source, args.lora, args.tokenizer))
    workdir = args.source if (Path(args.source) / "checkpoints").is_dir() else args.lora
    trained = (
        None
        if workdir is None
        else trained_thinker(workdir, None if workdir == args.source else args.source)
    )
    base = sources.open_any(args.source, upgrade=True) if trained is None else trained.base
    opened = base if trained is None else trained.merged(args.dtype)
    refuse_existing(args.destination, args.force, (base.folder,))
    size = sum(
        math.prod(t.shape) * jnp.dtype(args.dtype or t.dtype).itemsize
        for t in opened.tensors.values()
    )
    with tqdm(
        total=size, desc="writing", unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        check = (
            (lambda folder: _check(base, trained, bool(args.tokenizer), folder))
            if args.check
            else None
        )
        how = How(
            args.dtype,
            args.tokenizer,
            shard_bytes=int(args.shard_gb * 1e9),
            force=args.force,
            progress=bar.update,
            check=check,
        )
        write_opened(args.destination, opened, how)
    print(f"{args.destination}: {opened.origin}, {size / 1e6:,.1f} MB")


@dataclasses.dataclass(frozen=True)
class _Trained:
    """What a run trained of the Thinker: the base model, the run's config of it, and the
    update in its layout.
    """

    base: Any
    config: Any
    update: Any
    name: str

    def merged(self, dtype: str | None):
        from mdmspeech.interop.merging import merged_tensors

        tensors = merged_tensors(self.config, self.base.tensors, self.update, dtype)
        return dataclasses.replace(
            self.base,
            tensors=tensors,
            origin=f"{self.base.origin} with the LoRA of run {self.name}",
        )


def trained_thinker(workdir: str, base: str | None) -> _Trained:
    """What a run trained of the Thinker `base` (None: of the one that its config names).
    UserError: not such a run, or of another Thinker.
    """
    from mdmspeech.cli.release import run_config
    from mdmspeech.interop import loaders
    from mdmspeech.models.thinker import ThinkerConfig
    from mdmspeech.training.warm_start import load_params

    folder = Path(workdir).expanduser()
    about = run_config(folder)
    sizes = about.get("thinker")
    if about.get("stage") not in _TRAIN_THINKER or not isinstance(sizes, dict):
        raise UserError(
            f"{workdir} is a run of stage {about.get('stage')!r}: give one of "
            f"{' or '.join(map(repr, _TRAIN_THINKER))}, which train the Thinker"
        )
    try:
        scaling = sizes.get("rope_scaling")
        config = ThinkerConfig(
            **{
                **sizes,
                "rope_scaling": None if scaling is None else tuple(tuple(pair) for pair in scaling),
            }
        )
    except TypeError as error:
        raise UserError(
            f"{folder / 'config.json'} has sizes that no Thinker has ({error})"
        ) from error
    source = base or about.get("weights", {}).get("thinker")
    if not source or source == "random":
        raise UserError(
            f"{workdir} does not name the Thinker it started from: give that as "
            f"SOURCE, and --lora {workdir}"
        )
    opened = loaders.open_thinker(source, config)
    update = load_params(folder).get("lora")
    if update is None:
        raise UserError(
            f"{workdir} trained no LoRA (thinker.lora_rank is 0): its Thinker is "
            f"{source}, unchanged"
        )
    return _Trained(opened, config, update, folder.name)


def _check(base, trained: _Trained | None, other_tokenizer: bool, folder: Path) -> None:
    """Outputs of the source and of what was written, for one fixed input; UserError if they are too
    far apart, or the tokenizers differ.
    """
    import numpy as np

    from mdmspeech.interop import sources
    from mdmspeech.models import lora

    config, params = base.config, base.params()
    if trained is not None:
        config, params = trained.config, lora.combine(params, trained.update)
    wanted = _outputs(config, params)
    del params
    if not np.isfinite(wanted).all() or not wanted.any():
        raise UserError(
            "the outputs of SOURCE are no numbers or all zero: its weights are "
            "broken, fetch it again; nothing was written"
        )
    written = sources.open_any(folder)
    got = _outputs(written.config, written.params())
    dtype = min(
        (np.dtype(t.dtype).name for t in written.tensors.values()),
        key=lambda name: -_TOLERANCE.get(name, 0),
    )
    apart, largest = float(np.abs(got - wanted).max()), float(np.abs(wanted).max())
    allowed = _TOLERANCE.get(dtype, 0) * largest
    print(
        f"check: outputs differ by at most {apart:.3g} where the largest is "
        f"{largest:.3g}; rounding to {dtype} explains up to {allowed:.3g}"
    )
    if not apart <= allowed:
        raise UserError(
            f"outputs differ by {apart:.3g}, more than {_TOLERANCE.get(dtype, 0):g} of the largest "
            f"({dtype}); nothing was written"
        )
    if isinstance(base, sources.OpenedThinker) and not other_tokenizer:
        _check_tokenizer(base, folder)


def _check_tokenizer(base, folder: Path) -> None:
    from mdmspeech.text.tokenizer import ChatTokenizer

    try:
        theirs = base.tokenizer()
    except UserError as error:
        print(f"check: tokenizer not compared ({error})")
        return
    ours = ChatTokenizer.from_folder(folder)
    if theirs.encode(_TEXT) != ours.encode(_TEXT) or theirs.chat_prompt(_CHAT) != ours.chat_prompt(
        _CHAT
    ):
        raise UserError(
            "the tokenizers of source and destination read a text differently; nothing was written"
        )


def _outputs(config, params):
    """Logits of random ids, or states of random frames, a numpy array."""
    import numpy as np

    from mdmspeech.models.thinker import ThinkerConfig

    rng = np.random.default_rng(0)
    if isinstance(config, ThinkerConfig):
        example: Any = rng.integers(0, config.vocab_size, (2, 16), dtype=np.int32)
    else:
        example = rng.normal(size=(1, 2 * min(config.max_positions, 100), config.num_mels)).astype(
            np.float32
        )
    return np.asarray(_compiled(config)({"params": params}, example))


@functools.cache
def _compiled(config):
    """The model of a config, compiled once for source and destination."""
    import jax

    from mdmspeech.models.speech_encoder import SpeechEncoder
    from mdmspeech.models.thinker import Thinker, ThinkerConfig

    return jax.jit((Thinker if isinstance(config, ThinkerConfig) else SpeechEncoder)(config).apply)
