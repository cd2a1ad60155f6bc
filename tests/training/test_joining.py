"""Who the other processes are: the table of environments, the same as JAX where JAX can tell, the
arguments before all, and a metadata server.
"""

import re

import pytest
from environments import (
    ALONE,
    PLACES,
    V6E_8,
    device_plugin,
    jobset,
    open_mpi,
    slurm_step,
    tpu_vm,
)
from jax._src.clusters import GkeTpuCluster, OmpiCluster, SlurmCluster
from metadata_server import serving

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.training.joining import Metadata, Peers, find_peers


def found(place, **arguments):
    def ask(name):
        assert place.metadata is not None, f"nobody may ask for {name}"
        return place.metadata.get(name)

    return find_peers(
        place.env, platforms=place.platforms, libtpu=place.libtpu, ask=ask, **arguments
    )


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_what_an_environment_says(place):
    if isinstance(place.expected, str):
        with pytest.raises(UserError, match=place.expected) as error:
            found(place)
        assert error.value.exit_code == 2 and "--coordinator HOST:PORT" in str(error.value)
        return
    peers = found(place)
    if place.expected is ALONE:
        assert peers is None
        return
    assert (peers.coordinator, peers.count, peers.number) == place.expected[:3]
    assert peers.local_device == (place.expected[3] if len(place.expected) > 3 else None)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_arguments_come_before_all(place):
    told = found(place, coordinator="host:1", processes=3, process=2)
    assert (told.coordinator, told.count, told.number) == ("host:1", 3, 2)
    assert found(place, processes=1) is None


@pytest.mark.parametrize("pods", [1, 2, 4])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_all_pods_of_a_jobset_agree(slices, pods):
    kind = device_plugin("v6e-8", "x", f"1,{pods},1", "2,2,1")
    peers = [
        find_peers(
            kind | jobset("t", "s", slices, pods, which, pod),
            platforms="tpu,cpu",
            libtpu=True,
            ask=lambda name: None,
        )
        for which in range(slices)
        for pod in range(pods)
    ]
    if slices * pods == 1:
        assert peers == [None]
    else:
        assert [p.number for p in peers] == list(range(slices * pods))
        assert {(p.coordinator, p.count) for p in peers} == {("t-s-0-0.t:8482", slices * pods)}


AS_JAX = {
    "two slices": (GkeTpuCluster, V6E_8 | jobset("t", "s", 2, 2, 1, 1)),
    "Slurm": (SlurmCluster, slurm_step(4, 3)),
    "Slurm, a list": (SlurmCluster, slurm_step(4, 3, "alpha,beta")),
    "Open MPI": (OmpiCluster, open_mpi(2, 1, OMPI_MCA_orte_hnp_uri="409600.0;tcp://10.1.1.1:9")),
}


@pytest.mark.parametrize("name", AS_JAX)
def test_it_is_what_jax_finds(name, monkeypatch):
    cluster, env = AS_JAX[name]
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(cluster, "wait_for_coordinator", lambda *_: None, raising=False)
    mine = find_peers(env, platforms="tpu", libtpu=True, ask=lambda name: None)
    meet = cluster.get_coordinator_address(timeout_secs=1, override_coordinator_port=None)
    assert (mine.coordinator, mine.count, mine.number) == (
        meet,
        cluster.get_process_count(),
        cluster.get_process_id(),
    )


@pytest.mark.parametrize(
    ("env", "arguments", "expected"),
    [
        ({}, dict(coordinator="h:1", processes=2, process=0), ("h:1", 2, 0)),
        (dict(JAX_COORDINATOR_ADDRESS="h", JAX_COORDINATOR_PORT="1", JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID="1"), {}, ("h:1", 2, 1)),
        (dict(JAX_COORDINATOR_ADDRESS="h:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="1"),
            dict(process=0), ("h:1", 2, 0)),
        (V6E_8 | jobset("t", "s", 1, 2, 0, 1), dict(coordinator="[::1]:5"), ("[::1]:5", 2, 1)),
        (slurm_step(4, 2), dict(coordinator="h:7"), ("h:7", 4, 2)),
        (dict(JAX_NUM_PROCESSES="1") | V6E_8 | jobset("t", "s", 1, 2, 0, 1), {}, None),
        ({}, dict(coordinator="h:1", processes=2), "needs all three"),
        ({}, dict(process=1), "needs all three"),
        ({}, dict(coordinator="h", processes=2, process=1), "as HOST:PORT"),
        ({}, dict(coordinator=":1", processes=2, process=1), "as HOST:PORT"),
        ({}, dict(coordinator="h:1", processes=2, process=2), "numbered from 0"),
        ({}, dict(coordinator="h:1", processes=1, process=1), "numbered from 0"),
        (dict(JAX_NUM_PROCESSES="two"), {}, "JAX_NUM_PROCESSES='two'"),
    ],
)  # fmt: skip
def test_what_is_given_and_what_is_filled_in(env, arguments, expected):
    ask = lambda name: None
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            find_peers(env, platforms=None, libtpu=False, ask=ask, **arguments)
        return
    peers = find_peers(env, platforms=None, libtpu=False, ask=ask, **arguments)
    assert (peers and (peers.coordinator, peers.count, peers.number)) == expected


def test_a_tpu_vm_is_asked_over_the_network(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(tpu_vm(["a", "b"], 1), failures=2) as address:
        ask = Metadata({"GCE_METADATA_IP": address}, pause_s=0.01)
        peers = find_peers({}, platforms="tpu,cpu", libtpu=True, ask=ask)
        assert peers == Peers("a:8482", 2, 1, peers.told_by)
        assert ask("nothing") is None
    with pytest.raises(TryAgainError, match=re.escape(f"http://{address}/") + ".*--processes 1"):
        find_peers({}, platforms="tpu,cpu", libtpu=True, ask=ask)
