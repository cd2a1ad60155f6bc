"""PyTorch checkpoints without PyTorch: put together by hand, a zip archive around a pickle of
stand-in classes that carry PyTorch's names. The one thing that imitates torch.save is `save`.

And `refused`: such a file is refused, and nothing of it is run.
"""

import collections
import contextlib
import functools
import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.interop.pytorch import read_pytorch

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
}


def foreign(module, name):
    """A class or function that a pickle refers to as `module.name`."""

    def stand_in(*_):
        raise AssertionError("this is never called")

    stand_in.__module__, stand_in.__qualname__, stand_in.__name__ = module, name, name
    return stand_in


class Storage:
    """Stands for torch.FloatStorage and the like: raw numbers under a key."""

    def __init__(self, key, array, count=None, kind=None):
        self.key, self.array = key, array
        self.kind = kind or foreign("torch", STORAGES[str(array.dtype)])
        self.count = array.size if count is None else count


class Tensor:
    """Stands for torch.Tensor: a strided view of a storage, pickled as PyTorch does."""

    def __init__(
        self,
        storage,
        size,
        stride,
        offset=0,
        rebuild="_rebuild_tensor_v2",
        tail=(False, collections.OrderedDict()),
    ):
        self.arguments = (storage, offset, size, stride, *tail)
        self.rebuild = foreign("torch._utils", rebuild)

    def __reduce__(self):
        return self.rebuild, self.arguments


def tensor(key, array):
    return Tensor(
        Storage(key, array.ravel()),
        array.shape,
        tuple(s // array.itemsize for s in np.ascontiguousarray(array).strides),
    )


class Pickler(pickle._Pickler):
    """The pickler written in Python, as it can write names of things that cannot be imported."""

    def __init__(self, file, protocol, storages):
        super().__init__(file, protocol)
        self.storages = storages

    def persistent_id(self, item):
        if not isinstance(item, Storage):
            return None
        self.storages[item.key] = item.array
        return ("storage", item.kind, item.key, "cpu", item.count)

    def save_global(self, item, name=None):
        if item.__name__ == "stand_in" or isinstance(item, types.FunctionType):
            module, name = item.__module__, item.__qualname__
            if self.proto >= 4:
                self.save(module)
                self.save(name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            self.memoize(item)
        else:
            super().save_global(item, name)

    dispatch = {**pickle._Pickler.dispatch, types.FunctionType: save_global}


def save(
    path,
    value=None,
    protocol=2,
    program=None,
    compression=zipfile.ZIP_STORED,
    extra=(),
    without=(),
    folder="archive",
):
    """What torch.save writes."""
    file, storages = io.BytesIO(), {}
    Pickler(file, protocol, storages).dump(value)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", file.getvalue() if program is None else program)
        archive.writestr(f"{folder}/byteorder", "little")
        for key, array in storages.items():
            if key not in without:
                archive.writestr(f"{folder}/data/{key}", array.tobytes())
        archive.writestr(f"{folder}/version", "3\n")
        for name, content in extra:
            archive.writestr(name, content)
    return path


_DOINGS = {
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.remove",
    "subprocess.Popen",
    "pickle.find_class",
    "ctypes.dlopen",
}
_watched: list[list[str]] = []  # a list while something is watched


@functools.cache
def _install():
    """Python tells of everything that a program does to its surroundings (audit events); a hook
    stays for good.
    """

    def hook(event, arguments):
        if _watched and (event in _DOINGS or (event == "compile" and arguments[1] == "<string>")):
            _watched[-1].append(event)

    sys.addaudithook(hook)


@contextlib.contextmanager
def nothing_runs():
    """What a bomb does would be noticed here."""
    _install()
    _watched.append([])
    try:
        yield
    finally:
        seen = _watched.pop()
    assert not seen, seen


def refused(path, match, **options):
    with pytest.raises(UserError, match=match) as caught, nothing_runs():
        read_pytorch(path, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
