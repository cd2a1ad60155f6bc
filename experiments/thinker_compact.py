"""Stage 1 through the Thinker at compact size: SmolLM2-135M with a LoRA, Whisper-base. An
alternative to `compact_hearing.py`, no part of the compact model.

Command:  mdmspeech train --config experiments/thinker_compact.py --workdir ~/.cache/mdmspeech/runs/thinker_compact
          The same in small, random weights and data: --config experiments/thinker_compact.py:runlocal
Hardware: runs on a CPU; not trained to the end yet.
"""

from experiments import large, local
from mdmspeech.models.speech_encoder import WHISPER_BASE
from mdmspeech.models.thinker import SMOLLM2_135M


def get_config(argument: str = ""):
    config = large.thinker_stage(SMOLLM2_135M, WHISPER_BASE)
    config.weights.update(
        encoder="whisper-base", thinker="smollm2-135m-instruct", tokenizer="smollm2-135m-instruct"
    )
    config.data.update(batch=4, length=768, frames=3260, threads=1)
    config.train.dtype = "float32"
    config.train.remat = "none"
    return local.switch(config, argument)
