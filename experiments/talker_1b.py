"""Stage 2 at Llama-3.2-1B-Instruct: the Talker learns masked diffusion with global Bernoulli masks;
the Thinker, frozen, is read through fixed anchors.

Command:  mdmspeech train --config experiments/talker_1b.py --workdir RUNS/talker_1b --data DATA
              --set weights.thinker=LLAMA_3_2_1B_INSTRUCT --set weights.tokenizer=LLAMA_3_2_1B_INSTRUCT
          The same in small, random weights and data: --config experiments/talker_1b.py:runlocal
Hardware: laid out for a v5e-16; --config experiments/talker_1b.py:v5p-64 is the same recipe on
          another slice. Planned for, not yet run on: experiments/results/plan.md has memory
          and an estimate of the time.
Expected: the paper's scores at 8B are in docs/method.md, "Reported numbers"; stage 2 alone has WER
          39 % at S=1 there, stage 3 mends that.
"""

from experiments import large
from mdmspeech.models.thinker import LLAMA32_1B

TALKER = dict(dim=2048, num_layers=4, num_heads=16, ffn_dim=8192, block=16)


def get_config(argument: str = ""):
    config = large.talker_stage(LLAMA32_1B, TALKER)
    return large.finish(config, "talker", "1b", argument, "v5e-16")
