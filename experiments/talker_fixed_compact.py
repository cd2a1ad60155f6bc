"""Compact Talker with the fixed anchors of VocalNet-MDM, to compare with paced ones: the trunk, the
masking, the positions a step and the steps of `compact_talker.py`; it reads the Thinker's states
where that reads symbols, and has to find out how long they are spoken, and when to end.

Command:  mdmspeech convert ~/.cache/mdmspeech/runs/compact_thinker build/thinker
          mdmspeech data --states --thinker build/thinker
          mdmspeech train --config experiments/talker_fixed_compact.py \
              --workdir ~/.cache/mdmspeech/runs/talker_fixed_compact --set init_from=compact
          mdmspeech release -o build/fixed_anchors --base compact \
              --talker ~/.cache/mdmspeech/runs/talker_fixed_compact
          mdmspeech eval --model build/fixed_anchors --parts speaking --count 50
          In small, random data and weights: --config experiments/talker_fixed_compact.py:runlocal
Plan:     starts from the trunk, the code tables and the output layer of the paced Talker, as the
          baselines do, and learns its anchors anew; as many updates as that one had had of the
          second codec's tokens. The Thinker's states are made once. Answers alone: open sentences answer
          no question.
Cost:     2.3 s a step on 2 CPU cores (AMD EPYC): 650 steps over 8 h of answers, 27 min, 2026-11-30, and 12
          for the Thinker's states.
Seen:     3.57 nats a held-out token (32 % right), still falling; it finds its ends and is not
          understood: docs/compact.md. Curves: `experiments.anchors_curve`.
"""

from experiments import compact_talker, large, local
from mdmspeech.models.thinker import SMOLLM2_135M


def get_config(argument: str = ""):
    paced = compact_talker.get_config()
    shape = {name: paced.talker[name] for name in ("dim", "num_layers", "num_heads", "ffn_dim")}
    config = large.talker_stage(SMOLLM2_135M, shape | {"block": paced.talker.block})
    # with the trained LoRA merged in, as the release speaks with it
    config.weights.update(dict.fromkeys(("thinker", "tokenizer"), "build/thinker"))
    config.init_from = "compact_talker"
    config.init_fresh = config.init_ignored = ("anchors/.*",)
    config.talker.structured_codes = True  # the compact codec's, as the paced one has them
    config.masking = paced.masking
    config.capacity = paced.capacity
    config.data.update(
        batch=paced.data.batch, length=paced.data.length, text=64, states=True, threads=1
    )
    config.train.update(
        {name: paced.train[name] for name in ("log_every", "eval_every", "save_every")}
    )
    config.train.update(steps=650, epochs=0.0, dtype="float32", remat="none")
    config.optim.update(lr=paced.optim.lr, warmup=paced.optim.warmup, warmup_share=0.0)
    return local.switch(config, argument)
