"""Numbers that no run can use are refused before anything is loaded; those of all experiments pass."""

import sys
from pathlib import Path

import pytest

from mdmspeech.cli.experiment import load_config, load_experiment, override
from mdmspeech.errors import UserError
from mdmspeech.training.config import CHOICES
from mdmspeech.training.ranges import check_ranges, check_setting, choices_of, range_of, settings

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for path in (ROOT / "experiments").glob("*.py")
    if "def get_config(" in path.read_text() and path.stem != "plan_list"
)
NUMBERS = ("nan", "inf", "-inf", "1e400", "-nan")

WRONG = [
    *((key, text) for key in ("optim.lr", "optim.eps", "optim.b1", "optim.weight_decay",
        "optim.clip", "optim.ema", "train.minutes", "capacity") for text in NUMBERS),
    ("optim.lr", "-1e-3"), ("optim.lr", "1e9"), ("optim.eps", "0"), ("optim.eps", "-1e-8"),
    ("optim.b1", "1"), ("optim.b2", "1.5"), ("optim.b1", "-0.1"),
    ("optim.ema", "1"), ("optim.final", "-0.5"), ("optim.final", "2"),
    ("optim.weight_decay", "-0.01"), ("optim.clip", "-1"), ("optim.warmup", "-5"),
    ("optim.schedule", "cosin"), ("train.steps", "0"), ("train.steps", "-1"),
    ("train.steps", "9" * 30), ("train.accum", "0"), ("train.log_every", "0"),
    ("train.save_every", "0"), ("train.eval_every", "-1"), ("train.keep", "0"),
    ("train.keep_best_mode", "least"), ("train.prefetch", "0"),
    ("train.minutes", "-1"), ("train.max_hours", "-1"), ("train.max_hours", "nan"),
    ("train.peak_flops", "-1"), ("train.seed", "-1"),
    ("train.dtype", "float8"), ("train.remat", "some"), ("train.profile", "-1,5"),
    ("mesh.data", "0"), ("mesh.data", "-2"), ("mesh.fsdp", "0"), ("mesh.tensor", "-1"),
    ("data.batch", "0"), ("data.batch", "-8"), ("data.length", "0"),
    ("data.token_seconds", "0"), ("data.token_seconds", "nan"), ("data.layout", "stacked"),
    ("talker.num_layers", "0"), ("talker.dim", "-64"), ("talker.num_heads", "0"),
    ("talker.block", "0"), ("capacity", "0"), ("capacity", "1.5"), ("streams", "3"),
    ("mode", "mdn"), ("talker.num_layers", "two"), ("talker.num_layers", "1.5"),
    ("optim.lr", ""), ("optim.lr", "1e-3x"), ("talker", "5"), ("optim", "adam"),
    ("talker.num_layers.x", "1"), ("nothing", "1"),
    ("talker.anchors", "pased"), ("talker.anchors", ""), ("talker.anchors", "Fixed"),
]  # fmt: skip


@pytest.fixture(scope="module")
def configs():
    return {path.stem: load_config(str(path)) for path in FILES}


@pytest.mark.parametrize(("key", "text"), WRONG)
def test_what_no_run_can_use_is_refused_by_name(key, text, configs):
    config = configs["compact_talker"].copy_and_resolve_references()
    if key == "capacity" and "capacity" not in config:
        config.capacity = 1.0
    if key == "streams" and "streams" not in config:
        config.streams = 1
    before = config.to_json_best_effort()
    with pytest.raises(UserError) as refused:
        override(config, f"{key}={text}")
    assert f"--set {key}" in str(refused.value) and len(str(refused.value)) < 300
    assert config.to_json_best_effort() == before


@pytest.mark.parametrize("stem", [path.stem for path in FILES])
def test_every_experiment_passes_as_it_is(stem, configs):
    check_ranges(configs[stem])


def test_every_number_has_a_rule_that_holds_it_and_refuses_what_is_none(configs):
    seen = 0
    for config in configs.values():
        for key, value in settings(config):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            least, most = range_of(key, value)
            assert least <= value <= most and most < float("inf"), key
            for wrong in (
                float("nan"),
                float("inf"),
                -float("inf"),
                type(value)(most) * 2 + 1 if most > 1 else 2 * most + 1,
                -2,
            ):
                if isinstance(value, float) and wrong == -2 and least <= -2:
                    continue
                with pytest.raises(UserError, match=key.replace(".", r"\.")):
                    check_setting(key, wrong)
                seen += 1
    assert seen > 1000


@pytest.mark.parametrize("value", [(1.0, float("nan")), [0.5, [float("inf")]], (-1, 2)])
def test_the_items_of_a_tuple_are_looked_at(value):
    with pytest.raises(UserError, match=r"data\.weights"):
        check_setting("data.weights", value)


@pytest.mark.parametrize(("key", "value"),
    [("optim.lr", 0.0), ("optim.clip", 0.0), ("train.eval_every", 0), ("mesh.data", -1),
        ("talker.text_dim", 0), ("codec.mel_mean", -5.0), ("thinker.lora_rank", 0)])  # fmt: skip
