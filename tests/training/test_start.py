"""What a stage starts from is found as it is given, and a teacher that cannot teach is refused
before anything is read or written.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from mdmspeech.cli.experiment import load_config, override
from mdmspeech.errors import UserError
from mdmspeech.interop import loaders
from mdmspeech.interop.release import Part, Release, save_release
from mdmspeech.models import talker
from mdmspeech.text.prompts import Prompt
from mdmspeech.training.stages import build
from mdmspeech.training.stages.start import check_start, find_start

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LOADERS = build.Loaders(release=loaders.load_part, describe=loaders.describe_part)
SIZES = dict(
    dim=32,
    num_layers=1,
    num_heads=1,
    ffn_dim=32,
    anchors="fixed",
    text_dim=8,
    structured_codes=False,
)
PROMPT = Prompt("You are brief.")


def run(folder: Path, **about):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"stage": "talker", "mode": "mdm", "talker": {"anchors": "paced"}} | about)
    )
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    config = talker.TalkerConfig(**SIZES)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        jax.eval_shape(lambda: talker.init(config, jax.random.key(0))),
    )
    parts = {
        "talker": Part("talker_mdm", config, params, PROMPT),
        "talker_ntp": Part("talker_ntp", config, params, PROMPT),
    }
    root = tmp_path_factory.mktemp("releases")
    save_release(root / "trained", Release("trained", parts, system=PROMPT.system), "card")
    fresh = {"talker": Part("talker_mdm", config, params)}
    save_release(root / "fresh", Release("fresh", fresh, untrained=("talker",)), "card")
    return root


def config_of(name, **settings):
    config = load_config(f"{EXPERIMENTS / name}.py")
    for key, value in settings.items():
        override(config, f"{key.replace('__', '.')}={value}")
    return config


@pytest.mark.parametrize(
    ("given", "there", "found"),
    [
        ("runs/2", ["runs/2"], "runs/2"),  # as the README says it
        ("runs/2", ["runs/runs/2"], "runs/runs/2"),  # the only one, where it was looked for before
        ("runs/2", ["runs/2", "runs/runs/2"], "runs/2"),
        ("2", ["runs/2"], "runs/2"),
        ("2", ["2", "runs/2"], "2"),
        ("./2", ["2", "runs/2"], "2"),
        ("../2", ["2"], "2"),  # beside the workdir's parent
        ("{here}/elsewhere/2", ["elsewhere/2", "runs/2"], "elsewhere/2"),
        # a run has the same right to a shipped name, and comes first
        ("compact", ["runs/compact"], "runs/compact"),
    ],
)
def test_a_path_is_tried_as_given_first(given, there, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in there:
        run(tmp_path / folder)
    start = find_start(
        config_of("compact_talker_isd", init_from=given.format(here=tmp_path)),
        Path("runs/3"),
        LOADERS,
    )
    assert Path(start.name).resolve() == (tmp_path / found).resolve()


def test_a_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(tmp_path / "runs" / "2")
    assert find_start(
        config_of("compact_talker_isd", init_from="~/runs/2"), tmp_path / "x" / "3", LOADERS
    ).name == str(tmp_path / "runs" / "2")


@pytest.mark.parametrize("given", ["runs/2", "no_such", "/nowhere/at/all", "../gone"])
def test_the_error_names_both_places(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"no checkpoint.*train that stage first, or name another folder"
    ) as error:
        find_start(config_of("compact_talker_isd", init_from=given), Path("runs/3"), LOADERS)
    places = {os.path.normpath(base / given) for base in (tmp_path, tmp_path / "runs")}
    assert all(place in str(error.value) for place in places)


def test_a_release_is_found_as_given_too(release, tmp_path, monkeypatch):
    monkeypatch.chdir(release)
    run(tmp_path / "runs" / "trained")
    start = find_start(
        config_of("talker_06b", init_from="trained"), tmp_path / "runs" / "3", LOADERS
    )
    assert (start.name, start.trained, start.prompt, start.autoregressive) == (
        str(release / "trained"),
        True,
        PROMPT,
        False,
    )
    assert set(start.params()) == {"inputs", "outputs", "layers_0", "norm", "anchors"}
    assert find_start(config_of("own_voice"), tmp_path / "runs" / "3", LOADERS).name == "compact"


@pytest.mark.parametrize(
    ("experiment", "start", "settings", "told"),
    [
        (
            "talker_isd_06b",
            "{releases}/fresh",
            {},
            "the Talker of .*fresh is untrained and would be the teacher.*--set init_from=RUN",
        ),
        ("compact_talker_isd", "{releases}/fresh", {}, "is untrained and would be the teacher"),
        ("talker_isd_06b", "{runs}/ntp", {}, "writes one token after another"),
        ("talker_isd_06b", "{runs}/mtp", {}, "writes one token after another"),
        (
            "talker_isd_06b",
            "{runs}/other",
            {},
            r"trained after the prompt 'Be grim\.' and no examples.*'You are a helpful",
        ),
        (
            "talker_isd_06b",
            "{releases}/trained",
            {"prompt__system": "You are long."},
            r"'You are brief\.'.*'You are long\.'.*part at character 9",
        ),
        (
            "talker_isd_06b",
            "{runs}/examples",
            {"prompt__system": "Be grim."},
            "and 1 example.*other examples",
        ),
        ("talker_isd_06b", "{runs}/nothing", {}, "holds no checkpoint"),
        (
            "talker_06b",
            "{runs}/good",
            {"prompt__examples": "a,b"},
            "the prompt's examples are .*give pairs",
        ),
    ],
)
def test_what_cannot_teach_is_refused(experiment, start, settings, told, release, tmp_path):
    fixed = {"talker": {"anchors": "fixed"}}
    run(tmp_path / "ntp", mode="ntp", **fixed, prompt={"system": "Be grim.", "examples": []})
    run(tmp_path / "mtp", mode="mtp", **fixed, prompt={"system": "Be grim.", "examples": []})
    run(tmp_path / "other", **fixed, prompt={"system": "Be grim.", "examples": []})
    run(tmp_path / "good", **fixed, prompt={"system": "Be grim.", "examples": []})
    run(tmp_path / "examples", **fixed, prompt={"system": "Be grim.", "examples": [["Hi.", "Ho."]]})
    config = config_of(
        experiment, init_from=start.format(releases=release, runs=tmp_path), **settings
    )
    with pytest.raises(UserError, match=told):
        check_start(config, tmp_path / "work" / "3", LOADERS)


@pytest.mark.parametrize(
    ("experiment", "start", "settings", "told"),
    [
        ("talker_isd_06b", "{runs}/good", {"prompt__system": "Be grim."}, ""),
        ("talker_isd_06b", "{releases}/trained", {"prompt__system": PROMPT.system}, ""),
        ("compact_talker_isd", "{runs}/paced", {}, ""),  # no prompt matters to it
        ("compact_talker_isd", "random", {}, ""),
        (
            "talker_06b",
            "{releases}/fresh",
            {},
            "is untrained: this stage starts from random parameters",
        ),
        ("compact_talker_ntp", "{releases}/fresh", {}, "is untrained"),
        ("talker_06b", "{runs}/good", {}, "was trained after another prompt"),
        ("talker_06b", "", {}, ""),
    ],
)
def test_what_can_go_on_does_and_what_is_unusual_is_said(
    experiment, start, settings, told, release, tmp_path
):
    run(
        tmp_path / "good",
        talker={"anchors": "fixed"},
        prompt={"system": "Be grim.", "examples": []},
    )
    run(tmp_path / "paced")
    config = config_of(
        experiment, init_from=start.format(releases=release, runs=tmp_path), **settings
    )
    found = check_start(config, tmp_path / "work" / "3", LOADERS)
    assert told in found if told else found == ""


def test_a_run_that_goes_on_needs_no_start_unless_it_has_a_teacher(tmp_path):
    run(tmp_path / "work" / "3")
    assert (
        check_start(
            config_of("compact_talker_ntp", init_from="gone"), tmp_path / "work" / "3", LOADERS
        )
        == ""
    )
    with pytest.raises(UserError, match="no checkpoint"):
        check_start(
            config_of("compact_talker_isd", init_from="gone"), tmp_path / "work" / "3", LOADERS
        )


def test_a_next_token_talker_of_a_release_cannot_teach(release, tmp_path):
    config = config_of(
        "talker_isd_06b", init_from=str(release / "trained"), prompt__system=PROMPT.system
    )
    config.init_part = "talker_ntp"
    with pytest.raises(UserError, match="writes one token after another"):
        check_start(config, tmp_path / "work" / "3", LOADERS)
