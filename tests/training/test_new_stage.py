"""A new stage is one file and one experiment: written into a temporary folder, it is trained by
`mdmspeech train`. And what each shipped stage tells of itself.
"""

import json
import sys
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.cli.release import _PARTS, part_of_run
from mdmspeech.errors import UserError
from mdmspeech.inference import factory
from mdmspeech.interop.parts import KINDS
from mdmspeech.interop.release import Part, Release
from mdmspeech.training.config import differences
from mdmspeech.training.stages import build
from mdmspeech.training.stages.stage import Stage

ROOT = Path(__file__).parents[2] / "experiments"
STAGE = """
import jax, jax.numpy as jnp, numpy as np
from mdmspeech.training.stages.build import register
from mdmspeech.training.stages.stage import Stage
from mdmspeech.training.task import Task


class Draws:
    def __init__(self, width, batch, seed):
        self.width, self.batch, self.seed, self.at = width, batch, seed, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.at += 1
        x = np.random.default_rng((self.seed, self.at)).normal(size=(self.batch, self.width)).astype(np.float32)
        return {"x": x, "y": x.sum(-1)}

    def get_state(self):
        return self.at

    def set_state(self, state):
        self.at = state


class LineTask(Task):
    name, held_out = "line", ""

    def __init__(self, width, batch):
        self.width, self.batch = width, batch

    def init(self, rng):
        return {"w": jnp.zeros(self.width)}

    def batches(self, split, seed):
        return Draws(self.width, self.batch, seed)

    def loss(self, params, frozen, batch, rng, step):
        return {"loss": (jnp.sum((batch["x"] @ params["w"] - batch["y"]) ** 2), jnp.float32(len(batch["y"])))}


def from_config(config, workdir, root, loaders):
    return LineTask(config.line.width, config.data.batch)


def tiny(config):
    config.line.width = 4


def show(config, workdir, root):
    return lambda params, step, outdir: {"largest": float(np.abs(params["w"]).max())}


STAGE = register(Stage("line", ("line", "data"), from_config, tiny, show=show))
"""
EXPERIMENT = """
from experiments import local
from mdmspeech.training.config import base
from lab import line_stage


def get_config(argument=""):
    config = base()
    config.stage = "line"
    config.line = dict(width=64)
    config.data = dict(batch=16, parts=("drawn",))
    return local.switch(config, argument)
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with the two files."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "line_stage.py").write_text(STAGE)
    (tmp_path / "lab" / "line.py").write_text(EXPERIMENT)
    monkeypatch.setattr(build, "_registered", {})
    monkeypatch.setattr(sys, "path", [str(ROOT.parent), *sys.path])
    yield tmp_path / "lab"
    for name in ("lab", "lab.line_stage"):
        sys.modules.pop(name, None)


def test_one_file_and_one_experiment_train(lab, tmp_path):
    run = tmp_path / "run"
    assert (
        main(
            [
                "train",
                "--config",
                f"{lab / 'line.py'}",
                "--workdir",
                str(run),
                "--set",
                "train.steps=2",
                "--set",
                "train.log_every=1",
            ]
        )
        == 0
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 2 and losses[0] > 0  # of w = 0
    assert any(row.get("eval/largest", 0) > 0 for row in rows), "it shows what its own file says"
    assert json.loads((run / "config.json").read_text())["line"] == {"width": 64}
    with pytest.raises(UserError, match="trained line, not the codec"):
        part_of_run(str(run), "codec")


def test_it_has_its_own_small_variant(lab):
    assert load_config(f"{lab / 'line.py'}:runlocal").line.width == 4


def test_its_missing_settings_and_unknown_stages_are_told(lab, tmp_path):
    config = load_config(str(lab / "line.py"))
    del config.line
    with pytest.raises(
        UserError, match=r"config\.stage is 'line', but the experiment has no 'line'"
    ):
        make_task(config, tmp_path)
    config.stage = "lines"
    with pytest.raises(
        UserError, match="use one of codec, talker, hearing, thinker, thinker_sft, phones, line"
    ):
        make_task(config, tmp_path)


@pytest.mark.parametrize("name", [*build.SHIPPED, "line"])
def test_a_name_is_given_once(lab, name):
    load_config(str(lab / "line.py"))
    with pytest.raises(UserError, match=f"there is a stage '{name}' already"):
        build.register(Stage(name, (), lambda *_: None, lambda config: None))


def test_a_config_is_not_changed_by_building_its_task(tmp_path):
    for name in (
        "compact_hearing",
        "hearing_ctc",
        "compact_codec",
        "compact_talker",
        "talker_06b",
        "thinker_06b",
        "aligner",
    ):
        config = load_config(f"{ROOT / name}.py:runlocal")
        before = config.to_json_best_effort()
        make_task(config.lock(), tmp_path / "run")
        assert config.to_json_best_effort() == before, name


@pytest.mark.parametrize(
    ("saved", "now", "differs"),
    [
        ({"init_from": ""}, {}, []),
        ({}, {"init_from": ""}, []),
        ({}, {}, []),
        ({"init_from": ""}, {"init_from": ""}, []),
        ({"init_from": "a"}, {}, ["init_from: a -> "]),
        ({}, {"init_from": "a"}, ["init_from:  -> a"]),
        ({"init_part": ""}, {}, ["init_part:  -> absent"]),
    ],
)
def test_a_run_that_says_it_starts_from_nothing_resumes_as_one_that_says_nothing(
    saved, now, differs
):
    """Every run of before this was told so in its config.json."""
    assert differences(saved, now) == (differs, [])


def test_every_part_of_a_release_comes_from_a_stage_and_is_of_a_known_kind():
    assert {part for name in build.SHIPPED for part in build.stage_of(name).exports} == set(_PARTS)
    assert all(build.stage_of(name).name == name for name in build.SHIPPED)


EXPORTS = [
    ("compact_codec", "codec", "compact_codec"),
    ("compact_talker", "talker", "talker_mdm"),
    ("compact_talker_isd", "talker", "talker_mdm"),
    ("compact_talker_ntp", "talker_ntp", "talker_ntp"),
    ("compact_talker_mtp", "talker_mtp", "talker_mtp"),
    ("talker_06b", "talker", "talker_mdm"),
    ("compact_hearing", "adaptor", "attention_adaptor"),
    ("hearing_ctc", "adaptor", "spelling_adaptor"),
    ("thinker_06b", "adaptor", "stack_adaptor"),
    ("aligner", "aligner", "phone_reader"),
]


@pytest.mark.parametrize(("experiment", "part", "kind"), EXPORTS)
def test_what_a_run_exports_has_the_shapes_that_were_trained(experiment, part, kind, tmp_path):
    config = load_config(f"{ROOT / experiment}.py:runlocal")
    exported = build.stage_of(config.stage).exports[part](json.loads(config.to_json_best_effort()))
    assert exported.kind == kind
    sizes = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in exported.sizes.items()
    }
    shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
    trained = jax.eval_shape(make_task(config, tmp_path / "run").init, jax.random.key(0))
    assert shapes(exported.params(trained)) == shapes(
        KINDS[kind].shapes(KINDS[kind].config(**sizes))
    )


@pytest.mark.parametrize(
    ("run", "part", "told"),
    [
        ({"stage": "talker", "mode": "ntp", "talker": {}}, "talker", "give it as --talker-ntp"),
        ({"stage": "talker", "mode": "mtp", "talker": {}}, "talker_ntp", "give it as --talker-mtp"),
        ({"stage": "talker", "mode": "ntp", "talker": {}}, "talker_mtp", "give it as --talker-ntp"),
        ({"stage": "talker", "mode": "mdm", "talker": {}}, "talker_ntp", "give it as --talker"),
        ({"stage": "codec", "codec": {}}, "talker", "trained codec, not the talker"),
        ({"stage": "phones", "aligner": 3}, "aligner", "has no sizes in 'aligner'"),
        ({"stage": "thinker", "encoder": []}, "adaptor", "lacks sizes of the adaptor"),
        ({"stage": ["codec"]}, "codec", "not the codec"),
        ({}, "codec", "trained something else, not the codec"),
        ({"stage": "codec"}, "codec", "lacks sizes of the codec"),
    ],
)
def test_runs_of_something_else_are_told(run, part, told, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match=told):
        part_of_run(str(tmp_path), part)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "phone_reader"])
def test_a_kind_is_opened_in_its_own_role_and_no_other(kind):
    roles = {role for role, known in factory._OPENERS if known == kind}
    assert roles == (
        {kind.split("_")[0]}
        if kind.startswith("talker")
        else {kind.split("_")[1]} - {"voice", "lora"}
    )
    config = ConfigDict({"encoder_dim": 4})
    release = Release("mine", {"codec": Part(kind, config, {}), "adaptor": Part(kind, config, {})})
    if "codec" not in roles:
        with pytest.raises(UserError, match=f"has a codec of kind '{kind}'"):
            factory.open_codec(release)
    if "adaptor" not in roles:
        encoder = ConfigDict({"config": {"dim": 4}, "params": {}})
        with pytest.raises(UserError, match=f"has an adaptor of kind '{kind}'"):
            factory._frontend(release, lambda name: encoder)
