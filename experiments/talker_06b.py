"""Stage 2 at Qwen3-0.6B: the Talker learns masked diffusion with global Bernoulli masks; the
Thinker, frozen, is read through fixed anchors.

Command:  mdmspeech train --config experiments/talker_06b.py --workdir RUNS/talker_06b --data DATA
              --set weights.thinker=QWEN3_0_6B --set weights.tokenizer=QWEN3_0_6B
          The same in small, random weights and data: --config experiments/talker_06b.py:runlocal
Hardware: laid out for a v5e-16; --config experiments/talker_06b.py:v5p-64 is the same recipe on
          another slice. Planned for, not yet run on: experiments/results/plan.md has memory
          and an estimate of the time.
Expected: the paper's scores at 8B are in docs/method.md, "Reported numbers"; stage 2 alone has WER
          39 % at S=1 there, stage 3 mends that.
"""

from experiments import large
from mdmspeech.models.thinker import QWEN3_06B

TALKER = dict(dim=1024, num_layers=4, num_heads=16, ffn_dim=4096, block=16)


def get_config(argument: str = ""):
    config = large.talker_stage(QWEN3_06B, TALKER)
    return large.finish(config, "talker", "06b", argument, "v5e-16")
