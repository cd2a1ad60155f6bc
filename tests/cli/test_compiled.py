"""What was compiled is kept: where, and when not; and the second process finds it."""

import os
import subprocess
import sys

import pytest

from mdmspeech.cli import compiled


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A process that has not imported JAX, and a home for its data."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setattr(os, "environ", {**os.environ, "MDMSPEECH_HOME": str(tmp_path)})
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        os.environ.pop(name, None)
    return tmp_path


def test_a_folder_of_this_kind_of_machine(fresh):
    folder = compiled.keep_compiled()
    assert folder.parent == fresh / "compiled" and folder.name.startswith("jaxlib-")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_COMPILATION_CACHE_DIR", "/else"), ("JAX_ENABLE_COMPILATION_CACHE", "false")],
)
def test_who_has_chosen_keeps_his_choice(fresh, name, value):
    os.environ[name] = value
    assert compiled.keep_compiled() is None
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") == (value if name.endswith("DIR") else None)


def test_too_late_once_jax_is_there(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", object())
    assert compiled.keep_compiled() is None


def test_a_folder_that_has_grown_is_emptied(fresh, monkeypatch):
    folder = compiled.keep_compiled()
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(bytes(100))
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    compiled.keep_compiled()
    assert (folder / "old").exists()
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    monkeypatch.setattr(compiled, "MOST", 99)
    compiled.keep_compiled()
    assert not folder.exists()


@pytest.mark.slow
def test_a_second_process_compiles_nothing(fresh):
    code = (
        "from mdmspeech.cli.compiled import keep_compiled; keep_compiled(); import jax, jax.numpy "
        "as jnp; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0); heard = []; "
        "jax.monitoring.register_event_listener(lambda event, **_: heard.append(event)); "
        "jax.jit(lambda x: jnp.fft.rfft(x @ x).real.sum())(jnp.ones((8, 8))); "
        "print(sum(e.endswith('cache_hits') for e in heard), sum(e.endswith('cache_misses') for e "
        "in heard))"
    )
    run = lambda: subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    (hits, misses), (again, missed) = run(), run()
    assert int(misses) > 0 == int(hits)
    assert int(again) > 0 == int(missed)
