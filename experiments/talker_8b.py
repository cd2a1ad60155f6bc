"""Stage 2 at Qwen3-8B: the Talker learns masked diffusion with global Bernoulli masks; the Thinker,
frozen, is read through fixed anchors.

Command:  mdmspeech train --config experiments/talker_8b.py --workdir RUNS/talker_8b --data DATA
              --set weights.thinker=QWEN3_8B --set weights.tokenizer=QWEN3_8B
          The same in small, random weights and data: --config experiments/talker_8b.py:runlocal
Hardware: laid out for a v5e-64; --config experiments/talker_8b.py:v5p-64 is the same recipe on
          another slice. Planned for, not yet run on: experiments/results/plan.md has memory
          and an estimate of the time.
Expected: the paper's scores at 8B are in docs/method.md, "Reported numbers"; stage 2 alone has WER
          39 % at S=1 there, stage 3 mends that.
"""

from experiments import large
from mdmspeech.models.thinker import QWEN3_8B

TALKER = dict(dim=4096, num_layers=4, num_heads=32, ffn_dim=16384, block=16)


def get_config(argument: str = ""):
    config = large.talker_stage(QWEN3_8B, TALKER)
    return large.finish(config, "talker", "8b", argument, "v5e-64")
