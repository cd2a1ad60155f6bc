"""The real stages, small: tasks and batches that several tests share."""

import dataclasses

import numpy as np

from mdmspeech.data.pipelines import random_source, talker_packed, thinker_packed
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.diffusion import masking
from mdmspeech.models import talker
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.speech_format import EOS, PAD
from mdmspeech.text.prompts import Prompt
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.stages.thinker import SpeechToTextTask

THINKER = ThinkerConfig(
    vocab_size=512,
    dim=64,
    num_layers=1,
    num_heads=8,
    num_kv_heads=8,
    head_dim=8,
    ffn_dim=128,
    scan_layers=True,
)
ENCODER = SpeechEncoderConfig(dim=32, num_layers=1, num_heads=2, ffn_dim=64)
TALKER = talker.TalkerConfig(
    dim=64,
    num_layers=1,
    num_heads=8,
    ffn_dim=128,
    anchors="fixed",
    text_dim=2 * THINKER.dim,
    structured_codes=False,
)
PACED = talker.TalkerConfig(
    dim=64, num_layers=1, num_heads=2, ffn_dim=128, symbols=180, symbol_lookahead=(2,)
)
ROWS = 8


def chat():
    return Conversations(random_source.byte_tokenizer(), Prompt("", ()))


def stage_two(config=TALKER, mode="mdm", **settings):
    thinker = THINKER if config.anchors == "fixed" else None
    return TalkerTask(
        config, mode, None, masking.Bernoulli(), capacity=1.0, thinker=thinker, **settings
    )


def packed_talker_batch(config=TALKER, length=96, text=160, batch=ROWS):
    anchors = (
        talker_packed.FixedText(text, chat(), config.block)
        if config.anchors == "fixed"
        else talker_packed.PacedText(text, 0.04)
    )
    source = random_source.RandomSpeech(60, words=1.0)
    batches = talker_packed.packed_talker_batches(
        {"random": source},
        anchors,
        batch=batch,
        length=length,
        block=config.block,
        eos=EOS,
        pad=PAD,
        seed=0,
    )
    return numbers_of(dict(next(iter(batches))))


def stage_one(lora_rank=4):
    thinker = dataclasses.replace(THINKER, lora_rank=lora_rank)
    return SpeechToTextTask(
        ENCODER, thinker, None, dict(batch=ROWS, length=256, frames=600), hidden_dim=32, chunk=100
    )


def stage_one_batch(batch=ROWS, length=256, frames=600):
    source = random_source.RandomQuestions(60, words=1.0, answer_words=3.0)
    batches = thinker_packed.lm_batches(
        {"random": source},
        chat(),
        batch=batch,
        frames=frames,
        length=length,
        num_mels=ENCODER.num_mels,
        seed=0,
        tail=0.2,
    )
    return numbers_of(dict(next(iter(batches))))


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))
