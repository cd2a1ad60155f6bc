"""Masked block diffusion over discrete tokens, as pure functions over arrays and functions; no
model is imported here.

layout: who attends to whom . masking: what is hidden in training . objective: the loss . distill:
  iterative self-distillation
unmasking: which positions next (the loops that use it are in `decoding`)
"""
