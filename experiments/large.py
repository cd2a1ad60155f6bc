"""What the experiments with published Thinkers share: three stages as in the paper, and how each lies
on a slice.

A stage has one recipe: its passes over the data (`train.epochs`), rows of a batch (`BATCH`) and rates
are the same on every slice. What a slice changes is how the batch is cut: its mesh, and how many rows
a chip computes at a time (`LAYOUTS`), the rest by micro-batches (`train.accum`).
"""

import dataclasses
import math
from typing import NamedTuple

from experiments import local
from mdmspeech.errors import UserError
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.planning import topology
from mdmspeech.text import prompts
from mdmspeech.training.config import base


class Layout(NamedTuple):
    """fsdp: chips that share one copy of the parameters. rows: of one chip at a time."""

    fsdp: int
    rows: int


# Rows of a global batch: of a minute of speech in stage 1, of 41 s in the others. Half a million
# speech tokens an update in stage 2; stage 3, whose teacher goes before the student, half of that.
BATCH = {"thinker": 128, "talker": 512, "talker_isd": 256}
# Stage and size -> chip -> what fits, by experiments/results/plan.md.
LAYOUTS: dict[str, dict[str, Layout]] = {
    "thinker_8b": {"v5e": Layout(4, 2), "v5p": Layout(1, 2), "v6e": Layout(2, 2)},
    "talker_8b": {"v5e": Layout(8, 8), "v5p": Layout(1, 8), "v6e": Layout(4, 8)},
    "talker_isd_8b": {"v5e": Layout(8, 4), "v5p": Layout(1, 4), "v6e": Layout(4, 4)},
    # the small ones fit whole into any chip
    "thinker": dict.fromkeys(("v5e", "v5p", "v6e"), Layout(1, 2)),
    "talker": dict.fromkeys(("v5e", "v5p", "v6e"), Layout(1, 8)),
    "talker_isd": dict.fromkeys(("v5e", "v5p", "v6e"), Layout(1, 4)),
}


def finish(config, stage: str, size: str, argument: str, slice_name: str):
    """What `get_config(argument)` returns: laid out for the slice that the argument names ("v5p-64", or
    "2xv5e-256"), by default `slice_name`; "runlocal" is the same stage in small.

    Args:
      stage: of `BATCH`. size: "8b", "1b" or "06b".
    """
    if argument == "runlocal":
        return local.switch(config, argument)
    chips = topology.parse(argument or slice_name)
    kinds = LAYOUTS.get(f"{stage}_{size}", LAYOUTS[stage])
    if chips.tpu.name not in kinds:
        raise UserError(
            f"{argument}: how this stage lies on {chips.tpu.name} was not planned; name a slice of "
            f"{', '.join(kinds)}, or set mesh, data.batch and train.accum"
        )
    fsdp, most = kinds[chips.tpu.name]
    if (one := chips.chips // chips.slices) % fsdp:
        raise UserError(
            f"{argument}: {fsdp} chips of {chips.tpu.name} hold this stage together, a slice of "
            f"{one} is too small"
        )
    batch = math.lcm(BATCH[stage], chips.chips) if chips.chips > BATCH[stage] else BATCH[stage]
    rows = batch // chips.chips  # of a chip
    config.data.batch = batch
    config.train.accum = next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= most)
    config.mesh.update(data=-1, fsdp=fsdp, tensor=1)
    return config


