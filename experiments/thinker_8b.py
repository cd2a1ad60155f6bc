"""Stage 1 at Qwen3-8B: the adaptor and a LoRA of the Thinker learn to answer speech;
Whisper-large-v3 and the Thinker's own weights are frozen.

Command:  mdmspeech train --config experiments/thinker_8b.py --workdir RUNS/thinker_8b --data DATA
              --set weights.encoder=WHISPER_LARGE_V3 --set weights.thinker=QWEN3_8B --set weights.tokenizer=QWEN3_8B
          The same in small, random weights and data: --config experiments/thinker_8b.py:runlocal
Hardware: laid out for a v5e-64; --config experiments/thinker_8b.py:v5p-64 is the same recipe on
          another slice. Planned for, not yet run on: experiments/results/plan.md has memory
          and an estimate of the time.
Expected: VocalNet reports no loss; the held-out loss should fall within the first hundred steps,
  when the adaptor is found.
"""

from experiments import large
from mdmspeech.models.speech_encoder import WHISPER_LARGE_V3
from mdmspeech.models.thinker import QWEN3_8B


def get_config(argument: str = ""):
    config = large.thinker_stage(QWEN3_8B, WHISPER_LARGE_V3)
    return large.finish(config, "thinker", "8b", argument, "v5e-64")
