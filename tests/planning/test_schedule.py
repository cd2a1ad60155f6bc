"""How long a scheduled program takes: by hand on small modules, and its products against JAX's own
count.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.hardware import TPUS
from mdmspeech.planning import collectives, hlo, schedule
from mdmspeech.planning.roofline import estimate
from mdmspeech.planning.topology import Topology, parse
from mdmspeech.training.flops import count_flops

# a product takes 4 s at this rate (and its 48 bytes nothing), a collective what LINKS says
PRODUCT = "f32[2,2]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
RATES = schedule.Rates(flops=4.0, bandwidth=1e30, clock=1.0, tile=1)
LINKS = {"all-gather": ("ici", 3.0), "send": ("dcn", 6.0)}


def module(*lines, more=""):
    """A module whose entry has these instructions, each named by its place."""
    body = "\n".join(f"  %{line}" for line in ("a = f32[2,2]{1,0} parameter(0)", *lines))
    return hlo.parse(
        f"HloModule m, is_scheduled=true\n{more}\nENTRY %main (a: f32[2,2]) -> f32[2,2] {{\n{body}\n}}\n"
    )


def times(*lines, rates=RATES, more=""):
    found = lambda i, _: LINKS.get(i.opcode.removesuffix("-start"))
    return schedule.walk(module(*lines, more=more), rates, found)


# 8 rows of 2 x 2 x 2 FLOPs: a filled tile of eight rows
def test_one_after_another():
    one = times(f"x = {PRODUCT}")
    assert one.scheduled == pytest.approx(4 * 4.0), "16 FLOPs, two of eight rows filled"
    two = times(f"x = {PRODUCT}", f"y = {PRODUCT}")
    assert two.scheduled == two.kernels == 2 * one.scheduled and sum(two.serial.values()) == 0


GATHER = "f32[4,2]{1,0} all-gather(%a), channel_id=1, replica_groups={{0,1}}, dimensions={0}"
START = "(f32[2,2]{1,0}, f32[4,2]{1,0}) all-gather-start(%a), channel_id="


def test_a_collective_that_is_not_started_ahead_makes_the_core_wait():
    found = times(f"g = {GATHER}", f"x = {PRODUCT}")
    assert found.exposed["ici"] == found.serial["ici"] == 3
    assert found.scheduled == found.kernels + 3


def test_a_collective_runs_beside_what_stands_between_its_start_and_its_end():
    start, done = f"s = {START}1", "d = f32[4,2]{1,0} all-gather-done(%s)"
    hidden = times(start, f"x = {PRODUCT}", done)
    assert hidden.exposed["ici"] == 0 and hidden.serial["ici"] == 3
    assert hidden.scheduled == hidden.kernels == 16
    late = times(f"x = {PRODUCT}", start, done)
    assert late.exposed["ici"] == 3
    # the second waits for the network, which has the first
    pair = times(start, f"t = {START}2", done, "e = f32[4,2]{1,0} all-gather-done(%t)")
    assert pair.exposed["ici"] == 6


def test_what_is_never_waited_for_ends_with_the_program():
    assert times(f"x = {PRODUCT}", f"s = {START}1").scheduled == 16 + 3


SEND = (
    "(f32[2,2]{1,0}, u32[], token[]) send(%a, %k), channel_id=7, "
    'frontend_attributes={_xla_host_transfer_rendezvous="r",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}'
)
RECV = (
    "(f32[2,2]{1,0}, token[]) recv(%k), channel_id=8, "
    'frontend_attributes={_xla_host_transfer_rendezvous="r"}'
)


def test_between_slices_the_receiver_waits_and_the_links_stay_free():
    lines = [
        "k = token[] after-all()",
        f"s = {SEND}",
        f"r = {RECV}",
        "sd = token[] send-done(%s), channel_id=7",
        f"g = {GATHER}",
        "d = (f32[2,2]{1,0}, token[]) recv-done(%r), channel_id=8",
    ]
    found = times(*lines)
    assert found.serial == {"hbm": 0, "ici": 3, "dcn": 6}
    assert found.exposed["ici"] == 3, "it does not queue behind the other network"
    assert found.exposed["dcn"] == pytest.approx(3), "the other half ran beside the gather"


LOOP = """
%body (s: (s32[], f32[2,2])) -> (s32[], f32[2,2]) {
  %s = (s32[], f32[2,2]{1,0}) parameter(0)
  %a = f32[2,2]{1,0} get-tuple-element(%s), index=1
  %x = f32[2,2]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %g = f32[4,2]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1}}, dimensions={0}
  ROOT %t = (s32[], f32[2,2]{1,0}) tuple(%s, %x)
}
%cond (s: (s32[], f32[2,2])) -> pred[] {
  %s = (s32[], f32[2,2]{1,0}) parameter(0)
  ROOT %p = pred[] constant(true)
}
"""


def test_a_loop_takes_its_body_as_often_as_it_runs():
    loop = (
        "w = (s32[], f32[2,2]{1,0}) while(%a), condition=%cond, body=%body, "
        'backend_config={"known_trip_count":{"n":"5"}}'
    )
    found = times(loop, more=LOOP)
    assert found.kernels == 5 * 16 and found.exposed["ici"] == found.serial["ici"] == 15


def test_copies_ahead_run_beside_the_core_and_take_the_memory():
    rates = schedule.Rates(flops=4.0, bandwidth=2.0, clock=1.0, tile=1)
    copy = "(f32[2,2]{1,0:S(1)}, f32[2,2]{1,0}, u32[]) copy-start(%a)"
    done = "d = f32[2,2]{1,0:S(1)} copy-done(%c)"
    assert times(f"c = {copy}", done, rates=rates).exposed["hbm"] == 16 / 2
    beside = times(f"c = {copy}", f"x = {PRODUCT}", done, rates=rates)
    assert beside.exposed["hbm"] == 0 and beside.kernels == 48 / 2, "the product's own bytes"


@pytest.mark.parametrize(
    ("flops", "moved", "scheduled", "estimated", "low", "high"),
    [
        (197e12, 0, 0.5, 0.7, 1.0, 1.0),  # compute alone takes a second
        (0, 819e9 * 2, 1.5, 3.0, 2.0, 3.0),  # copies beside kernels share the bandwidth
        (197e12, 819e9, 4.0, 5.0, 4.0, 5.0),
        (0, 819e9 * 2, 1.5, 1.8, 2.0, 2.0),
    ],
)
def test_no_step_is_shorter_than_what_one_resource_needs(
    flops, moved, scheduled, estimated, low, high
):
    times = schedule.Times(kernels=scheduled, estimated=estimated)
    found = estimate(parse("v5e:1x1"), 1, flops, flops, moved, [], times, 16)
    assert (found.seconds_low, found.seconds_high) == pytest.approx((low, high))
    assert found.rate == pytest.approx(16 / low) and found.rate_low == pytest.approx(16 / high)


def test_the_compilers_cycles_are_the_longer_estimate():
    cycles = ', backend_config={"window_config":{"estimated_cycles":"%d"}}'
    slow = times(f"x = {PRODUCT}" + cycles % 100)
    assert (slow.kernels, slow.estimated) == (16, 100)
    bound = times(f"x = {PRODUCT}" + cycles % 1)
    assert bound.estimated == 16, "never faster than the chip"
    unknown = times(f"x = {PRODUCT}" + cycles % (2**63 - 1))
    assert unknown.estimated == 16, "the largest number there is says that it is not known"


def test_attention_kernels_take_what_the_module_does_not_show():
    kernel = 'f32[2,2]{1,0} custom-call(%a), custom_call_target="tpu_custom_call"'
    rates = schedule.Rates(flops=4.0, bandwidth=1e30, clock=1.0, tile=1, kernel_flops=40.0)
    found = times(f"x = {kernel}", f"y = {kernel}", rates=rates)
    assert found.kernels == pytest.approx(10) and found.estimated == pytest.approx(20)


def test_the_hidden_flops_are_what_is_counted_less_what_is_shown():
    tpu = TPUS["v5e"]
    found = schedule.rates(module(f"x = {PRODUCT}"), tpu, total_flops=20)
    assert found.kernel_flops == 20 - 16 and found.flops == tpu.chip.bf16_flops
    assert schedule.rates(module(f"x = {PRODUCT}"), tpu, total_flops=3).kernel_flops == 0


def test_tiles_that_are_not_full():
    for dims, tile, share in (
        ((8, 128, 128), 128, 1),
        ((8, 128, 128), 256, 1 / 4),
        ((4, 128, 64), 128, 1 / 4),
        ((9, 130, 128), 128, 9 / 16 * 130 / 256),
    ):
        assert schedule._filled(*dims, tile) == pytest.approx(share)


@pytest.mark.parametrize("name", sorted(TPUS))
def test_the_clock_makes_the_peak(name):
    tpu = TPUS[name]
    assert 1.0e9 < tpu.clock < 1.8e9 and tpu.clock * 2 * tpu.units * tpu.tile**2 == pytest.approx(
        tpu.chip.bf16_flops
    )


# ---- As the compiler writes products ------------------------------------------------------------


def shapes(*dims):
    return [jax.ShapeDtypeStruct(d, jnp.bfloat16) for d in dims]


PRODUCTS = {
    "matrix": (lambda a, b: a @ b, shapes((256, 384), (384, 512))),
    "transposed": (lambda a, b: a.T @ b, shapes((384, 256), (384, 512))),
    "heads": (
        lambda x, w: jnp.einsum("btd,dhk->bthk", x, w),
        shapes((2, 64, 256), (256, 4, 128)),
    ),
    "scores": (
        lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k),
        shapes((2, 64, 4, 128), (2, 128, 4, 128)),
    ),
    "batched": (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), shapes((8, 128, 64), (8, 64, 256))),
}


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_have_the_flops_that_jax_counts(name):
    function, arguments = PRODUCTS[name]
    device = parse("v5e:1x1").devices()[0]
    place = jax.sharding.SingleDeviceSharding(device)
    placed = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place) for a in arguments]
    compiled = hlo.parse(jax.jit(function).lower(*placed).compile().as_text())
    shown = sum(
        flops
        for where, _ in compiled.executed()
        for i in compiled.computations[where]
        for flops, _ in schedule.products(compiled, i, where, 128)
    )
    counted = count_flops(function, *arguments)
    assert shown == pytest.approx(counted)


def test_taps_on_padding_and_between_dilated_elements_cost_nothing():
    window = {"stride": "1", "lhs_dilate": "1", "rhs_dilate": "1"}
    assert schedule._taps(8, 3, 8, 1, window) == 8 * 3 - 2, "one tap beyond each end"
    assert schedule._taps(8, 3, 4, 1, window | {"stride": "2"}) == 4 * 3 - 1
    # a batch of 4 as the compiler writes it: each output meets one input
    assert schedule._taps(4, 4, 4, 0, window | {"stride": "3", "lhs_dilate": "4"}) == 4
    assert schedule._taps(1, 8, 8, 7, window) == 8, "eight heads as taps"


# ---- Two slices ---------------------------------------------------------------------------------


def test_the_network_between_slices_by_hand():
    links = collectives.Links(parse("2xv5e:4x4"), np.zeros((16, 2), int))
    chip = 25e9 / 8
    reduced = links.between_slices("all-reduce", 10**9)
    assert reduced == pytest.approx(2 * 1e9 / 2 / chip + collectives.DCN_S)
    assert links.between_slices("all-gather", 10**9) == pytest.approx(
        1e9 / 2 / chip + collectives.DCN_S
    )
    four = collectives.Links(Topology(TPUS["v5e"], (4, 4), 4), np.zeros((16, 2), int))
    assert four.between_slices("all-reduce", 10**9) == pytest.approx(
        2 * 1e9 * 3 / 4 / chip + collectives.DCN_S
    )
