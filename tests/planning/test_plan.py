"""The real training step of a small task, compiled for TPU slices: memory adds up, sharding shows,
and what does not fit says what to change.
"""

import dataclasses
import json
import re

import jax
import pytest
import small
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.planning import report, tables
from mdmspeech.planning.configs import Planned, decoding_mesh, mesh_sizes
from mdmspeech.planning.plan import Plan, slice_mesh
from mdmspeech.planning.program import train_state
from mdmspeech.planning.sweep import best, candidates, layouts, shapes, sweep
from mdmspeech.planning.topology import parse
from mdmspeech.xla_flags import flags_for

SLICE = parse("v5e:2x2")
pytestmark = pytest.mark.usefixtures("libtpu")


def planned(task=None, config=None, what="train"):
    return Planned("small", config or small.config(), what, lambda _: task or small.SmallTask())


@pytest.fixture(scope="module")
def whole():
    return planned().plan(SLICE, dict(data=4, fsdp=1, tensor=1))


@pytest.fixture(scope="module")
def split():
    return planned().plan(SLICE, dict(data=1, fsdp=4, tensor=1))


@pytest.mark.slow
def test_memory_by_kind_adds_up(whole, split):
    count = small.parameters(small.SmallTask())
    assert whole.memory["parameters"] == 4 * count, "float32 on every chip"
    assert whole.memory["optimizer"] == pytest.approx(2 * 4 * count, rel=1e-3), "two moments"
    assert whole.memory["frozen"] == 2 * small.WIDTH**2, "bfloat16"
    assert whole.memory["batch"] == 4 * small.LENGTH * (4 + 4), "a quarter of 16 rows of two arrays"
    for part in ("parameters", "frozen"):
        assert split.memory[part] == pytest.approx(whole.memory[part] / 4, rel=0.01)
    for plan in (whole, split):
        assert plan.needed == sum(plan.memory.values())
        assert plan.fits and plan.compiled and not plan.advice
        assert plan.memory["code"] > 0
        assert abs(plan.memory["padding"]) < 0.05 * plan.memory["parameters"]
        assert plan.memory["outputs"] < 1e5, "the new state takes the place of the old"


@pytest.mark.slow
def test_with_little_effort_the_program_is_the_same_and_memory_a_bound(split):
    quick = planned().plan(SLICE, dict(data=1, fsdp=4, tensor=1), quick=True)
    assert quick.quick and not split.quick
    assert (quick.flops, quick.model_flops, quick.mesh) == (
        split.flops,
        split.model_flops,
        split.mesh,
    )
    assert {(c.kind, c.axes) for c in quick.collectives} == {
        (c.kind, c.axes) for c in split.collectives
    }
    at_rest = ("parameters", "optimizer", "frozen", "batch")
    assert [quick.memory[part] for part in at_rest] == [split.memory[part] for part in at_rest]
    assert quick.hbm_bytes >= split.hbm_bytes
    assert "little effort" in report.text(quick) and "little effort" not in report.text(split)


def test_collectives_tell_how_it_is_sharded(whole, split):
    gathered = {c.kind for c in split.collectives if c.axes == "fsdp" and c.bytes > 1e5}
    assert gathered & {"all-gather", "collective-permute"}, (
        "parameters are gathered where they are used"
    )
    assert not [
        c
        for c in whole.collectives
        if c.kind in ("all-gather", "collective-permute") and c.bytes > 1e5
    ]
    reduced = sum(
        c.bytes * c.count
        for c in whole.collectives
        if c.kind in ("all-reduce", "reduce-scatter") and c.axes == "data"
    )
    gradients = 4 * small.parameters(small.SmallTask())
    assert 0.45 * gradients < reduced < 1.1 * gradients, "once round, in float32 or in bfloat16"
    inside = [c for c in split.collectives if c.count % small.LAYERS == 0 and c.count > 1]
    assert inside, "a scanned layer's collectives count once a layer"


