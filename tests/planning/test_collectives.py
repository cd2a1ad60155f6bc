"""Reading a compiled module: how often its parts run, what its devices send, what it moves to and
from memory. All numbers here are by hand.
"""

import numpy as np
import pytest

from mdmspeech.planning import collectives, hlo, traffic
from mdmspeech.planning.collectives import HOP_S, Links
from mdmspeech.planning.topology import parse

# A loop of 7 (0 <= i < 7) that gathers, scatters (as TPUs write it) and has one asynchronous gather
# spread over two fusions; a loop of 3 inside it that permutes both ways; and an all-reduce after
# it.
MODULE = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%scatter (input: bf16[1024]) -> bf16[256] {
  %input = bf16[1024]{0:T(1024)} parameter(0)
  %zero = bf16[] constant(0)
  %pad = bf16[1152]{0} pad(%input, %zero), padding=0_128
  %all-reduce.1 = bf16[1152]{0} all-reduce(%pad), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %at = u32[] constant(0)
  ROOT %part = bf16[256]{0} dynamic-slice(%all-reduce.1, %at), dynamic_slice_sizes={256}
}

%gather_start (g: bf16[64]) -> (bf16[64], bf16[256]) {
  %g = bf16[64]{0} parameter(0)
  %all-gather.5 = bf16[256]{0} all-gather(%g), channel_id=9, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true
  ROOT %start = (bf16[64]{0}, bf16[256]{0}) custom-call(%all-gather.5), custom_call_target="AsyncCollectiveStart"
}

%gather_step (h: bf16[64]) -> (bf16[64], bf16[256]) {
  %h = bf16[64]{0} parameter(0)
  %all-gather.6 = bf16[256]{0} all-gather(%h), channel_id=9, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true
  ROOT %step = (bf16[64]{0}, bf16[256]{0}) custom-call(%all-gather.6), custom_call_target="AsyncCollectiveStep"
}

%inner_body (p: (s32[], bf16[512])) -> (s32[], bf16[512]) {
  %p = (s32[]{:T(128)}, /*index=1*/bf16[512]{0:T(1024)(2,1)}) parameter(0)
  %j = s32[] get-tuple-element(%p), index=0
  %v = bf16[512]{0} get-tuple-element(%p), index=1
  %one.1 = s32[] constant(1)
  %next.1 = s32[] add(%j, %one.1)
  %there = (bf16[512]{0}, bf16[512]{0}, u32[]{:S(2)}) collective-permute-start(%v), channel_id=5, source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}
  %back = (bf16[512]{0}, bf16[512]{0}, u32[]{:S(2)}) collective-permute-start(%v), channel_id=6, source_target_pairs={{1,0},{2,1},{3,2},{0,3},{5,4},{6,5},{7,6},{4,7}}
  %there.done = bf16[512]{0} collective-permute-done(%there)
  %back.done = bf16[512]{0} collective-permute-done(%back)
  ROOT %out.1 = (s32[], bf16[512]{0}) tuple(%next.1, %there.done)
}

%inner_condition (q: (s32[], bf16[512])) -> pred[] {
  %q = (s32[], bf16[512]{0}) parameter(0)
  %j.1 = s32[] get-tuple-element(%q), index=0
  %three = s32[] constant(3)
  ROOT %less.1 = pred[] compare(%j.1, %three), direction=LT
}

