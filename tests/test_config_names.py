"""One dialect of configuration fields: what was stored under the names of before opens as before,
and whoever types such a name is told today's.
"""

import ast
import dataclasses
import importlib
import json
import re
import shutil
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mdmspeech import config_names
from mdmspeech.cli.experiment import load_config, load_experiment, override
from mdmspeech.cli.release import run_config
from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.config_names import RENAMED, SECTIONS, upgrade, upgrade_run
from mdmspeech.errors import UserError
from mdmspeech.interop.parts import KINDS
from mdmspeech.interop.release import config_from, find_release, load_part, read_about
from mdmspeech.text.pieces import PIECES
from mdmspeech.training.checkpoint import check_config
from mdmspeech.training.stages.build import make_task, stage_of
from mdmspeech.training.stages.start import find_start

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "old_names"
RUNS = json.loads((OLD / "runs.json").read_text())  # config.json of a tiny run, as it was written
FIELDS = [(cls, old, new) for cls, names in RENAMED.items() for old, new in names.items()]
SETTINGS = [
    (stage, section, old, new)
    for stage, sections in SECTIONS.items()
    for section, names in sections.items()
    for old, new in names.items()
]
# Words for sizes that are not of the dialect, alone or behind the name of a part.
STRANGE = re.compile(
    r"(.*_)?(width|d_model|hidden_size|ffn|mlp|depth|n_(?!fft)\w+|states|rows|vocabulary|hidden|inner_dim)"
    r"|(?!.*(num|scan)_(layers|heads|kv_heads|mels)$)(.*_)?(layers|heads|mels|blocks)"
)


def config_classes() -> dict[str, tuple[str, list[str]]]:
    """Every dataclass of the package whose name ends in Config: name -> (module, its fields)."""
    found = {}
    for path in (ROOT / "mdmspeech").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                fields = [
                    line.target.id
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                ]
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found[node.name] = module, fields
    return found


CLASSES = config_classes()


def class_of(name: str) -> type:
    return getattr(importlib.import_module(CLASSES[name][0]), name)


def dotted(section: str, name: str) -> str:
    return f"{section}.{name}".lstrip(".")


# ---- The rule -----------------------------------------------------------------------------------


def test_every_config_speaks_the_dialect():
    assert len(CLASSES) > 15 and "TalkerConfig" in CLASSES
    wrong = [
        f"{name}.{field}"
        for name, (_, fields) in CLASSES.items()
        for field in fields
        if STRANGE.fullmatch(field)
    ]
    assert not wrong


@pytest.mark.parametrize("field", [old for _, old, _ in FIELDS])
def test_the_rule_would_see_a_name_of_before(field):
    assert STRANGE.fullmatch(field)


@pytest.mark.parametrize(
    "field",
    ["dim", "num_layers", "num_kv_heads", "decoder_num_layers", "text_dim", "scan_layers",
     "encoder_dim", "num_mels", "text_vocab_size", "hidden_dim", "block", "window"],
)  # fmt: skip
def test_the_rule_lets_the_dialect_pass(field):
    assert not STRANGE.fullmatch(field)


@pytest.mark.parametrize(("cls", "old", "new"), FIELDS)
def test_the_table_is_of_fields_that_there_are(cls, old, new):
    fields = CLASSES[cls][1]
    assert new in fields and old not in fields


def test_one_old_name_became_one_new_one_in_whatever_config():
    pairs = {(old, new) for _, old, new in FIELDS} | {(old, new) for *_, old, new in SETTINGS}
    assert len(pairs) == len({old for old, _ in pairs})
    assert all(config_names.name_now(old) == new for old, new in pairs)
    assert config_names.name_now("dim") is None


def test_the_page_on_upgrading_has_every_pair():
    page = (ROOT / "docs" / "upgrading.md").read_text()
    rows = {
        name: next(row for row in page.splitlines() if row.startswith("| ") and f"{name}`" in row)
        for name in RENAMED
    }
    assert all(f"`{old}` -> `{new}`" in rows[cls] for cls, old, new in FIELDS)
    assert "`hidden` -> `hidden_dim`" in page


