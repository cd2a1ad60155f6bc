"""What the launchers give JAX as its cache of compiled programs: a folder in a bucket."""

import jax
import jax.numpy as jnp
import pytest
from etils.epath import backend
from jax.experimental.compilation_cache import compilation_cache

from mdmspeech import remote
from tests.support.bucket_server import bucket_server, reached


@pytest.fixture
def cache_in_bucket():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with bucket_server("bucket") as server, reached(server):
        remote.register()
        backend.fsspec_backend._get_filesystem.cache_clear()
        compilation_cache.reset_cache()
        jax.config.update(names[0], "gs://bucket/a run/compiled")
        jax.config.update(names[1], 0.0)
        yield "gs://bucket/a run/compiled"
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_program_comes_from_the_bucket_the_second_time(cache_in_bucket):
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    for hits in (0, 1):
        jax.clear_caches()
        assert jax.jit(lambda x: jnp.sin(x) * 3.25)(2.0) == pytest.approx(2.95517, rel=1e-4)
        kept = [name for name in remote.list_names(cache_in_bucket) if name.endswith("-cache")]
        assert len(kept) >= 1
        assert (events.count("/jax/compilation_cache/cache_hits") > 0) == bool(hits)