def test_flops_and_roofline(whole):
    model, _ = small.products(small.SmallTask(), rows=16)
    assert whole.model_flops == pytest.approx(model)
    assert whole.flops == whole.model_flops, "nothing is computed again"
    r = whole.roofline
    chip = SLICE.tpu.chip
    alone = {name: getattr(r, name) for name in ("compute", "hbm", "ici", "dcn")}
    assert r.compute == pytest.approx(model / 4 / chip.bf16_flops)
    assert r.hbm == pytest.approx(whole.hbm_bytes / chip.bandwidth)
    assert r.dcn == 0 and alone[r.limit] == max(alone.values())
    assert max(r.compute, r.hbm) < r.seconds_low < r.seconds_high
    assert r.exposed <= r.ici + r.hbm
    assert r.mfu == pytest.approx(r.compute / r.seconds_low) and r.rate == pytest.approx(
        16 * small.LENGTH / r.seconds_low
    )
    state = 3 * 4 * small.parameters(small.SmallTask())
    assert whole.hbm_bytes > state, "at least the state is read"


def test_what_does_not_fit_says_what_to_change():
    # 2 x 2 x 256 x 8.4 M parameters in float32, with two moments: 103 GB
    huge = small.SmallTask(rows=16, layers=2, hidden=2**23)
    config = small.config()
    config.train.remat = "none"
    plan = planned(huge, config).plan(SLICE, dict(data=4, fsdp=1, tensor=1))
    assert not plan.fits and not plan.compiled and plan.needed > plan.available
    assert plan.memory["parameters"] == 4 * small.parameters(huge)
    assert any("mesh.fsdp=4" in line and "GiB" in line for line in plan.advice)
    page = report.text(plan)
    assert "DOES NOT FIT" in page and "to make it fit:" in page
    assert report.row(plan)[8] == "no"


def test_a_plan_survives_json(whole):
    assert Plan.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_the_page_says_it_is_an_estimate(whole):
    page = report.text(whole)
    for said in (
        "small (train) on v5e:2x2 = v5e-4",
        "estimate, not a measurement",
        "parameters",
        "all-reduce",
        "the schedule waits",
        "2,048 tokens",
    ):
        assert said in page


@pytest.mark.slow
def test_two_slices_reduce_their_gradients_over_the_network_between_them(split):
    both = planned().plan(parse("2xv5e:2x2"), dict(data=2, fsdp=4, tensor=1), rows=32)
    assert both.chips == 8 and both.slice_name == "2xv5e-4" and both.flops == 2 * split.flops
    gradients = 4 * small.parameters(small.SmallTask()) / 4  # a chip's part, in float32
    over = [c for c in both.collectives if c.network == "dcn"]
    assert {(c.kind, c.axes, c.group) for c in over} == {("all-reduce", "data", 2)}
    assert 0.45 * gradients < sum(c.bytes * c.count for c in over) < 1.1 * gradients
    assert both.roofline.dcn == pytest.approx(sum(c.seconds for c in over))
    assert both.roofline.seconds_high > split.roofline.seconds_high + 0.9 * both.roofline.dcn
    assert {c.axes for c in both.collectives if c.network == "ici"} <= {"fsdp"}
    assert both.memory["parameters"] == split.memory["parameters"]
    page = report.text(both)
    assert ", between slices " in page and "2xv5e:2x2 = 2xv5e-4" in page
    assert ", between slices " not in report.text(split)


def test_slices_that_cannot_hold_a_mesh():
    with pytest.raises(UserError, match="carries the data axis only"):
        planned().plan(parse("2xv5e:2x2"), dict(data=1, fsdp=8, tensor=1), rows=32)
    kept, left_out = candidates(
        parse("v5e:2x2", slices=2),
        16,
        1,
        lambda mesh: train_state(small.config(), small.SmallTask(), mesh),
    )
    assert all(sizes["data"] % 2 == 0 for sizes in kept) and kept
    assert all("carries the data axis" in why for sizes, why in left_out) and left_out


