"""Reading PyTorch checkpoints without PyTorch: types, views, parameters, wrapped dicts arrive."""

import collections

import ml_dtypes
import numpy as np
import pytest
from torch_files import STORAGES, Storage, Tensor, foreign, refused, save, tensor

from mdmspeech.interop.pytorch import read_pytorch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [*STORAGES])
def test_every_type_arrives(path, protocol, dtype):
    array = (
        np.arange(6).reshape(2, 3) % 2 if dtype == "bool" else np.arange(6).reshape(2, 3) - 3
    ).astype(dtype)
    read = read_pytorch(save(path, collections.OrderedDict(a=tensor("0", array)), protocol))
    assert list(read) == ["a"] and read["a"].dtype == array.dtype
    np.testing.assert_array_equal(read["a"], array)


def test_views_share_their_storage(path):
    numbers = np.arange(24, dtype=np.float32)
    whole = Storage("7", numbers)
    state = {
        "transposed": Tensor(whole, (4, 6), (1, 4)),
        "part": Tensor(whole, (2, 3), (12, 2), offset=5),
        "scalar": Tensor(whole, (), (), offset=23),
        "empty": Tensor(whole, (0, 3), (3, 1)),
        "axis_of_one": Tensor(whole, (1, 24), (10**9, 1)),
        "tied": Tensor(whole, (24,), (1,)),
    }
    read = read_pytorch(save(path, state))
    np.testing.assert_array_equal(read["transposed"], numbers.reshape(6, 4).T)
    np.testing.assert_array_equal(read["part"], [[5, 7, 9], [17, 19, 21]])
    np.testing.assert_array_equal(read["axis_of_one"], numbers[None])
    assert read["scalar"] == 23 and read["scalar"].shape == () and read["empty"].shape == (0, 3)
    assert np.shares_memory(read["tied"], read["transposed"]) and not read["tied"].flags.writeable


def test_parameters_sizes_and_untyped_storages(path):
    class Parameter:
        def __reduce__(self):
            return foreign("torch._utils", "_rebuild_parameter"), (
                tensor("0", np.ones(2, np.float32)),
                True,
                collections.OrderedDict(),
            )

    class Size:
        def __reduce__(self):
            return foreign("torch", "Size"), ((2, 3),)

    raw = np.arange(6).astype(ml_dtypes.bfloat16)
    storage = Storage("1", raw, raw.nbytes, foreign("torch.storage", "UntypedStorage"))
    tail = (False, collections.OrderedDict(), foreign("torch", "bfloat16"))
    untyped = Tensor(storage, Size(), (3, 1), rebuild="_rebuild_tensor_v3", tail=tail)
    read = read_pytorch(
        save(
            path,
            {
                "parameter": Parameter(),
                "untyped": untyped,
                "old": Tensor(storage := Storage("2", raw), (6,), (1,), tail=()),
            },
        )
    )
    np.testing.assert_array_equal(read["parameter"], [1, 1])
    np.testing.assert_array_equal(read["untyped"], raw.reshape(2, 3))
    assert read["untyped"].dtype == ml_dtypes.bfloat16 and read["old"].shape == (6,)


def test_state_dict_with_its_metadata_and_prefixes(path):
    state = collections.OrderedDict(
        {
            "module._orig_mod.a.weight": tensor("0", np.ones(3, np.float32)),
            "module._orig_mod.b": tensor("1", np.ones(1)),
        }
    )
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    assert read_pytorch(save(path, state)).keys() == {"a.weight", "b"}


def test_wrapped_state_dicts(path):
    weights = {"a": tensor("0", np.ones(3, np.float32))}
    moments = {"state": {0: {"exp_avg": tensor("1", np.zeros(3, np.float32))}}, "lr": 1e-3}
    for checkpoint in (
        {
            "model": weights,
            "epoch": 3,
            "note": "text",
            "done": True,
            "loss": [0.5, None],
            "optimizer": moments,
        },
        {"outer": {"state_dict": weights}},
        {**weights, "epoch": 3, "step": 7},
    ):
        assert read_pytorch(save(path, checkpoint)).keys() == {"a"}
    save(path, {"generator": weights, "discriminator": {"b": tensor("1", np.ones(2))}})
    refused(path, r"holds 2 sets of weights \('discriminator', 'generator'\); name the part")
    assert read_pytorch(path, "discriminator").keys() == {"b"}
    refused(
        path,
        r"no weights at 'vocoder'; it has them at: 'discriminator', 'generator'",
        part="vocoder",
    )
    refused(save(path, {"epoch": 3}), "holds no weights")
    refused(save(path, [tensor("0", np.ones(3))]), "holds no weights")
