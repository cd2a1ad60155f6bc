"""What the experiments with published Thinkers share: three stages as in the paper."""

import dataclasses

from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.text import prompts
from mdmspeech.training.config import base


def thinker_stage(thinker: ThinkerConfig, encoder: SpeechEncoderConfig):
    """Stage 1 (VocalNet): adaptor and LoRA (rank 8, alpha 16) on speech -> text, 1 epoch, lr 2e-4,
    cosine, 3 % warm-up.
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
        batch=64,
        length=1536,
        frames=6000,
        threads=8,
    )
    config.train.dtype = "bfloat16"
    config.train.remat = "full"
    config.train.steps = 1000
    config.train.eval_every = 250
    config.train.save_every = 250
    config.optim.lr = 2e-4
    config.optim.warmup = 30
    config.optim.weight_decay = 0.0
    return config


def talker_stage(thinker: ThinkerConfig, talker: dict):
    """Stage 2: global Bernoulli masking (0.3 .. 0.8), 8 epochs; fixed anchors that read the frozen
    Thinker.
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
    config.data = dict(
        parts=("answers",),
        weights=(),
        temperature=1.0,
        augmented=0.0,  # share of the questions that get noise, a room and another level
        batch=64,
        length=1024,
        text=1024,
        layout="packed",
        token_seconds=0.04,
        threads=4,
    )
    config.train.dtype = "bfloat16"
    config.train.remat = "dots"
    config.train.steps = 20_000
    config.train.eval_every = 1000
    config.train.save_every = 1000
    config.optim.lr = 2e-4
    config.optim.warmup = 600
    config.optim.weight_decay = 0.02
    return config


def distillation_stage(thinker: ThinkerConfig, talker: dict, init_from: str):
    """Stage 3: hierarchical block-wise masking with iterative self-distillation (K = 4, a = 0.7,
    temperature 2, reverse KL), 4 epochs.
    """
    config = talker_stage(thinker, talker)
    config.mode = "isd"
    config.init_from = init_from
    config.masking = dict(name="hierarchical", blocks=(0.5, 1.0), tokens=(0.3, 1.0))
    config.distillation = dict(iterations=4, a=0.7, temperature=2.0, direction="reverse")
    config.train.steps = 10_000
    config.optim.lr = 1e-4
    config.optim.warmup = 300
    return config