def test_shapes_divide():
    found = shapes(8, rows=4)
    assert dict(data=1, fsdp=4, tensor=2) in found and dict(data=2, fsdp=2, tensor=2) in found
    assert all(
        s["data"] * s["fsdp"] * s["tensor"] == 8 and 4 % (s["data"] * s["fsdp"]) == 0 for s in found
    )
    assert shapes(8, rows=8, accum=2) == [
        s for s in shapes(8, rows=8) if s["data"] * s["fsdp"] <= 4
    ]
    assert max(s["tensor"] for s in shapes(64, rows=64)) == 8


def test_candidates_are_thinned_by_arithmetic():
    state = lambda task: lambda mesh: train_state(small.config(), task, mesh)
    kept, left_out = candidates(SLICE, 16, 1, state(small.SmallTask()))
    assert kept[0] == dict(data=4, fsdp=1, tensor=1), "nothing is split that need not be"
    assert not left_out and len(kept) == 6
    kept, left_out = candidates(SLICE, 16, 1, state(small.SmallTask(hidden=2**21)))  # 26 GB
    assert kept[0] == dict(data=1, fsdp=4, tensor=1)
    assert dict(data=4, fsdp=1, tensor=1) in [sizes for sizes, _ in left_out]


def test_a_sweep_skips_what_cannot_fit_and_names_the_fastest(whole):
    meshes = [
        dict(data=4, fsdp=1, tensor=1),
        dict(data=2, fsdp=2, tensor=1),
        dict(data=1, fsdp=4, tensor=1),
        dict(data=2, fsdp=1, tensor=2),
    ]
    asked = []

    def plan_of(sizes):
        asked.append(sizes)
        slower = dataclasses.replace(whole.roofline, seconds_high=whole.roofline.seconds_high * 2)
        return dataclasses.replace(
            whole,
            mesh=sizes,
            fits=sizes["fsdp"] > 1,
            roofline=slower if sizes["fsdp"] == 2 else whole.roofline,
        )

    plans = list(sweep([*meshes, dict(data=4, fsdp=1, tensor=1)], plan_of))
    assert asked == meshes, "the last is the first again, which did not fit"
    assert best(plans).mesh == dict(data=1, fsdp=4, tensor=1)
    assert best([dataclasses.replace(whole, fits=False)]) is None
    assert "<- best" in report.table(plans, best(plans))
    assert len(list(sweep(meshes, plan_of, tries=2))) == 2


def test_layouts_of_a_step(whole):
    """More rows at a time until memory is full, each remat policy."""
    start = dataclasses.replace(whole, rows=64, accum=4, remat="full")
    asked = []

    def plan_of(remat, accum, most):
        asked.append((remat, accum))
        fits = dict(full=1, dots=2, none=4)[remat] / accum <= most
        return dataclasses.replace(start, accum=accum, remat=remat, fits=fits)

    everything = list(layouts(start, lambda *how: plan_of(*how, most=99), tries=20))
    assert len(everything) == len(set(asked)) == 3 * 4 - 1 and ("full", 4) not in asked
    assert {accum for _, accum in asked} == {8, 4, 2, 1}, "64 rows on four chips"
    asked.clear()
    plans = list(layouts(start, lambda *how: plan_of(*how, most=0.5), tries=20))
    assert asked == [
        ("full", 8), ("dots", 8), ("none", 8), ("dots", 4), ("none", 4), ("full", 2), ("dots", 2),
        ("full", 1),
    ]  # fmt: skip
    assert [plan.fits for plan in plans] == [True, True, True, True, False, True, False, False]
    assert len(list(layouts(start, lambda *how: plan_of(*how, most=99), tries=2))) == 2
    odd = dataclasses.replace(start, rows=12, accum=1)
    assert {plan.accum for plan in layouts(odd, lambda *how: plan_of(*how, most=99), 20)} == {1}
    assert report.row(start)[5] == "4 full"


