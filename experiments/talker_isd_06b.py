"""Stage 3 at Qwen3-0.6B: hierarchical block-wise masks with iterative self-distillation, from the
Talker of stage 2, which is the teacher.

Command:  mdmspeech train --config experiments/talker_isd_06b.py --workdir RUNS/talker_isd_06b --data DATA
              --set weights.thinker=QWEN3_0_6B --set weights.tokenizer=QWEN3_0_6B
          The same in small, random weights and data: --config
            experiments/talker_isd_06b.py:runlocal
Hardware: laid out for a v5e-16; --config experiments/talker_isd_06b.py:v5p-64 is the same recipe on
          another slice. Planned for, not yet run on: experiments/results/plan.md has memory
          and an estimate of the time.
Expected: the paper's ablation at 8B is in docs/method.md, "Iterative self-distillation": WER 5.34 %
          at S=4 and 6.23 % at S=1.
"""

from experiments import large
from experiments.talker_06b import TALKER
from mdmspeech.models.thinker import QWEN3_06B


def get_config(argument: str = ""):
    config = large.distillation_stage(QWEN3_06B, TALKER, "talker_06b")
    return large.finish(config, "talker_isd", "06b", argument, "v5e-16")
