"""Stage 3 at Llama-3.2-1B-Instruct: hierarchical block-wise masks with iterative self-distillation,
from the Talker of stage 2, which is the teacher.

Command:  mdmspeech train --config experiments/talker_isd_1b.py --workdir RUNS/talker_isd_1b --data DATA
              --set weights.thinker=LLAMA_3_2_1B_INSTRUCT --set weights.tokenizer=LLAMA_3_2_1B_INSTRUCT
          The same in small, random weights and data: --config experiments/talker_isd_1b.py:runlocal
Hardware: laid out for a v5e-16; --config experiments/talker_isd_1b.py:v5p-64 is the same recipe on
          another slice. Planned for, not yet run on: experiments/results/plan.md has memory
          and an estimate of the time.
Expected: the paper's ablation at 8B is in docs/method.md, "Iterative self-distillation": WER 5.34 %
          at S=4 and 6.23 % at S=1.
"""

from experiments import large
from experiments.talker_1b import TALKER
from mdmspeech.models.thinker import LLAMA32_1B


def get_config(argument: str = ""):
    config = large.distillation_stage(LLAMA32_1B, TALKER, "talker_1b")
    return large.finish(config, "talker_isd", "1b", argument, "v5e-16")
