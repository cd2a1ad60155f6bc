"""Programs that are kept: found again without tracing, made anew for whatever changes them, and
nothing is lost where they cannot be kept.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mdmspeech import programs
from mdmspeech.decoding.state import SamplingParams
from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import PacedInputs
from mdmspeech.models.generation import ThinkerState
from mdmspeech.nn.feature_major import ColumnCache
from mdmspeech.programs import KeptProgram

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where programs are kept, in a process of one device."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    programs.keep(tmp_path / "kept")
    yield tmp_path / "kept"
    programs.keep(None)


class Traced:
    """A function that counts how often it is traced."""

    def __init__(self, result=lambda x: x * 2):
        self.count, self._result = 0, result

    def __call__(self, x, **static):
        self.count += 1
        return self._result(x, **static)


def program(function, about="sizes", name="double", **options):
    """As a process makes it that has just begun."""
    return KeptProgram("part", name, function, about, **options)


def files(folder):
    return sorted(folder.glob("*"))


def test_another_process_does_not_trace(folder):
    first, second = Traced(), Traced()
    one, two = program(first)(X), program(second)(X)
    assert (first.count, second.count) == (1, 0)
    np.testing.assert_array_equal(one, X * 2)
    np.testing.assert_array_equal(two, X * 2)
    assert len(files(folder)) == 1 and not list(folder.glob("*.part"))


@struct.dataclass
class Mixed:
    a: Any
    size: int = struct.field(pytree_node=False, default=3)


class Pair(NamedTuple):
    left: Any
    right: Any


RESULTS = {
    "an array": lambda x: x + 1,
    "a dict, not in order": lambda x: {"z": x, "a": {"c": x + 1, "b": x + 2}},
    "tuples and lists": lambda x: (x, [x + 1, (x + 2,)], ()),
    "none among others": lambda x: (None, x, {"a": None}),
    "a named tuple": lambda x: PacedInputs(x, x + 1, jnp.int32(3)),
    "a dataclass of flax": lambda x: ColumnCache(x, (x + 1)),
    "dataclasses in dataclasses": lambda x: ThinkerState((ColumnCache(x, x),), x[0], x + 1),
    "keys": lambda x: SamplingParams.create(2, seed=[1, 2]),
    "whole numbers, truth values": lambda x: (x > 2, x.astype(jnp.int8), jnp.uint32(7)),
    "what came in": lambda x: {"same": x, "again": x},
}


@pytest.mark.parametrize("what", RESULTS)
def test_what_comes_out_is_what_was_traced(folder, what):
    plain = jax.jit(RESULTS[what])(X)
    for again in (Traced(RESULTS[what]), Traced(lambda x: pytest.fail("traced"))):
        out = program(again)(X)
        assert jax.tree.structure(out) == jax.tree.structure(plain)
        for ours, wanted in zip(jax.tree.leaves(out), jax.tree.leaves(plain), strict=True):
            assert ours.dtype == wanted.dtype
            data = jax.random.key_data if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key) else id
            if data is not id:
                ours, wanted = data(ours), data(wanted)
            np.testing.assert_array_equal(ours, wanted)
    assert len(files(folder)) == 1


@pytest.mark.parametrize(
    "result", [lambda x: Mixed(x), lambda x: Pair(x, x)], ids=["static field", "of another package"]
)
def test_a_type_of_somebody_else_is_traced_every_time(folder, result, monkeypatch):
    for _ in range(2):
        again = Traced(result)
        assert np.array_equal(jax.tree.leaves(program(again)(X))[0], X) and again.count


def test_whatever_changes_a_program_makes_it_anew(folder, monkeypatch):
    def power(x, by=1):
        return jax.tree.map(lambda leaf: leaf**by, x)

    options = dict(static=("by",))
    base = program(Traced(power), **options)
    base(X, by=2)
    cases = {
        "nothing": (program, {}, X, 2, 0),
        "about": (program, {"about": "other sizes"}, X, 2, 1),
        "name": (program, {"name": "triple"}, X, 2, 1),
        "static": (program, {}, X, 3, 1),
        "no static": (program, {}, X, None, 1),
        "shape": (program, {}, X[:1], 2, 1),
        "dtype": (program, {}, X.astype(np.int32), 2, 1),
        "tree": (program, {}, [X], 2, 1),
        "names in the tree": (program, {}, {"a": X}, 2, 1),
        "other names": (program, {}, {"b": X}, 2, 1),
    }
    for what, (make, changed, x, by, traces) in cases.items():
        function = Traced(power)
        make(function, **{"about": "sizes", **options, **changed})(
            x, **({} if by is None else {"by": by})
        )
        assert function.count == traces, what
    monkeypatch.setattr(programs, "code_digest", lambda: "another version")
    function = Traced(power)
    program(function, **options)(X, by=2)
    assert function.count == 1
    with jax.default_matmul_precision("float32"):
        function = Traced(power)
        program(function, **options)(X, by=2)
    assert function.count == 1


def test_the_digest_is_of_the_code(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "_PACKAGE", tmp_path)
    (tmp_path / "models" / "deep").mkdir(parents=True)
    seen = set()
    for room, text in (
        (".", "a"), ("models", "a"), ("models", "b"), ("models/deep", "b"), ("cli", "b"),
    ):  # fmt: skip
        (tmp_path / room).mkdir(exist_ok=True)
        (tmp_path / room / "x.py").write_text(text)
        seen.add(programs.code_digest.__wrapped__())
    assert len(seen) == 4  # nothing is traced from cli


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[8:],
        lambda data: b"not one of ours",
    ],
    ids=["empty", "cut", "one bit", "a length", "no length", "another file"],
)
def test_a_damaged_file_is_made_anew(folder, damage):
    program(Traced())(X)
    (file,) = files(folder)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = Traced()
    np.testing.assert_array_equal(program(again)(X), X * 2)
    assert again.count == 1
    third = Traced()
    program(third)(X)
    assert third.count == 0


def test_a_file_that_names_another_package_calls_nothing(folder):
    with pytest.raises(ValueError, match="none of ours"):
        programs._rebuilt({"class": "os:system", "fields": {"command": "leaf"}}, iter(["true"]))


@pytest.mark.parametrize("about", [None, "sizes"])
def test_where_nothing_can_be_kept_all_works(folder, about):
    folder.write_text("a file where a folder should be")
    for _ in range(2):
        again = Traced()
        np.testing.assert_array_equal(program(again, about)(X), X * 2)
        assert again.count >= 1


def test_several_devices_keep_nothing(folder, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    program(Traced())(X)
    assert not folder.exists()


def test_what_cannot_be_exported_is_traced(folder):
    def called(x):
        return jax.pure_callback(lambda x: x * 2, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    np.testing.assert_array_equal(program(called)(X), X * 2)
    assert not files(folder) if folder.exists() else True


def test_an_error_of_the_function_is_the_callers(folder):
    def refuse(x):
        raise UserError("too long")

    with pytest.raises(UserError, match="too long"):
        program(refuse)(X)


def test_a_state_that_goes_round_is_one_program(folder, monkeypatch):
    read = []
    found = programs._read
    monkeypatch.setattr(programs, "_read", lambda file: read.append(file) or found(file))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    step = program(lambda state, x: {"sum": state["sum"] + x}, donate=("state",))
    state, x = {"sum": np.zeros(5, np.float32)}, np.ones(5, np.float32)
    for _ in range(3):
        state = step(state, x)
    state = step(state=jax.device_put(state), x=jax.device_put(x))
    np.testing.assert_array_equal(state["sum"], np.full(5, 4))
    assert len(read) == 1 and len(compiled) == 1


def test_memory_of_what_is_given_away_is_reused(folder):
    step = program(lambda a, b: (a + b, b), donate=("a",))
    a, b = jax.device_put((jnp.ones(64), jnp.ones(64)))
    step(a, b=b)
    assert a.is_deleted() and not b.is_deleted()


def test_what_is_made_is_told_and_what_was_kept_is_not(folder):
    heard = []
    with programs.telling(lambda part, seconds: heard.append((part, seconds))):
        program(Traced())(X)
    assert heard[0] == ("part", None) and heard[1][0] == "part" and heard[1][1] > 0
    assert len(heard) == 2
    with programs.telling(lambda part, seconds: pytest.fail("nothing is made")):
        twice = program(Traced())
        twice(X), twice(X)
    program(Traced(), "other sizes")(X)  # nobody listens any more
    assert len(heard) == 2


def test_fields_of_a_class_of_ours_with_a_static_one(folder):
    @dataclasses.dataclass(frozen=True)
    class Static:
        x: Any
        size: int = dataclasses.field(metadata={"static": True})

    Static.__module__ = "mdmspeech.somewhere"
    told = programs._structure(Static(X, 4))
    assert told["fields"] == {"x": "leaf", "size": {"static": 4}}
    with pytest.raises(TypeError):
        programs._structure(Static(X, (4,)))
    with pytest.raises(TypeError):
        programs._structure({"a": {1, 2}})