%body (s: (s32[], bf16[64], bf16[512])) -> (s32[], bf16[64], bf16[512]) {
  %s = (s32[], bf16[64]{0}, bf16[512]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %a = bf16[64]{0} get-tuple-element(%s), index=1
  %b = bf16[512]{0} get-tuple-element(%s), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %gathered = bf16[128]{0} all-gather(%a), channel_id=1, replica_groups=mesh['x'=4,'y'=2] {'y'}, dimensions={0}, use_global_device_ids=true
  %kernel = bf16[1024]{0} custom-call(%gathered), custom_call_target="tpu_custom_call", kernel_metadata={"cost": {
}}, backend_config={}
  %scattered = bf16[256]{0} fusion(%kernel), kind=kCustom, calls=%scatter
  %begun = (bf16[64]{0}, bf16[256]{0}) fusion(%a), kind=kCustom, calls=%gather_start
  %going = (bf16[64]{0}, bf16[256]{0}) fusion(%a), kind=kCustom, calls=%gather_step
  %zero.2 = s32[] constant(0)
  %state = (s32[], bf16[512]{0}) tuple(%zero.2, %b)
  %inner = (s32[], bf16[512]{0}) while(%state), condition=%inner_condition, body=%inner_body
  %b.2 = bf16[512]{0} get-tuple-element(%inner), index=1
  ROOT %out = (s32[], bf16[64]{0}, bf16[512]{0}) tuple(%next, %a, %b.2)
}

%condition (r: (s32[], bf16[64], bf16[512])) -> pred[] {
  %r = (s32[], bf16[64]{0}, bf16[512]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%r), index=0
  %seven = s32[]{:T(128)} constant(7)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %seven), direction=LT
}

ENTRY %main (a0: bf16[64], b0: bf16[512], f0: f32[100]) -> f32[100] {
  %a0 = bf16[64]{0} parameter(0)
  %b0 = bf16[512]{0} parameter(1)
  %f0 = f32[100]{0} parameter(2)
  %zero.1 = s32[] constant(0)
  %copied = s32[] copy(%zero.1)
  %start.1 = (s32[], bf16[64]{0}, bf16[512]{0}) tuple(%copied, %a0, %b0)
  %loop = (s32[], bf16[64]{0}, bf16[512]{0}) while(%start.1), condition=%condition, body=%body
  ROOT %all-reduce.2 = f32[100]{0:T(128)} all-reduce(%f0), channel_id=8, replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%add
}
"""
SIZES = {"data": 2, "fsdp": 4, "tensor": 1}


def found():
    return {
        (c.kind, c.axes, c.group): (c.bytes, c.count)
        for c in collectives.find(hlo.parse(MODULE), SIZES)
    }


def test_loops_multiply():
    assert dict(hlo.parse(MODULE).executed()) == {"main": 1, "body": 7, "inner_body": 21}


def test_every_kind_is_counted_with_its_loop():
    module = collectives.find(hlo.parse(MODULE), SIZES)
    assert sum(c.count for c in module) == 7 + 7 + 7 + 21 + 21 + 1
    seen = found()
    assert seen["reduce-scatter", "fsdp", 4] == (2048, 7), (
        "an all-reduce of which only a slice is used; the padding is not sent"
    )
    assert seen["all-reduce", "data+fsdp", 8] == (400, 1)
    assert seen["collective-permute", "fsdp", 4] == (1024, 42)
    assert seen["all-gather", "fsdp", 4] == (512, 7), "one gather, though two fusions name it"
    assert seen["all-gather", "fsdp", 2] == (256, 7), (
        "partitions 0 and 1 of the compiler's own mesh"
    )


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", [0, 2]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", list(range(8))),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'c'}", [0, 2, 4, 6]),
    ],
)
def test_ways_to_write_a_group(written, group):
    instruction = hlo._instruction(
        f"  %g = f32[8]{{0}} all-reduce(%x), channel_id=1, {written}, to_apply=%add"
    )
    assert collectives._group(instruction) == (group, [])


def test_known_trip_counts_and_wrapped_conditions():
    text = MODULE.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"11"},"x":1}'
    )
    assert dict(hlo.parse(text).executed())["body"] == 11
    wrapped = MODULE.replace(
        "  ROOT %less = pred[]{:T(512)} compare(%i.1, %seven), direction=LT",
        "  ROOT %less = pred[] fusion(%i.1, %seven), kind=kLoop, calls=%wrapped",
    ).replace(
        "ENTRY",
        "%wrapped (u: s32[], w: s32[]) -> pred[] {\n  %u = s32[] parameter(0)\n "
        " %w = s32[] parameter(1)\n"
        "  ROOT %c = pred[] compare(%u, %w), direction=LT\n}\n\nENTRY",
    )
    assert dict(hlo.parse(wrapped).executed())["body"] == 7
    stepped = MODULE.replace("%one = s32[] constant(1)", "%one = s32[] constant(2)").replace(
        "%zero.1 = s32[] constant(0)", "%zero.1 = s32[] constant(1)"
    )
    assert dict(hlo.parse(stepped).executed())["body"] == 3, "1, 3, 5"


def test_a_loop_that_depends_on_data():
    text = MODULE.replace(
        "compare(%i.1, %seven), direction=LT", "compare(%i.1, %seven), direction=NE"
    )
    assert dict(hlo.parse(text).executed(unknown_trips=(4,)))["body"] == 4


@pytest.mark.parametrize(
    ("trips", "runs"),
    [((4,), (4, 16)), ((1, 4), (1, 4)), ((3, 2), (3, 6)), ((5, 0), (5, 0)), ((2, 1, 7), (2, 2))],
)
def test_loops_inside_loops_that_depend_on_data(trips, runs):
    """The outer one's trips come first; the last number holds for all further in."""
    loop = "%{name} = s32[] while(%{of}), condition=%done, body=%{body}"
    text = (
        "HloModule m\n\n%done (d: s32[]) -> pred[] {\n  ROOT %d = pred[] parameter(0)\n}\n\n"
        "%inner (i: s32[]) -> s32[] {\n  ROOT %i = s32[] parameter(0)\n}\n\n"
        "%outer (o: s32[]) -> s32[] {\n  %o = s32[] parameter(0)\n  ROOT "
        + loop.format(name="w", of="o", body="inner")
        + "\n}\n\nENTRY %main (a: s32[]) -> s32[] {\n  %a = s32[] parameter(0)\n  ROOT "
        + loop.format(name="v", of="a", body="outer")
        + "\n}\n"
    )
    found = dict(hlo.parse(text).executed(unknown_trips=trips))
    assert (found["outer"], found["inner"]) == runs


