"""What frozen networks compute once before training: `precompute` (speech tokens of recordings,
encoder states of questions), `alignment` (when each symbol is said).
"""