@pytest.mark.slow
def test_a_step_with_other_rows_at_a_time(whole):
    plan, *others = planned().try_layouts(SLICE, whole, tries=1, quick=True)
    assert not others and (plan.accum, plan.remat) == (2, "full")
    assert plan.mesh == whole.mesh and plan.rows == whole.rows and plan.flops >= whole.flops


def test_training_is_compiled_with_the_flags_of_its_chips(monkeypatch):
    class Asked(Exception):
        pass

    def compile(self, options=None):
        raise Asked(options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)

    def asked(**more):
        with pytest.raises(Asked) as found:
            planned().plan(SLICE, dict(data=4, fsdp=1, tensor=1), **more)
        return found.value.args[0]

    assert asked() == flags_for("v5e") and "xla_enable_async_all_gather" in flags_for("v5e")
    assert asked(quick=True).items() > flags_for("v5e").items()
    monkeypatch.setenv("MDMSPEECH_XLA_FLAGS", "none")
    assert asked() is None


def test_mesh_words():
    config = small.config()
    assert mesh_sizes(config, 16) == dict(data=16, fsdp=1, tensor=1)
    assert mesh_sizes(config, 16, "fsdp=4") == dict(data=4, fsdp=4, tensor=1)
    assert mesh_sizes(config, 16, "data=1, fsdp=4,tensor=2") == dict(data=1, fsdp=4, tensor=2)
    for wrong in ("fsdp=32", "rows=4", "fsdp"):
        with pytest.raises(UserError, match=r"mesh"):
            mesh_sizes(config, 16, wrong)


def test_meshes_and_batches_that_do_not_divide():
    with pytest.raises(UserError, match="does not divide into 4 data-parallel devices"):
        planned().plan(SLICE, dict(data=4, fsdp=1, tensor=1), rows=6)
    with pytest.raises(UserError, match="cannot be laid on a torus of 16 devices: use all"):
        slice_mesh(parse("v5p:2x2x4"), dict(data=3, fsdp=1, tensor=1))
    assert dict(slice_mesh(parse("v5p:8x8x8"), dict(data=4, fsdp=32, tensor=4)).shape) == dict(
        data=4, fsdp=32, tensor=4
    ), "parts of sides"
    with pytest.raises(UserError, match="plan one of train, decode, think"):
        planned(what="sing")
    with pytest.raises(UserError, match="has no Talker"):
        planned(what="decode")


# one layer that no chip's own memory holds
TALKER = dict(dim=2048, num_layers=1, num_heads=16, ffn_dim=8192, block=16, anchors="fixed")


@pytest.fixture(scope="module")
def spoken():
    """Way of talking -> its plan on one chip."""
    config = small.config()
    config.talker = ConfigDict(TALKER | dict(text_dim=64))

    def plan(way):
        planned = Planned("small", config, "decode", None, way)
        return planned.plan(parse("v5e:1x1"), decoding_mesh("decode", 1), quick=True)

    return {way: plan(way) for way in ("NTP", "S=1")}


@pytest.mark.slow
def test_a_block_as_the_engine_runs_it(spoken):
    inside = 4 * 2048**2 + 3 * 2048 * 8192
    # bfloat16; each forward reads its layer, output table and the cache it looks at
    read = 2 * inside + 2 * 6656 * 2048 + 2 * 33 * 16 * 2048 * 4
    for way, forwards in (("NTP", 16), ("S=1", 1)):
        plan = spoken[way]
        assert (plan.units, plan.rows, plan.unit, plan.way) == (16, 1, "tokens", way)
        assert plan.memory["cache"] == 2 * (64 + 1) * 16 * 2048 * 4, (
            "keys and values of a layer, the longest utterance, float32"
        )
        assert 0.95 * read < plan.hbm_bytes / forwards < 1.5 * read, way
        assert plan.roofline.seconds_low >= plan.hbm_bytes / SLICE.tpu.chip.bandwidth
    ratio = spoken["S=1"].roofline.rate / spoken["NTP"].roofline.rate
    assert 12 < ratio < 18, "a forward costs much the same"


