"""Masked block diffusion over discrete tokens, as pure functions over arrays and functions; no model is imported here.

layout: who attends to whom . masking: what is hidden in training . objective: the loss . distill: iterative self-distillation
reveal: which positions next . sampling: which value . state: options, requests, state, the model as a function
stopping: when a row ends . decode: the block loop . autoregressive: the next-token loop with the same interface
multi_token: the loss of heads that predict further ahead (the autoregressive baselines)
"""
