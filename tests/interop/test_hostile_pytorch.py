"""PyTorch checkpoints that would run something, lie or are broken: refused, and nothing is run."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
import zipfile

import numpy as np
import pytest
from torch_files import Pickler, Storage, Tensor, foreign, nothing_runs, refused, save, tensor

from mdmspeech.errors import UserError
from mdmspeech.interop import pytorch
from mdmspeech.interop.pytorch import read_pytorch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def test_a_bomb_would_be_noticed():
    for doing in (
        lambda: os.system("true"),
        lambda: eval("1"),  # noqa: S307
        lambda: pickle.loads(pickle.dumps(np.array)),  # noqa: S301
    ):
        with pytest.raises(AssertionError, match=r"os\.system|compile|find_class"), nothing_runs():
            doing()


class Bomb:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__init__"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("mdmspeech.interop.pytorch", "read_pytorch"),
        ("", ""),
    ],
)
def test_bombs_do_not_go_off(path, module, name, protocol):
    for value in (
        Bomb(foreign(module, name), "echo boom"),
        {"a": tensor("0", np.ones(1)), "b": [{"c": (Bomb(foreign(module, name), "1"),)}]},
    ):
        # Protocols 0 and 1 are never written by PyTorch: there an older instruction may be refused
        # before the global is seen.
        pattern = rf"asks for '{module}.{name}'" if protocol >= 2 else r"asks for|instruction"
        refused(
            save(path, value, protocol),
            rf"({pattern}).*no(thing| weights).*was run. Get the weights",
        )


def test_bombs_inside_what_is_allowed(path):
    """Calls of calls, attributes, arguments that lie."""
    bomb = Bomb(foreign("os", "system"), "echo boom")
    hooks = Tensor(Storage("0", np.ones(1)), (1,), (1,), tail=(False, bomb))
    refused(save(path, {"a": hooks}), r"asks for 'os\.system'")

    class Attributes:
        def __reduce__(self):
            return foreign("torch", "Size"), ((1,),), {"__class__": 1}

    refused(save(path, {"a": Attributes()}), "sets attributes")
    # Calls of what is a name only, or of no name at all.
    refused(
        save(path, {"a": Bomb(foreign("torch", "FloatStorage"), 5)}), "calls what no weights call"
    )
    for program in (
        b"\x80\x02X\x01\x00\x00\x00a)R.",
        b"\x80\x02}}R.",
        b"\x80\x02ctorch\nfloat32\n(K\x01tR.",
    ):
        refused(save(path, program=program), "calls what no weights call|corrupt")


@pytest.mark.parametrize(
    "program",
    [
        b"(S'echo boom'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'echo boom'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01a\x85R.",
        b"Pos.system\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x0220.",  # DUP, POP
    ],
)
def test_other_instructions(path, program):
    refused(save(path, program=program), "asks for 'os.system'|has the pickle instruction|corrupt")


def test_the_instructions_that_are_followed_exist():
    names = {opcode.name for opcode in pickletools.opcodes}
    from mdmspeech.interop import pytorch_program as program

    assert program._PUSHED | program._IGNORED | set(program._STEPS) <= names
    assert (
        not names
        & {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1"}
        & (program._PUSHED | set(program._STEPS))
    )


def test_corrupt_programs(path):
    good = io.BytesIO()
    Pickler(good, 2, {}).dump(
        {"a": tensor("0", np.ones(4, np.float32)), "b": [1, 2.5, "text", None, (1, 2, 3, 4)]}
    )
    program = good.getvalue()
    for end in range(len(program)):
        refused(save(path, program=program[:end]), "corrupt|lacks")
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(program)
        for at in rng.integers(0, len(program), 3):
            broken[at] = rng.integers(0, 256)
        with contextlib.suppress(UserError), nothing_runs():
            read_pytorch(save(path, program=bytes(broken)))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02.",
        b"\x80\x02h\x07.",
        b"\x80\x02t.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}]K\x01s.",
    ],
)
def test_programs_that_miscount(path, program):
    refused(save(path, program=program), "corrupt")


def test_mappings_without_end(path):
    ring = {}
    ring["again"] = ring
    refused(save(path, ring), "nested too deep")
    wide = {"a": tensor("0", np.ones(1))}
    for _ in range(7):
        wide = {str(i): wide for i in range(40)}
    refused(save(path, wide), "nested too deep or too many")
    deep = b"\x80\x02" + b"(" * 5000 + b"t" * 5000 + b"."
    refused(save(path, program=deep), "holds no weights")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((2, 2), (3, 1), 0),
        ((4,), (1,), 1),
        ((1,), (1,), 4),
        ((10**12,), (0,), 0),  # expanded without end
        ((2**40, 2**40), (0, 0), 0),
        ((2,) * 33, (0,) * 33, 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((2,), (1,), -1),
        ((2.0,), (1,), 0),
        ((True,), (1,), 0),
        ((2,), (1, 1), 0),
        ([2], [1], 0),
        ("ab", "cd", 0),
        ((2**70,), (1,), 0),
        ((0, 2**62), (1, 1), 0),
        ((2,), (2**61,), 0),
    ],
)
def test_shapes_that_lie(path, size, stride, offset):
    storage = Storage("0", np.ones(4, np.float32))
    refused(save(path, {"a": Tensor(storage, size, stride, offset)}), "has a tensor|corrupt")


def test_storages_that_lie(path):
    array = np.ones(4, np.float32)
    for count in (3, 5, 10**15, 2**80):
        refused(
            save(path, {"a": Tensor(Storage("0", array, count), (1,), (1,))}),
            r"has 16 bytes in storage '0', which should have",
        )
    refused(save(path, {"a": Tensor(Storage("0", array, -4), (1,), (1,))}), "corrupt")
    refused(save(path, {"a": tensor("0", array)}, without=("0",)), "lacks its storage '0'")
    refused(save(path, {"a": tensor("../../../etc/passwd", array)}), "leads out of the archive")
    refused(
        save(path, {"a": tensor("../version", array)}, without=("../version",)), "lacks its storage"
    )
    refused(save(path, {"a": tensor("0", np.frombuffer(b"\0\1\2", np.bool_))}), "truth values")
    refused(
        save(path, {"a": Tensor(Storage("0", array, kind=foreign("torch", "Size")), (1,), (1,))}),
        "corrupt",
    )
    refused(save(path, {"a": Tensor("0", (1,), (1,))}), "corrupt")


def test_truncated_and_altered_files(path):
    save(path, {"a": tensor("0", np.arange(50, dtype=np.float32))})
    data = path.read_bytes()
    for end in range(0, len(data), 13):
        path.write_bytes(data[:end])
        refused(path, "truncated|no PyTorch checkpoint|corrupt")
    broken = bytearray(data)
    broken[data.index(np.float32(7).tobytes())] ^= 1
    path.write_bytes(broken)
    refused(path, "truncated or corrupt")


def test_names_that_lead_out(path):
    state = {"a": tensor("0", np.ones(1))}
    for name in ("../evil", "/etc/evil", "archive/../../evil", "C:/evil", "archive\\..\\evil"):
        refused(save(path, state, extra=[(name, "x")]), "leads out of the archive")
    with pytest.warns(UserWarning, match="Duplicate"):
        save(path, state, extra=[("archive/version", "4")])
    refused(path, "several entries of one name")
    refused(save(path, state, extra=[("other/data.pkl", "x")]), "needs one data.pkl")
    assert list(path.parent.iterdir()) == [path]


def test_zip_bombs(path, monkeypatch):
    state = {"a": tensor("0", np.zeros(10**6, np.float32))}
    refused(save(path, state, compression=zipfile.ZIP_DEFLATED), "compressed or encrypted")
    # The same bytes under several names:
    # each entry is honest, all together hold more than the file.
    save(path, state)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    begin = data.index(b"PK\x01\x02", data.index(b"archive/byteorder", directory))
    name = data.index(b"archive/data/0", directory)
    entry = bytes(data[begin : name + len("archive/data/0")])
    copies = b"".join(entry[:-1] + bytes([49 + i]) for i in range(8))
    tail = bytearray(data[end:])
    count = struct.unpack("<H", tail[10:12])[0] + 8
    size = struct.unpack("<I", tail[12:16])[0] + len(copies)
    tail[8:16] = struct.pack("<HHI", count, count, size)
    path.write_bytes(data[:end] + copies + tail)
    refused(path, "claims to hold more")
    monkeypatch.setattr(pytorch, "_LARGEST_PROGRAM", 100)
    refused(save(path, state), "has a data.pkl of [0-9]+ bytes, more than weights need")


def test_other_files(path):
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(path, "before version 1.6")
    path.write_bytes(b"not a checkpoint")
    refused(path, "no zip archive")
    refused(path.parent / "absent.pt", "cannot be read")
    refused(path.parent, "cannot be read")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "x")
    refused(path, "needs one data.pkl")
    refused(save(path, {}, extra=[("archive/constants.pkl", "x")]), "TorchScript")
    state = {"a": tensor("0", np.ones(1))}
    with zipfile.ZipFile(save(path, state)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, b"big" if name.endswith("byteorder") else content)
    refused(path, "big-endian")
