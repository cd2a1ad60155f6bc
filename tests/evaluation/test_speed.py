"""What is measured is what was decoded, and the figures beside it are counted right."""

import dataclasses
import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.cli import main
from mdmspeech.evaluation.provenance import provenance
from mdmspeech.evaluation.speed import live, machine, parts, report, talkers
from mdmspeech.evaluation.speed.machine import Machine, Times
from mdmspeech.inference.speech_frontend import SpeechFrontend, ctc_frontend
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = TalkerConfig(dim=64, num_layers=1, num_heads=2, ffn_dim=64, block=4, symbols=40)
MADE = provenance(sizes={}, seeds={})
FAST = Machine(copy_gbs=10.0, read_gbs=10.0, matmul_gflops=100.0)


@pytest.fixture(scope="module")
def small():
    """The small random parts of the inference tests."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
    import small_speech

    return small_speech


def ticking(seconds):
    """A clock: each reading is so much later than the one before."""
    return map(float, itertools.accumulate(itertools.chain([0.0], itertools.cycle([seconds]))))


def test_jobs_take_turns_and_the_first_time_is_not_counted(monkeypatch):
    done, clock = [], ticking(1.0)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    times = machine.interleaved({name: lambda n=name: done.append(n) for name in "abc"}, 5)
    assert done[:3] == ["a", "b", "c"] and len(done) == 3 + 3 * 5
    for at in range(3, len(done), 3):
        assert sorted(done[at : at + 3]) == ["a", "b", "c"]
    assert all(one.seconds == (1.0,) * 5 for one in times.values())
    assert len({tuple(done[at : at + 3]) for at in range(3, len(done), 3)}) > 1
    some = Times((1.0, 2.0, 3.0, 10.0, 2.5))
    assert some.median == 2.5 and some.spread == (2.0, 3.0)


@pytest.mark.parametrize("config", [TINY, talkers.SIZES["compact"]])
def test_weights_of_a_forward_are_those_of_the_network(config):
    shapes = jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))
    kernels = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            {name: part for name, part in shapes.items() if name.startswith("layers_")}
        )
        if path[-1].key == "kernel"
    ]
    assert machine.parameters(config, logits=False) == sum(kernels)
    assert machine.parameters(config) - sum(kernels) == talker.VOCAB * config.dim


def test_a_bound_is_bytes_or_arithmetic():
    assert FAST.bound(20e9, 1.0) == pytest.approx(2.0)
    assert FAST.bound(1.0, 300e9) == pytest.approx(3.0)


def test_forwards_of_a_block():
    """As the decoders do them: the first of masked diffusion carries the block before."""
    ways = {way.name: way.forwards(16) for way in talkers.WAYS}
    assert ways["NTP"] == [(1, 1, 16)] and ways["MTP 3"] == [(3, 1, 6)]
    assert ways["S=1"] == [(32, 16, 1)] and ways["S=4"] == [(32, 16, 1), (16, 16, 3)]


@pytest.mark.slow
def test_every_way_is_measured_over_the_same_blocks(monkeypatch):
    monkeypatch.setattr(talkers, "SIZES", {"tiny": TINY})
    monkeypatch.setattr(talkers, "STEPS", (1, 2))
    ways = (talkers.Way("ntp"), talkers.Way("mtp", emit=3), talkers.Way("mdm", 2))
    monkeypatch.setattr(talkers, "WAYS", ways)
    multiplied = set()
    before = machine._best_layout

    def best_layout(weight, columns):
        multiplied.add(weight.dtype)
        return before(weight, columns)

    # a clock by which every job takes six seconds
    clock = ticking(6.0)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    one = talkers.random_talkers("tiny", 3)
    rows = talkers.measure_talkers([one], [2], FAST, blocks=3, rounds=2)
    assert [(row.way, row.batch) for row in rows] == [(name, 2) for name in ("NTP", "MTP 3", "S=2")]
    for row in rows:
        assert row.block.median == pytest.approx(2.0)  # of three blocks in six seconds
        assert row.rate == pytest.approx(row.batch * 4 / 2.0)
    ntp = next(row for row in rows if row.way == "NTP")
    assert ntp.bound == pytest.approx(4 * FAST.bound(4 * machine.parameters(TINY), 0))
    assert ntp.bare == pytest.approx(4 * 6.0 / machine.REPEATS)
    result = report.rows_of(rows, FAST, MADE)
    text = report.talker_page(result)
    assert "## tiny, batch 2" in text and "| S=2 | 2 | 2000.0 |" in text and "float32" in text
    # in half as many bits
    monkeypatch.setattr(machine, "_best_layout", best_layout)
    monkeypatch.setattr(talkers, "WAYS", ways[:1])
    one = talkers.random_talkers("tiny", 3, "bfloat16")
    (half,) = talkers.measure_talkers([one], [1], FAST, blocks=3, rounds=1, dtype="bfloat16")
    assert half.bound == pytest.approx(ntp.bound / 2)
    assert multiplied == {jnp.dtype("bfloat16")}


def test_a_job_says_all_its_blocks_or_fails():
    one = talkers.TalkerEngine(TINY, random_params(talker.init, TINY, jax.random.key(0)))
    text = talkers.text_of_blocks(one, 3)
    talkers._job(one, text, talkers.Way("mdm", 1), 2, 3)()
    with pytest.raises(RuntimeError, match="finished: False"):
        talkers._job(one, text, talkers.Way("mdm", 1), 1, 2)()


def test_a_picture_and_a_page_are_written(tmp_path):
    rows = [
        talkers.Row("tiny", way, 1, Times((seconds,) * 3), seconds / 2, seconds / 4, 16, count)
        for way, seconds, count in (("NTP", 0.4, 16), ("S=1", 0.1, 1))
    ]
    result = report.rows_of(rows, FAST, MADE)
    report.write(str(tmp_path / "x"), "talker", result)
    assert report.talker_page(result) == (tmp_path / "x.md").read_text()
    assert (
        "| S=1 | 1 | 100.0 | 100.0 .. 100.0 | 160 | 4.00 | 50.0 | 2.00 | 4.00 | 25.0 |"
        in (tmp_path / "x.md").read_text()
    )
    assert (tmp_path / "x.png").stat().st_size > 1000 and (tmp_path / "x.json").exists()


def test_word_errors_stand_beside_the_speed_of_their_way(tmp_path):
    """Of the compact shape and one row alone; what was not scored has none, and no plot is made of
    nothing.
    """
    rows = [
        talkers.Row(size, way, batch, Times((0.1,) * 3), 0.05, 0.02, 16, 4)
        for size, batch in (("compact", 1), ("compact", 8), ("d1024", 1))
        for way in ("NTP", "MTP 3", "MTP 3 verified", "S=1", "S=2")
    ]
    scores = [
        {"talker": talker, "steps": steps, "set": name, "wer": wer, "wer_95": [wer - 1, wer + 2]}
        for talker, steps, wer in (
            ("ntp", 1, 5.0),
            ("mtp", 1, 6.0),
            ("mtp_verified", 1, 5.5),
            ("mdm", 1, 7.0),
            ("mdm", 4, 4),
        )
        for name in ("answers", "open")
    ]
    plain = report.rows_of(rows, FAST, MADE)
    report.write(str(tmp_path / "x"), "talker", plain)
    assert not (tmp_path / "x_errors.png").exists()
    scores = {"speaking": {"rows": scores}}
    both = report.with_errors(plain, scores)
    found = {(r["size"], r["batch"], r["way"]): r["wer"] for r in both["rows"] if "wer" in r}
    assert {key: wer["open"]["wer"] for key, wer in found.items()} == {
        ("compact", 1, "NTP"): 5.0,
        ("compact", 1, "MTP 3"): 6.0,
        ("compact", 1, "MTP 3 verified"): 5.5,
        ("compact", 1, "S=1"): 7.0,
    }
    report.write(str(tmp_path / "x"), "talker", both)
    assert (tmp_path / "x_errors.png").stat().st_size > 1000
    # where the release itself was measured, they stand there alone
    own = [dataclasses.replace(row, size=f"mine{talkers.TRAINED}") for row in rows[:5]]
    result = report.rows_of(rows + own, FAST, MADE)
    found = {r["size"] for r in report.with_errors(result, scores)["rows"] if "wer" in r}
    assert found == {"mine, trained"}


@pytest.mark.parametrize(
    ("text", "told"), [("{}", "KeyError"), ("?", "JSON"), ('{"speaking": {"rows": []}}', "nothing")]
)
def test_scores_that_are_none(tmp_path, capsys, text, told):
    (tmp_path / "s.json").write_text(text)
    assert main(["bench", "--scores", str(tmp_path / "s.json"), "--rounds", "1"]) == 2
    assert told in capsys.readouterr().err
    assert main(["bench", "--scores", str(tmp_path / "none.json")]) == 2


def test_pages_of_live_talk(tmp_path):
    spread = {"median": 200.4, "p95": 300.0}
    row = {
        "talker": "mdm",
        "steps": 1,
        "questions": 2,
        "first_audio_ms": spread,
        "stages_ms": {"thinker_decode": spread},
        "real_time_factor": 0.2,
        "underruns": 1,
    }
    turns = [live.Turn(0.2, 0, 1.0), live.Turn(0.4, 2, 1.0), live.Turn(None, 0, 0.0)]
    one = live.summary(turns)
    assert (one["turns"], one["answered"], one["underruns"]) == (3, 2, 2)
    assert one["first_audio_ms"]["median"] == pytest.approx(300.0)
    assert live.summary(turns[2:])["first_audio_ms"] is None
    result = {
        "made": MADE,
        "first_audio": [row, {**row, "talker": "ntp"}],
        "turns": {"speculate_s=None": one},
    }
    page = report.first_audio_page(result)
    assert "| | S=1 | NTP |" in page and "| **first sound** | 200 (300) | 200 (300) |" in page
    assert "| the end of the turn | 2 of 3 | 300 (390) | 2 |" in page
    report.write(str(tmp_path / "x"), "first-audio", result)
    assert (tmp_path / "x.png").stat().st_size > 1000
    page = report.sessions_page({"made": MADE, "sessions": {"4": one}})
    assert "| 4 | 2 of 3 | 300 (390) | 2 |" in page


def test_wrong_wishes(capsys, tmp_path):
    assert main(["bench", "--rounds", "0"]) == 2
    assert "--rounds 0" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["bench", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "name another --out" in capsys.readouterr().err


def test_machine_is_measured():
    found = machine.measure(rounds=1, size=64, megabytes=1)
    assert all(np.isfinite(value) and value > 0 for value in dataclasses.asdict(found).values())


def test_a_part_is_measured_by_what_it_makes(monkeypatch):
    """Milliseconds a unit, beside the larger of bytes and arithmetic."""
    clock = ticking(6.0)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    done = []
    jobs = [
        parts.Job("one", "token", lambda: done.append("one") or 3.0, 20e9, 1.0),
        parts.Job("other", "second of sound", lambda: done.append("other") or 12.0, 0.0, 0.0),
    ]
    rows = parts.measure(jobs, FAST, rounds=2)
    assert sorted(done) == ["one"] * 3 + ["other"] * 3
    assert [(row["ms"], row["bound_ms"]) for row in rows] == [(2000.0, 2000.0), (500.0, 0.0)]
    assert rows[1]["per_second"] == 2.0
    told = {"read_gbs": 10.0, "matmul_gflops": 100.0}
    page = report.parts_page({"made": MADE, "part": "codec", "machine": told, "rows": rows})
    assert "| one | token | 2000.0 | 2000.0 .. 2000.0 | 0.5 | 2000.0 |" in page
    assert "| other | second of sound | 500.0 | 500.0 .. 500.0 | 2.0 |  |" in page


def test_the_ear_does_its_jobs(small):
    """With drafts, where its adaptor takes any."""
    encoder = small.ENCODER, small.encoder_params()
    wave = small.question(1.5)
    plain = parts.hearing_jobs(ctc_frontend(*encoder, *small.spelling()), wave)
    assert [job.what for job in plain] == ["encode 2 s", "transcript"]
    given = []

    def written(params, states, valid, drafts):
        jax.debug.callback(lambda found: given.append(found[0].tolist()), drafts)
        return jnp.array([[7, 8, 6, 5, 9, 9]] * len(states)), valid

    frontend = SpeechFrontend(
        *encoder, written, {}, lambda out, valid, row: (None, "yes"), drafts=(6, 9)
    )
    jobs = parts.hearing_jobs(frontend, wave)
    assert [job.what for job in jobs[1:]] == [
        "transcript of 4 pieces",
        "the same, all of them drafted",
        "the same, all but three of them drafted",
    ]
    given.clear()
    assert [job.run() for job in [*plain, *jobs]] == [1] * 6
    jax.effects_barrier()
    assert given == [[9] * 6, [7, 8, 6, 5, 9, 9], [7] + [9] * 5]


@pytest.mark.slow
def test_the_thinker_and_the_codec_do_their_jobs(small):
    runner, codec = small.thinker(), small.small_codec()
    answers = []
    before = runner.answer
    runner.answer = lambda *args, **named: (
        answers.append(named.get("context")) or before(*args, **named)
    )
    jobs = parts.thinker_jobs(runner)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(runner.params["layers"]))
    weights += runner.params["embedding"]["embedding"].nbytes
    assert {job.read_bytes for job in jobs[:3]} == {weights}
    one, many = jobs[0].flops, jobs[2].flops
    # 112 more inputs go through the layers, none more through the output
    layers = sum(leaf.size for leaf in jax.tree.leaves(runner.params["layers"]))
    assert many - one == 112 * 2 * layers
    answers.clear()
    assert [job.run() for job in jobs] == [1] * 6
    assert not answers[0] and runner.tokenizer.decode(answers[1]) and not answers[2]
    pushed = []
    stream = codec.stream
    codec.stream = lambda: pushed.append(0) or stream()
    whole, streamed = parts.codec_jobs(codec, 16)
    seconds = whole.run()
    assert not pushed and 9 < seconds <= 10 and streamed.run() == seconds and pushed == [0]