# ---- Typed today: one clear error ---------------------------------------------------------------


@pytest.mark.parametrize(("cls", "old", "new"), FIELDS)
def test_a_config_made_with_an_old_name(cls, old, new):
    made = class_of(cls)
    with pytest.raises(UserError, match=f"^{cls}: {old} is called {new} now$"):
        made(**{old: 64})
    with pytest.raises(UserError, match=f"{old} is called {new} now"):
        dataclasses.replace(made(), **{old: 64})
    assert getattr(dataclasses.replace(made(), **{new: 64}), new) == 64
    with pytest.raises(TypeError, match="unexpected keyword"):
        made(nothing=1)


@pytest.mark.parametrize(("stage", "section", "old", "new"), SETTINGS)
def test_set_with_an_old_name(stage, section, old, new):
    config = ConfigDict(
        {"stage": stage, new: 8} if not section else {"stage": stage, section: {new: 8}}
    )
    was = config.to_dict()
    key, now = dotted(section, old), dotted(section, new)
    with pytest.raises(UserError, match=f"^--set {key}: {key} is called {now} now$"):
        override(config, f"{key}=16")
    assert config.to_dict() == was
    override(config, f"{now}=16")
    assert 16 in (config.to_dict().get(now), config.get(section, {}).get(new))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment file of somebody's own, "FILE:STAGE,SECTION,NAME": it sets that one, too."""
    file = tmp_path_factory.mktemp("mine") / "experiments" / "mine.py"
    file.parent.mkdir()
    file.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config(arg):\n"
        "    stage, section, name = arg.split(',')\n"
        "    config = ConfigDict(dict(stage=stage, train={}, optim={}, mesh={}))\n"
        "    if section:\n"
        "        config[section] = dict(dim=8)\n"
        "    part = config[section] if section else config\n"
        "    if name.startswith('read '):\n"
        "        return getattr(part, name[5:])\n"
        "    part[name] = 64\n"
        "    return config\n"
    )
    return str(file)


@pytest.mark.parametrize(("stage", "section", "old", "new"), SETTINGS)
def test_an_experiment_file_with_an_old_name(experiment, stage, section, old, new):
    key, now = dotted(section, old), dotted(section, new)
    path = f"{experiment}:{stage},{section},"
    with pytest.raises(UserError, match=rf"mine\.py:{stage}.*: {key} is called {now} now$"):
        load_experiment(path + old)
    with pytest.raises(UserError, match=f"^{key} is called {now} now$"):  # from Python
        make_task(load_config(path + old), "unused")
    with pytest.raises(UserError, match=f"reads {old} of a config: it is called {new} now"):
        load_experiment(f"{path}read {old}")
    load_experiment(path + new)


@pytest.mark.parametrize("old", ["width", "layers", "hidden", "states"])
def test_a_stage_of_somebodys_own_names_its_settings_as_it_likes(experiment, old):
    for section in ("talker", "adaptor", ""):
        config = load_experiment(f"{experiment}:mine,{section},{old}")
        assert upgrade_run(config.to_dict(), "here") == config.to_dict()
    with pytest.raises(AttributeError):  # and its own mistakes stay what they are
        load_experiment(f"{experiment}:mine,talker,read breadth")


# ---- Stored before: opens as before -------------------------------------------------------------


@pytest.mark.parametrize(("cls", "old", "new"), FIELDS)
def test_a_stored_config_gets_todays_names_in_its_order(cls, old, new):
    stored = {"first": 1, old: [2, 3], "last": None}
    assert list(upgrade(cls, stored, "here").items()) == [
        ("first", 1),
        (new, [2, 3]),
        ("last", None),
    ]
    assert upgrade(cls, upgrade(cls, stored, "here"), "here") == upgrade(cls, stored, "here")
    assert stored == {"first": 1, old: [2, 3], "last": None}
    with pytest.raises(UserError, match=f"^here: it has both {old} and {new}, .*take {old} out$"):
        upgrade(cls, {old: 2, new: 2}, "here")