def test_a_copy_ahead_is_read_once_and_written_where_memory_is():
    near, far = "f32[10]{0:S(1)}", "f32[10]{0}"
    for where, moved in ((near, 40), (far, 80)):
        line = f"((f32[100]{{0}}), {where}, u32[]) slice-start(%x)"
        text = (
            "ENTRY %m (x: f32[100]) -> f32[100] {\n  %x = f32[100]{0} parameter(0)\n"
            f"  ROOT %s = {line}\n}}\n"
        )
        assert traffic.hbm_bytes(hlo.parse(text)) == moved


def test_not_a_module():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("nothing here")


# ---- Time on the links --------------------------------------------------------------------------


def links(name):
    topology = parse(name)
    return Links(
        topology,
        np.stack(np.meshgrid(*map(np.arange, topology.shape), indexing="ij"), -1).reshape(
            -1, len(topology.shape)
        ),
    ), topology.tpu.link


SIZE = 10**13  # bytes, beside which latency is nothing


def test_ring_formulas():
    ring, link = links("v5p:4x4x4")
    along_z, plane = list(range(4)), list(range(16))
    assert ring.seconds("all-gather", along_z, SIZE) == pytest.approx(SIZE * 3 / 4 / (2 * link)), (
        "a ring of 4, both ways"
    )
    assert ring.seconds("all-gather", plane, SIZE) == pytest.approx(SIZE * 15 / 16 / (4 * link)), (
        "two rings"
    )
    assert ring.seconds("all-reduce", along_z, SIZE) == pytest.approx(
        2 * ring.seconds("reduce-scatter", along_z, SIZE)
    )
    assert ring.seconds("all-to-all", along_z, SIZE) == pytest.approx(SIZE * 4 / (8 * link))
    assert ring.seconds("all-gather", [0], SIZE) == 0
    line, link = links("v5e:4x4")
    assert line.seconds("all-gather", list(range(4)), SIZE) == pytest.approx(SIZE * 3 / 4 / link), (
        "a line: each way alone"
    )


