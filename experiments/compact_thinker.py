"""Compact Thinker: a LoRA on SmolLM2-135M-Instruct learns to answer like a voice, from text alone:
the questions of the corpus, questions as the ear wrote them down, and conversations of its own.

Command:  python -m experiments.thinker_chats everyday
          python -m experiments.thinker_chats unknown
          python -m experiments.thinker_chats repeat
          python -m experiments.thinker_chats general
          python -m experiments.thinker_chats heard
          mdmspeech train --config experiments/compact_thinker.py --workdir ~/.cache/mdmspeech/runs/compact_thinker
          In small, random data and weights: --config experiments/compact_thinker.py:runlocal
          To go on from the shipped LoRA: --set init_from=compact
Plan:     2.4 M trained of 137 M parameters. A token costs 0.55 GFLOP (forward, and backward to
          activations only); rows of 128 hold the prompt once and three to four conversations.
Cost:     5 s a step on 2 cores of an Intel Xeon with AMX, 7.4 with products in float32; 11 on an AMD
          EPYC. The release has 570 steps of questions in the corpus' own wordings (124 min there,
          2026-11-29); from those (--set init_from=compact) 620 in some thirty (53 min, 2026-12-01), with
          half as many everyday conversations as now; from those 320 with lr 1.2e-3 (27 min), and 100 with
          8e-4 and 0.15 of what is to be repeated (9 min).
Seen:     On validation, where half of the questions are in words of its own: 0.336 nats an id after
          310 of the 620 steps, 0.303 after all; 92.5 and 94.0 % of the ids right. Of 300 facts in such
          words the release before those answers 146, with them 212, with 320 more 229, with the last
          100 224; of 89 general questions the published Thinker 48, and these 52, 58 and 54; of 60
          sentences the last two repeat 45 and 57 (mdmspeech eval --split val --parts knowledge).
          What it then knows: docs/compact.md.
Held out: a twentieth of countries, cities, elements and words, which no question of the training
          asks for (`data.texts.chats.is_held_out`).
"""

from experiments import local
from mdmspeech.models.thinker import SMOLLM2_135M
from mdmspeech.text.prompts import PLAIN
from mdmspeech.training.config import base

# Kind, see `experiments.thinker_chats` -> share of the conversations.
CHATS = {"everyday": 0.21, "unknown": 0.03, "repeat": 0.1, "general": 0.06, "heard": 0.13}


def get_config(argument: str = ""):
    import dataclasses

    config = base()
    config.stage = "thinker_sft"
    config.thinker = dataclasses.asdict(SMOLLM2_135M)
    config.thinker.update(lora_rank=8, lora_alpha=16.0)
    config.weights = dict(thinker="smollm2-135m-instruct", tokenizer="smollm2-135m-instruct")
    config.init_from, config.init_part = "", "thinker_lora"
    config.prompt = dict(system=PLAIN.system, examples=())
    config.data = dict(
        batch=8,
        length=256,
        answers=112,
        parts=("questions", *(f"chats/{kind}.jsonl" for kind in CHATS)),
        weights=(0.47, *CHATS.values()),
        threads=1,
    )
    # of the families of questions; users without capitals; second questions of a conversation; more
    # wordings of each fact
    config.chats = dict(temperature=3.0, informal=0.15, following=0.2, rewordings=8)
    config.train.matmul_precision = "bfloat16"
    config.train.steps = 1040
    config.train.log_every = 5
    config.train.eval_every = 520
    config.train.save_every = 50
    config.optim.update(lr=1.5e-3, warmup=20, weight_decay=0.0, schedule="wsd", decay_share=0.3)
    return local.switch(config, argument)
