"""Checkpoints: what is stored, what is refused, what happens to damage."""

import shutil

import jax
import numpy as np
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training.checkpoint import Checkpoints, _merge_positions, _own_position
from mdmspeech.training.loop import train
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.state import abstract_state, create_state


class WideTask(TinyTask):
    """Enough numbers that a flipped bit lands in an array."""

    def init(self, rng):
        return {
            "in": {"kernel": jax.random.normal(rng, (6, 4096)), "bias": np.zeros(4096, np.float32)},
            "out": {"kernel": jax.random.normal(rng, (4096, 1)), "bias": np.zeros(1, np.float32)},
        }


def make(task=None):
    task, config, mesh, rng = task or TinyTask(), tiny_config(), make_mesh(), jax.random.key(3)
    optimizer = make_optimizer(config.optim, 8, jax.eval_shape(task.init, rng), task.optimizer)
    args = (task.init, optimizer, rng, True, mesh)
    return config, create_state(*args), abstract_state(*args)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("position", [{"next_index": 7}, b"\x00\xffbytes"])
def test_round_trip(tmp_path, position):
    config, state, like = make()
    store = Checkpoints(tmp_path, config.to_dict())
    assert store.restore(like) is None
    store.save(state, position, 12.5)
    store.wait()
    restored, where, seconds, _ = store.restore(like)
    assert_same(state, restored)
    assert (where, seconds) == (position, 12.5)
    assert all(
        a.sharding == b.sharding
        for a, b in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(restored.params), strict=True
        )
    )


def test_what_is_saved_is_the_state_at_the_call_though_it_is_donated_next(tmp_path):
    config, state, like = make(WideTask())
    expected = jax.tree.map(np.array, state.params)
    store = Checkpoints(tmp_path, config.to_dict())
    store.save(state, {}, 0.0)
    overwrite = jax.jit(
        lambda s: s.replace(params=jax.tree.map(lambda x: x * 0 - 1, s.params)), donate_argnums=0
    )
    jax.block_until_ready(overwrite(state))
    store.wait()
    assert_same(expected, store.restore(like)[0].params)


def test_only_the_newest_are_kept(tmp_path):
    config, state, _ = make()
    store = Checkpoints(tmp_path, config.to_dict(), keep=2)
    for step in (1, 2, 3):
        store.save(state.replace(step=state.step + step), {}, 0.0)
    store.wait()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def test_the_best_is_kept_besides_the_newest(tmp_path):
    config, state, _ = make()
    store = Checkpoints(tmp_path, config.to_dict(), 1, ("min", "mse"))
    for step, scores in (
        (1, {"mse": 3.0}),
        (2, {"mse": 1.0}),
        (3, {"mse": 1.0}),
        (4, {}),
        (5, {"other": 0.0}),
    ):
        store.save(state.replace(step=state.step + step), {}, 0.0, scores=scores)
    store.close()
    kept = lambda: sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept() == ["2", "5"]  # of equal ones the first
    store = Checkpoints(tmp_path, config.to_dict(), 1, ("min", "mse"))  # a restart remembers it
    assert (
        store.is_best({"mse": 0.5})
        and not store.is_best({"mse": 1.0})
        and not store.is_best({"other": 0.0})
    )
    store.save(state.replace(step=state.step + 6), {}, 0.0, scores={"mse": 0.5})
    store.close()
    assert kept() == ["6"]
    assert Checkpoints(tmp_path, config.to_dict(), 1, ("max", "mse")).is_best({"mse": 0.6})


def test_a_wrong_mode_is_named(tmp_path):
    with pytest.raises(UserError, match="keep_best_mode is 'least'"):
        Checkpoints(tmp_path, {}, best=("least", "mse"))


def test_a_position_of_each_process_needs_as_many_processes():
    same, own = [{"json": 8}, {"json": 8}], [{"json": 8}, {"json": 4}]
    assert _own_position(_merge_positions(same)) == {"json": 8}
    with pytest.raises(UserError, match=r"saved by 2 processes.*start it with 2"):
        _own_position(_merge_positions(own))


def test_another_config_is_refused_by_name(tmp_path):
    train(tiny_config(steps=2), TinyTask(), tmp_path)
    other = tiny_config(steps=4)
    other.optim.lr = 0.5
    with pytest.raises(UserError, match=r"of another config \(optim.lr: 0.01 -> 0.5\)"):
        train(other, TinyTask(), tmp_path)
    assert (tmp_path / "checkpoints" / "2").exists()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def torn(directory):
    shutil.rmtree(directory / "state" / "d")


def truncated(directory):
    for path in (directory / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(directory):
    files = [p for p in (directory / "state").rglob("d/*") if p.is_file()]
    largest = max(p.stat().st_size for p in files)
    for path in files:  # the same array can lie in two files, of which one is read
        if path.stat().st_size > largest // 2:
            flip(path)


@pytest.mark.parametrize("damage", [torn, truncated, flipped])
def test_a_damaged_latest_is_named_and_the_one_before_is_used(tmp_path, damage):
    config, state, like = make(WideTask())
    store = Checkpoints(tmp_path, config.to_dict())
    for step in (4, 8):
        store.save(state.replace(step=state.step + step), {"step": step}, 0.0)
    store.close()
    damage(tmp_path / "checkpoints" / "8")
    said = []
    store = Checkpoints(tmp_path, config.to_dict(), say=said.append)
    restored, where, *_ = store.restore(like)
    assert int(restored.step) == 4 and where == {"step": 4}
    assert_same(state.params, restored.params)
    assert len(said) == 1 and "checkpoint 8 cannot be read" in said[0]
    assert (tmp_path / "corrupt" / "8").exists()
    store.save(state.replace(step=state.step + 8), {}, 0.0)  # its place is free again
    store.wait()


def test_nothing_readable_is_an_error_and_nothing_is_moved(tmp_path):
    config, state, like = make()
    store = Checkpoints(tmp_path, config.to_dict())
    store.save(state, {}, 0.0)
    store.close()
    torn(tmp_path / "checkpoints" / "0")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(0: "):
        Checkpoints(tmp_path, config.to_dict()).restore(like)
    assert (tmp_path / "checkpoints" / "0").exists()


def test_a_save_that_fails_in_the_background_is_raised(tmp_path):
    config, state, _ = make()
    store = Checkpoints(tmp_path, config.to_dict())
    store.save(state, {"not JSON": {1, 2}}, 0.0)
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.wait()
