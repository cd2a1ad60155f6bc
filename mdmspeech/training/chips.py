"""Public figures of accelerators: the one table that MFU and planning read."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Attributes: bf16_flops: peak FLOP/s, dense (GPUs: without sparsity); memory: bytes; bandwidth of it in bytes/s; source of the figures."""

    bf16_flops: float
    memory: float
    bandwidth: float
    source: str


_TPU = "https://docs.cloud.google.com/tpu/docs/"
_GPU = "https://www.nvidia.com/en-us/data-center/"
CHIPS: dict[str, Chip] = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, _TPU + "v4"),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, _TPU + "v5e"),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, _TPU + "v5p"),
    "v6e": Chip(918e12, 32 * 2**30, 1638e9, _TPU + "v6e"),
    "A100": Chip(312e12, 80e9, 2039e9, _GPU + "a100/"),  # SXM, 80 GB
    "H100": Chip(989e12, 80e9, 3350e9, _GPU + "h100/"),  # SXM
    "H200": Chip(989e12, 141e9, 4800e9, _GPU + "h200/"),  # SXM
    "L4": Chip(121e12, 24e9, 300e9, _GPU + "l4/"),
}

# What `jax.Device.device_kind` says of TPUs.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def find_chip(device_kind: str) -> Chip | None:
    """The chip of a `jax.Device.device_kind` ("TPU v5 lite", "NVIDIA H100 80GB HBM3"); None if the table lacks it."""
    if device_kind in _KINDS:
        return CHIPS[_KINDS[device_kind]]
    words = device_kind.replace("-", " ").split()
    if "NVIDIA" not in words or {"PCIe", "NVL"} & set(words):  # those H100 are slower than the SXM figures above
        return None
    return next((CHIPS[word] for word in words if word in CHIPS), None)
