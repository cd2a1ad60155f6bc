"""What of PyTorch itself is done again here: its random numbers, and its files."""

import ml_dtypes
import numpy as np
import pytest
import torch
from golden import COSYVOICE2
from measured import close, same
from official_noise import OFFICIAL_FRAMES, official_noise
from reference import torch_tensors

from mdmspeech.interop.pytorch import read_pytorch
from mdmspeech.interop.tensors import read_tensors

pytestmark = [pytest.mark.parity, pytest.mark.torch]


def test_noise_table():
    torch.manual_seed(0)
    table = torch.randn(1, 80, OFFICIAL_FRAMES)[0].T
    close("noise table: all of it, against torch.randn", official_noise(), table, atol=1e-6)


def test_files_of_torch_save(tmp_path):
    """Bit for bit: every type that weights have, views, shared storages, one value, and none."""
    tensors = torch_tensors(read_tensors(COSYVOICE2 / "flow_full.safetensors"))
    kinds = ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    wide = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    odd = {kind: (3 * wide).to(getattr(torch, kind)) for kind in kinds}
    odd |= {
        "transposed": wide.T,
        "part": wide[1:5, ::3],
        "one": wide[2, 3],
        "none": wide[:0],
        "parameter": torch.nn.Parameter(wide),
    }
    for name, content in (
        ("flow.pt", tensors | odd),
        ("wrapped.pt", {"model": tensors | odd, "epoch": 3}),
    ):
        torch.save(content, tmp_path / name)
        found = read_pytorch(tmp_path / name)
        assert found.keys() == tensors.keys() | odd.keys()
        for key, tensor in (tensors | odd).items():
            tensor = tensor.detach()
            theirs = (
                tensor.float().numpy().astype(ml_dtypes.bfloat16)
                if tensor.dtype == torch.bfloat16
                else tensor.numpy()
            )
            assert found[key].dtype == theirs.dtype and found[key].shape == theirs.shape
            if theirs.size:
                same("files of torch.save, read without it", found[key], theirs)
    assert np.isfinite(found["part"]).all()
