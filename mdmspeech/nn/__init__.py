"""Layers that several models share: attention and its backends (plain, tiled, Pallas on TPU),
rotary positions, norms, MLPs, stacks of layers, masks, and how arrays are laid out over devices
(`partition`).
"""