@pytest.mark.parametrize(("stage", "section", "old", "new"), SETTINGS)
def test_a_stored_run_gets_todays_names(stage, section, old, new):
    of = lambda inside: {"stage": stage, **({section: inside} if section else inside)}
    assert upgrade_run(of({old: 4}), "here") == of({new: 4})
    with pytest.raises(UserError, match=f"here: it has both {dotted(section, old)} and"):
        upgrade_run(of({old: 4, new: 4}), "here")


@pytest.mark.parametrize(
    "stored", [{}, {"stage": 3}, {"stage": []}, {"stage": "talker", "talker": 5}]
)
def test_a_damaged_config_is_left_to_whoever_reads_it(stored):
    assert upgrade_run(stored, "here") == stored


@pytest.mark.parametrize("name", ["compact", "aligner"])
def test_a_release_of_before_is_the_one_of_today(name, tmp_path):
    shutil.copy(OLD / f"{name}.json", tmp_path / "config.json")
    before, now = read_about(tmp_path), read_about(name)
    assert before.raw["version"] == 2 and now.raw["version"] == {"compact": 5, "aligner": 4}[name]
    parts = {
        part: sizes for part, sizes in now.parts.items() if part != "thinker_lora"
    }  # came later
    then = dict(before.parts)
    if name == "compact":  # the ear has learnt other pieces since
        kind, sizes = then["adaptor"]
        then["adaptor"] = kind, dataclasses.replace(sizes, pieces=PIECES)
    assert then == parts and list(then) == list(parts)
    assert before.raw["parts"] != now.raw["parts"]


def test_weights_of_a_release_of_before_are_read(tmp_path):
    shutil.copytree(find_release("aligner"), tmp_path, dirs_exist_ok=True)
    shutil.copy(OLD / "aligner.json", tmp_path / "config.json")
    assert load_part(tmp_path, "aligner").params.keys() == {"in", "out"}


def test_sizes_inside_sizes_are_read_under_the_old_names():
    config = CosyVoice2Config()
    sizes = json.loads(json.dumps(dataclasses.asdict(config)))
    back = lambda inside, cls: {
        {new: old for old, new in RENAMED[cls].items()}.get(key, key): value
        for key, value in inside.items()
    }
    sizes["hift"] = back(sizes["hift"], "HiFTConfig")
    sizes["flow"]["encoder"] = back(sizes["flow"]["encoder"], "FlowEncoderConfig")
    sizes["flow"]["estimator"] = back(sizes["flow"]["estimator"], "FlowEstimatorConfig")
    assert "num_blocks" in sizes["flow"]["encoder"] and "n_mels" in sizes["hift"]
    assert config_from("cosyvoice2_codec", sizes, "here") == config
    sizes["flow"]["encoder"]["num_layers"] = 6
    with pytest.raises(
        UserError, match="here: flow: encoder: it has both num_blocks and num_layers"
    ):
        config_from("cosyvoice2_codec", sizes, "here")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_before_is_exported_and_started_from(name, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(RUNS[name]))
    run = run_config(tmp_path)
    exports = stage_of(run["stage"]).exports
    exported = next(iter(exports.values()))(run)
    sizes = KINDS[exported.kind].config(**exported.sizes)
    assert 64 in (getattr(sizes, key, 0) for key in ("dim", "encoder_dim", "hidden_dim"))
    config = ConfigDict({"stage": run["stage"], "init_from": str(tmp_path)})
    assert find_start(config, tmp_path, None).name == str(tmp_path)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_before_goes_on(name, tmp_path):
    """Its checkpoints hold the config under the old names: it is the same as today's."""
    about = tmp_path / "checkpoints" / "10" / "about"
    about.mkdir(parents=True)
    (about / "metadata").write_text(json.dumps({"config": RUNS[name]}))
    today = upgrade_run(RUNS[name], "")
    assert today != RUNS[name] and check_config(tmp_path, today)
    part = next(iter(SECTIONS[today["stage"]]))
    (today[part] if part else today)["encoder_dim" if part == "adaptor" else "dim"] = 7
    with pytest.raises(UserError, match="is of another config"):
        check_config(tmp_path, today)