def test_what_says_none_or_is_rightly_below_nothing_passes(key, value):
    check_setting(key, value)


@pytest.mark.parametrize(("batch", "accum"), [(2, 3), (1, 2), (16, 5), (7, 4), (3, 4), (10, 20)])
def test_a_batch_that_does_not_divide_is_told(batch, accum, configs):
    config = configs["compact_talker"].copy_and_resolve_references()
    override(config, f"data.batch={batch}")
    override(config, f"train.accum={accum}")
    with pytest.raises(UserError, match=f"data.batch is {batch} and train.accum {accum}"):
        check_ranges(config)
    config.train.accum = batch
    check_ranges(config)


@pytest.mark.parametrize("stem", [path.stem for path in FILES])
def test_a_stage_needs_the_sections_of_its_experiments_and_no_other_stage_does_with_them(
    stem, configs, tmp_path
):
    from mdmspeech.training.stages.build import SHIPPED, make_task, stage_of

    own = configs[stem].stage
    assert all(name in configs[stem] for name in stage_of(own).needs)
    for stage in SHIPPED.keys() - {own}:
        config = configs[stem].copy_and_resolve_references()
        config.stage = stage
        with pytest.raises(
            UserError, match=f"config.stage is '{stage}', but the experiment has no"
        ):
            make_task(config, tmp_path / "run")


@pytest.mark.parametrize(
    "body",
    [
        "return None",
        "return 5",
        "return {}",
        "return ConfigDict()",
        "return ConfigDict({'stage': 'talker'})",
        "return [1]",
        "return 'talker'",
        "pass",
    ],
)
def test_what_is_no_config_of_an_experiment_is_told(body, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"from ml_collections import ConfigDict\ndef get_config():\n    {body}\n")
    with pytest.raises(UserError, match=r"mine\.py: its get_config\(\) gives a"):
        load_experiment(str(file))


def test_choices_are_those_of_the_code():
    from mdmspeech.nn.matmul_precision import PRECISIONS
    from mdmspeech.nn.stack import _POLICIES
    from mdmspeech.training.optim import make_schedule

    assert set(CHOICES["train.remat"]) == set(_POLICIES)
    assert CHOICES["train.matmul_precision"] == PRECISIONS
    for name in CHOICES["optim.schedule"]:
        make_schedule(
            type("optim", (), dict(schedule=name, lr=1e-3, warmup=2, final=0.0, decay_share=0.2)),
            10,
        )


def test_looking_needs_no_jax():
    import subprocess

    code = "import sys; from mdmspeech.training import ranges; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_joined_rows_that_no_utterance_fits_are_refused(configs, tmp_path):
    from mdmspeech.training.stages.build import make_task

    config = configs["compact_talker"].copy_and_resolve_references()
    config.data.parts = ("random",)
    next(make_task(config, tmp_path / "run").batches("train", 0))
    config.data.symbols = 2
    with pytest.raises(
        UserError, match=r"data\.symbols=2 is too small: no utterance has fewer than \d+ symbols"
    ):
        make_task(config, tmp_path / "run").batches("train", 0)


WORDS = [
    (stage, key, word)
    for stage, key, words in [
        ("talker", "mode", ("ctc", "attention", "mtpp")),
        ("hearing", "mode", ("mdm", "ntp", "isd")),
        ("codec", "phase", ("waves", "token", "")),
        ("talker", "data.layout", ("stacked", "pack")),
        ("talker", "talker.anchors", ("prefixed", "none")),
        ("talker", "distillation.direction", ("backward", "both")),
        ("codec", "train.dtype", ("float16", "fp32")),
    ]
    for word in words
]


@pytest.mark.parametrize(("stage", "key", "word"), WORDS)
def test_a_word_is_one_of_its_own_stage(stage, key, word):
    choices = choices_of(stage)
    with pytest.raises(
        UserError, match=rf"{key} is '{word}': use one of {', '.join(choices[key])}"
    ):
        check_setting(key, word, choices)
    for right in choices[key]:
        check_setting(key, right, choices)
    section, _, name = key.rpartition(".")
    config = {"stage": stage} | ({section: {name: word}} if section else {name: word})
    with pytest.raises(UserError, match=f"{key} is '{word}'"):
        check_ranges(config)


def test_a_stage_of_somebodys_own_has_words_of_its_own(monkeypatch):
    from mdmspeech.training.stages import build
    from mdmspeech.training.stages.stage import Stage

    mine = Stage("mine", (), lambda *_: None, lambda _: None, choices={"mode": ("slow", "fast")})
    monkeypatch.setitem(build._registered, "mine", mine)
    check_ranges({"stage": "mine", "mode": "fast"})
    check_ranges({"stage": "other", "mode": "whatever"})
    for wrong in ({"mode": "mdm"}, {"mode": "slow", "train": {"dtype": "float8"}}):
        with pytest.raises(UserError, match="use one of"):
            check_ranges({"stage": "mine", **wrong})


@pytest.mark.parametrize("stage", [None, 3, [], "nowhere", {}])
def test_what_is_no_stage_has_the_words_of_every_run(stage):
    assert choices_of(stage) == CHOICES