def test_permutes_share_links():
    ring, link = links("v5p:4x4x4")
    right = [(0, 1), (1, 2), (2, 3), (3, 0)]
    left = [(b, a) for a, b in right]
    assert ring.permute_seconds([(right, SIZE)]) == pytest.approx(SIZE / link)
    assert ring.permute_seconds([(right, SIZE), (left, SIZE)]) == pytest.approx(SIZE / link), (
        "the other way round uses the other links"
    )
    assert ring.permute_seconds([(right, SIZE), (right, SIZE // 2)]) == pytest.approx(
        1.5 * SIZE / link
    )
    line, link = links("v5e:4x4")
    assert line.permute_seconds([(left, SIZE)]) == pytest.approx(SIZE / link), (
        "the ring's end walks back over links that the others use the other way"
    )
    assert line.permute_seconds([([(0, 3), (1, 2)], SIZE)]) == pytest.approx(2 * SIZE / link)


def test_latency_counts_the_hops_of_the_longest_way():
    ring, _ = links("v5p:4x4x4")
    assert ring.seconds("all-gather", list(range(4)), 0) == pytest.approx(1.5 * HOP_S), "both ways"
    assert ring.seconds("all-reduce", list(range(4)), 0) == pytest.approx(3 * HOP_S)
    assert ring.permute_seconds([([(0, 2)], 0)]) == pytest.approx(2 * HOP_S)
    line, _ = links("v5e:4x4")
    assert line.seconds("all-gather", list(range(4)), 0) == pytest.approx(3 * HOP_S)
    assert line.permute_seconds([([(0, 3), (1, 2)], 0)]) == pytest.approx(3 * HOP_S)


# ---- Bytes to and from memory -------------------------------------------------------------------

TRAFFIC = """\
HloModule jit_f

%slicing (stack: f32[10,100], at: s32[]) -> f32[100] {
  %stack = f32[10,100]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%stack, %at, %zero), dynamic_slice_sizes={1,100}
  ROOT %flat = f32[100]{0} bitcast(%row)
}

%renamed (r: f32[10,100]) -> f32[10,100] {
  %r = f32[10,100]{1,0} parameter(0)
  ROOT %same = f32[10,100]{1,0} bitcast(%r)
}

%reading (all: f32[10,100]) -> f32[10] {
  %all = f32[10,100]{1,0} parameter(0)
  %also = f32[10,100]{1,0} fusion(%all), kind=kLoop, calls=%renamed
  %none = f32[] constant(0)
  ROOT %sums = f32[10]{0} reduce(%also, %none), dimensions={1}, to_apply=%add
}

%outer (big: f32[10,100], place: s32[]) -> f32[100] {
  %big = f32[10,100]{1,0} parameter(0)
  %place = s32[] parameter(1)
  ROOT %nested = f32[100]{0} fusion(%big, %place), kind=kLoop, calls=%slicing
}

%writing (into: f32[10,100], what: f32[1,100], where: s32[]) -> f32[10,100] {
  %into = f32[10,100]{1,0} parameter(0)
  %what = f32[1,100]{1,0} parameter(1)
  %where = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  ROOT %written = f32[10,100]{1,0} dynamic-update-slice(%into, %what, %where, %zero.1)
}

ENTRY %main (x: f32[10,100], i: s32[]) -> f32[10,100] {
  %x = f32[10,100]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row.1 = f32[100]{0} fusion(%x, %i), kind=kLoop, calls=%slicing
  %row.2 = f32[100]{0} fusion(%x, %i), kind=kOutput, calls=%outer
  %summed = f32[10]{0} fusion(%x), kind=kLoop, calls=%reading
  %near = f32[100]{0:T(128)S(1)} negate(%row.1)
  %back = f32[1,100]{1,0} bitcast(%near)
  ROOT %done = f32[10,100]{1,0} fusion(%x, %back, %i), kind=kLoop, calls=%writing
}
"""


def test_slices_count_as_slices_and_on_chip_memory_is_free():
    # slicing, and again in a fusion inside a fusion: 400 read, 400 written, and 4 of the index;
    # negate: 400 read, its result stays on the chip; writing: 400 read (the bitcast says nothing of
    # where it lies), 4 of the index, 400 written in place. reading: all of it, under whatever name.
    assert traffic.hbm_bytes(hlo.parse(TRAFFIC)) == (4000 + 40) + 2 * (400 + 400 + 4) + 400 + (
        400 + 4 + 400
    )