def test_the_matrix_unit_does_the_products_of_one_token(spoken):
    """Its vector unit would take most of the time, by the compiler's own estimate."""
    per = lambda plan, forwards: plan.roofline.seconds_high / forwards
    assert per(spoken["NTP"], 16) < 1.2 * per(spoken["S=1"], 1)


def test_ways_side_by_side(spoken):
    lines = report.speech(spoken.values()).splitlines()
    assert lines[0] == "| tokens/s | v5e-1 | x NTP | paper, x NTP |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| NTP", "| S=1"]
    r, ntp = spoken["S=1"].roofline, spoken["NTP"].roofline
    ends = sorted((r.rate / ntp.rate, r.rate_low / ntp.rate_low))
    told = " - ".join(dict.fromkeys(f"{end:.1f}" for end in ends))
    assert lines[3] == f"| S=1 | {r.rate_low:,.0f} - {r.rate:,.0f} | {told} | 10.5 |"
    assert lines[2].endswith("| 1.0 | 1.0 |")


def test_a_talker_speaks_on_one_chip():
    config = small.config()
    config.talker = ConfigDict(TALKER)
    with pytest.raises(UserError, match="speaks on one chip, not on 4: plan it on v5e:1x1"):
        Planned("small", config, "decode", None, "S=4").plan(SLICE, decoding_mesh("decode", 4))
    with pytest.raises(UserError, match=r"way 'S=5': choose one of NTP, MTP 3, S=1"):
        Planned("small", config, "decode", None, "S=5")
    config.talker.anchors = "prefix"
    with pytest.raises(UserError, match="a text in front of the speech"):
        Planned("small", config, "decode", None, "S=4")


def test_a_token_of_the_thinker_over_four_chips():
    config = small.config()
    sizes = dict(vocab_size=512, dim=256, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=32)
    config.thinker = ConfigDict(sizes | dict(ffn_dim=512, tie_embeddings=False, scan_layers=True))
    planned = Planned("small", config, "think", None)
    plan = planned.plan(SLICE, decoding_mesh("think", 4))
    assert plan.mesh == dict(data=1, fsdp=1, tensor=4)
    layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512
    whole = 2 * layer + 2 * 512 * 256
    norms = 2 * 2 * 256 + 256
    assert plan.memory["parameters"] == 2 * (whole / 4 + norms), "bfloat16, all matrices split"
    assert plan.memory["cache"] == 2 * 2 * 2048 * 4 * 32 * 2 / 4, "heads are split"
    assert plan.units == 1 and plan.memory["outputs"] < 5e3, "the cache is written in place"
    reduced = [c for c in plan.collectives if c.axes == "tensor" and c.kind == "all-reduce"]
    assert sum(c.count for c in reduced) >= 2 * 2, "after attention and after the feed-forward"
    assert sum(c.bytes * c.count for c in plan.collectives) < 1e5, "no parameter travels"
    with pytest.raises(UserError, match="1 rows do not divide into 4 devices"):
        planned.plan(SLICE, dict(data=4, fsdp=1, tensor=1))
    with pytest.raises(UserError, match="has no Thinker"):
        Planned("small", small.config(), "think", None)


