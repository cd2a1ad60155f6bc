"""Compact Talker from autoregressive weights (LLaDA-TTS, arXiv 2603.26364): masked diffusion that
goes on from the next-token Talker.

Command:  mdmspeech train --config experiments/talker_llada_compact.py \
              --workdir ~/.cache/mdmspeech/runs/talker_llada_compact
          In small, random data and weights: --config experiments/talker_llada_compact.py:runlocal
Plan:     as compact_talker; only the mask's embedding is new. Label shift: the state that reads
          token i-1 predicts token i, as the weights are used to. Loss: 1/t-weighted cross-entropy
          of the hidden tokens, one t a block. Blocks of 16, which stream; bidirectional, over the
          whole sequence at once as in the paper: --set talker.block=256 --set masking.per=sequence
Cost:     not run at this size. experiments/llada_curve.py runs it in small, beside what it is
          compared with, experiments/results/llada.md: there the start alone, before any update, is
          better than 300 updates from scratch, and a small learning rate keeps it so.

To start from a release that has a next-token Talker: --set init_from=FOLDER (its part
"talker_ntp").
"""

from experiments import compact_talker, local


def get_config(argument: str = ""):
    config = compact_talker.get_config()
    config.init_from, config.init_part = "compact_talker_ntp", "talker_ntp"
    config.new_mask = True
    config.talker.label_shift = True
    config.masking = dict(name="inverse_t", per="block")
    config.train.steps = 200
    config.optim.lr = 5e-4
    config.optim.warmup = 20
    return local.switch(config, argument)
