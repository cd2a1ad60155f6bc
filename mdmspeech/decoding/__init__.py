"""From logits to tokens, over a model that is a function of arrays: `block_diffusion` unmasks a
block in a few steps, `autoregressive` writes a token at a time, `multi_token` a few.

All share `state` (the config, what is asked for, what is carried), `sampling` (which value) and
`stopping` (when a row ends).
"""