def test_a_list_resumes(tmp_path, whole):
    made, said = [], []

    def job(name, fail=False):
        def make():
            made.append(name)
            if fail:
                raise UserError("no such mesh")
            return dataclasses.replace(whole, name=name)

        return tables.key_of(name), name, make

    path, told = tmp_path / "plans.jsonl", []

    def run(jobs, code, fresh=False):
        tables.run(
            jobs, tables.Cache(path), code, fresh, said.append, lambda *found: told.append(found)
        )
        return told[-1]

    plans, refused, missing, older = run([job("a"), job("b", fail=True)], "code1")
    assert (
        [p.name for p in plans] == ["a"] and refused == ["b: no such mesh"] and made == ["a", "b"]
    )
    assert [t[2] for t in told] == [2, 1, 0] and missing == older == 0, (
        "told at the start and after each plan"
    )
    assert "left" in said[-1]
    path.write_text(path.read_text() + '{"key": "cut sh')
    plans, refused, _, _ = run([job("a"), job("b"), job("c")], "code1")
    assert made == ["a", "b", "c"] and [p.name for p in plans] == ["a", "c"] and len(refused) == 1
    assert run([job("a"), job("c")], "code2")[3] == 2 and made[-1] == "c", (
        "other code: kept, and counted"
    )
    assert "2 of these made by other code" in said[-1]
    assert run([job("a")], "code2", fresh=True)[3] == 0 and made[-1] == "a", (
        "made anew where that is asked for"
    )
    tables.write(plans, refused, 3, 1, tmp_path / "out" / "plan")
    page = (tmp_path / "out" / "plan.md").read_text()
    assert (
        "## a" in page
        and "| a | v5e-4 | 4 | 4/1/1 |" in page
        and "b: no such mesh" in page
        and "3 plans of the list are still to be made" in page
        and "1 of the 3 were made before later changes" in page
    )
    assert (tmp_path / "out" / "plan.png").stat().st_size > 10_000


def test_the_page_says_what_made_the_plans_that_it_shows(tmp_path, whole):
    """Not those that were made anew, nor those of another list."""
    cache, key_of = tables.Cache(tmp_path / "plan.jsonl"), tables.key_of
    for name, day in (("a", 1), ("b", 1), ("other", 2), ("a", 3)):
        made = {"command": "plan", "commit": "c" * 40, "clean": True, "date": f"2026-01-0{day}"}
        cache.put(key_of(name), dataclasses.replace(whole, name=name), "code", made)
    tables.write([whole], [], 0, 0, tmp_path / "plan", [key_of("a"), key_of("b")])
    (line,) = re.findall("^Made by: .*", (tmp_path / "plan.md").read_text(), re.M)
    assert [line.count(f"2026-01-0{day} (1 plans)") for day in (1, 2, 3)] == [1, 0, 1]


def test_scaling_goes_over_slices_of_one_kind_of_chip(tmp_path, whole):
    """What was planned on one slice only is no line."""

    def plan(name, topology, chips, fits=True):
        return dataclasses.replace(whole, name=name, topology=topology, chips=chips, fits=fits)

    plans = [
        plan("a", "2xv5e:16x16", 512),
        plan("a", "v5e:8x8", 64),
        plan("a", "v5e:16x16", 256),
        plan("a", "v6e:8x8", 64),
        plan("b", "v5e:8x8", 64),
        plan("b", "v5e:16x16", 256, fits=False),
    ]
    found = report.weak_scaling(plans)
    assert {chip: list(lines) for chip, lines in found.items()} == {"v5e": ["a"]}
    assert [one.chips for one in found["v5e"]["a"]] == [64, 256, 512]
    alone = report.weak_scaling([plans[3], plans[4]])
    assert {chip: list(lines) for chip, lines in alone.items()} == {"v5e": ["b"], "v6e": ["a"]}
    for number, some in enumerate((plans, plans[3:5], plans[5:])):
        report.plot_weak_scaling(tmp_path / f"{number}.png", some)
        assert (tmp_path / f"{number}.png").stat().st_size > 5_000


def test_the_code_digest_ignores_comments(tmp_path, monkeypatch):
    package = tmp_path / "planning"
    package.mkdir()
    for room in tables._ROOMS:
        (tmp_path / room).mkdir(exist_ok=True)
    monkeypatch.setattr(tables, "__file__", str(package / "tables.py"))
    (tmp_path / "nn" / "a.py").write_text('"""Old."""\nX = 1\n')
    before = tables.code_digest()
    (tmp_path / "nn" / "a.py").write_text('"""New."""\nX = 1  # one\n')
    assert tables.code_digest() == before
    (tmp_path / "nn" / "a.py").write_text('"""New."""\nX = 2\n')
    assert tables.code_digest() != before