def thinker_stage(thinker: ThinkerConfig, encoder: SpeechEncoderConfig):
    """Stage 1 (VocalNet): adaptor and LoRA (rank 8, alpha 16) on speech -> text, 1 epoch, lr 2e-4,
    cosine, 3 % warm-up. `finish` sets its batch and mesh.
    """
    config = base()
    config.stage = "thinker"
    config.encoder = dataclasses.asdict(encoder)
    config.thinker = dataclasses.asdict(dataclasses.replace(thinker, lora_rank=8, lora_alpha=16.0))
    config.weights = dict(encoder="", thinker="", tokenizer="")  # paths of published checkpoints
    # `--system` brings the folder's; what is trained is used after it
    config.prompt = dataclasses.asdict(prompts.PLAIN)
    config.hidden_dim = 2048  # of the adaptor
    config.chunk = 128  # positions whose logits are held at a time
    # Packed rows: a minute of speech and 1,536 ids, some ten conversations.
    config.data = dict(
        parts=("questions",),
        weights=(),
        temperature=1.0,
        augmented=0.0,  # share of the questions that get noise, a room and another level
        batch=BATCH["thinker"],
        length=1536,
        frames=6000,
        threads=8,
    )
    config.train.dtype = "bfloat16"
    config.train.remat = "full"
    config.train.update(steps=0, epochs=1.0, eval_every=100, save_every=100)
    # For plans alone, a run counts its records: VocalNet's 0.77 million questions last some 4 s
    # (ours to guess, no paper says), and a second of silence is heard after each.
    config.hours = 1000.0
    config.optim.lr = 2e-4
    config.optim.update(warmup=0, warmup_share=0.03)
    config.optim.weight_decay = 0.0
    return config


def talker_stage(thinker: ThinkerConfig, talker: dict):
    """Stage 2: global Bernoulli masking (0.3 .. 0.8), 8 epochs; fixed anchors that read the frozen
    Thinker. `finish` sets its batch and mesh.
    """
    config = base()
    config.stage = "talker"
    config.mode = "mdm"
    config.init_from = ""
    config.init_fresh = config.init_ignored = ()  # parameters that may differ from it
    config.thinker = dataclasses.asdict(thinker)
    config.weights = dict(thinker="", tokenizer="")
    # `--system` brings the folder's; what is trained is used after it
    config.prompt = dataclasses.asdict(prompts.PLAIN)
    config.talker = dict(
        anchors="fixed", text_dim=2 * thinker.dim, structured_codes=False, **talker
    )
    config.masking = dict(name="bernoulli", low=0.3, high=0.8)
    config.distillation = {}
    config.capacity = 1.0  # logits of every position: nothing is moved between devices
    config.streams = 1
    # Rows of 41 s of speech, whose conversations have some 230 ids. (A run says how full its rows
    # are, and what sizes would suit its records better.)
    config.data = dict(
        parts=("answers",),
        weights=(),
        temperature=1.0,
        augmented=0.0,  # share of the questions that get noise, a room and another level
        batch=BATCH["talker"],
        length=1024,
        text=256,
        # True: the Thinker's states are read from the data, where `mdmspeech data --states --thinker`
        # has put them; the Thinker is not run, and text=160 is enough (answers alone)
        states=False,
        layout="packed",
        token_seconds=0.04,
        threads=4,
    )
    config.train.dtype = "bfloat16"
    config.train.remat = "dots"
    config.train.update(steps=0, epochs=8.0, eval_every=1000, save_every=1000)
    config.hours = 6000.0  # the paper's; for plans alone, a run counts its records
    config.optim.lr = 2e-4
    config.optim.update(warmup=0, warmup_share=0.03)
    config.optim.weight_decay = 0.02
    return config


def distillation_stage(thinker: ThinkerConfig, talker: dict, init_from: str):
    """Stage 3: hierarchical block-wise masking with iterative self-distillation (K = 4, a = 0.7,
    temperature 2, reverse KL), 4 epochs. `finish` sets its batch and mesh.
    """
    config = talker_stage(thinker, talker)
    config.mode = "isd"
    config.init_from = init_from
    config.masking = dict(name="hierarchical", blocks=(0.5, 1.0), tokens=(0.3, 1.0))
    config.distillation = dict(iterations=4, a=0.7, temperature=2.0, direction="reverse")
    config.train.epochs = 4.0
    config.data.batch = BATCH["talker_isd"]
    config.optim.lr = 1e-4
    return config
