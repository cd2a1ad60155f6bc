"""Masked-diffusion Talker from CosyVoice2's language model (LLaDA-TTS, arXiv 2603.26364): 0.5 B,
the text in front of the speech.

Command:  python -c "from mdmspeech.interop.cosyvoice2_lm import convert_lm; \
convert_lm('CosyVoice2-0.5B/llm.pt', 'cosyvoice2_lm')"
          mdmspeech train --config experiments/talker_llada_05b.py --workdir ~/.cache/mdmspeech/runs/talker_llada_05b \
          --set init_from=cosyvoice2_lm --set weights.tokenizer=CosyVoice2-0.5B/CosyVoice-BlankEN
          In small, random data and weights: --config experiments/talker_llada_05b.py:runlocal
Speaks:   mdmspeech assemble -o llada --codec CosyVoice2-0.5B --voice me.safetensors \
          --talker ~/.cache/mdmspeech/runs/talker_llada_05b
          mdmspeech say "It is a fine day." --model llada
          CosyVoice2's own: assemble with --talker cosyvoice2_lm, say with --talker ntp
Plan:     506 M parameters, all trained but from CosyVoice2's; only the mask's embedding is new.
          Label shift, 1/t-weighted cross-entropy of the speech tokens, lr 1e-5. Blocks of 16, which
          stream; talker.block=1024 and data.length=1024 are LLaDA-TTS's own whole sequence. Two
          streams: twice the positions.
Data:     speech tokens of CosyVoice2's tokenizer with their text, as `mdmspeech data --tokens`
          writes them.
Cost:     not run here: needs the weights, and an accelerator.
"""

import dataclasses

from experiments import local
from mdmspeech.interop.cosyvoice2_lm import COSYVOICE2_LM
from mdmspeech.training.config import base


def get_config(argument: str = ""):
    config = base()
    config.stage = "talker"
    config.mode = "mdm"
    config.init_from, config.init_part = "cosyvoice2_lm", "talker_ntp"
    config.init_fresh = config.init_ignored = ()  # parameters that may differ from it
    config.new_mask = True
    config.weights = dict(tokenizer="")
    config.talker = dataclasses.asdict(COSYVOICE2_LM)
    config.masking = dict(name="inverse_t", per="block")
    config.distillation = {}
    config.capacity = 1.0
    config.streams = 2
    config.data = dict(
        parts=("own",),
        weights=(),
        temperature=1.0,
        batch=32,
        length=1024,
        text=512,
        layout="packed",
        token_seconds=0.04,
        threads=4,
    )
    config.train.dtype = "bfloat16"
    config.train.remat = "dots"
    config.train.steps = 20_000
    config.train.eval_every = 1000
    config.train.save_every = 1000
    config.optim.lr = 1e-5
    config.optim.warmup = 500
    return local.switch(config, argument)
