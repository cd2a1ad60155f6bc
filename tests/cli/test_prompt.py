"""One prompt: what a system's parts are trained after is what it speaks after, and parts of two
prompts do not come together.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from small_published import ENCODER, THINKER, arguments
from small_speech import CODEC

import mdmspeech
from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, make_task, override, use_system
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.interop.parts import KINDS, StackConfig
from mdmspeech.interop.release import Part, Release, load_release, read_about, save_release
from mdmspeech.models import talker
from mdmspeech.text.prompts import FEW_SHOT, PLAIN, Prompt
from mdmspeech.training import warm_start

KIND, GRIM = Prompt("Be kind."), Prompt("Be grim.", (("Hi.", "Go."),))
FIXED = talker.TalkerConfig(
    dim=64,
    num_layers=1,
    num_heads=2,
    ffn_dim=64,
    anchors="fixed",
    text_dim=2 * THINKER.dim,
    structured_codes=False,
)
STACK = StackConfig(encoder_dim=ENCODER.dim, out_dim=THINKER.dim, hidden_dim=32)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def part(kind, config, prompt=None):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), KINDS[kind].shapes(config))
    return Part(kind, config, zeros, prompt)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Releases of parts that were trained after two prompts, and of parts that no prompt matters
    to; and runs that trained such.
    """
    root = tmp_path_factory.mktemp("trained")
    for name, prompt in (("kind", KIND), ("grim", GRIM)):
        parts = {
            "talker": part("talker_mdm", FIXED, prompt),
            "adaptor": part("stack_adaptor", STACK, prompt),
        }
        save_release(
            root / name,
            Release(name, parts, system=prompt.system, examples=prompt.examples),
            "card",
        )
        about = {
            "talker": dict(stage="talker", mode="mdm", talker=vars(FIXED)),
            "adaptor": STAGE_ONE,
        }
        for section, config in about.items():
            folder = root / f"{name}_{section}_run"
            (folder / "checkpoints").mkdir(parents=True)
            prompts = {"prompt": {"system": prompt.system, "examples": prompt.examples}}
            (folder / "config.json").write_text(json.dumps(config | prompts))
    return root


STAGE_ONE = dict(
    stage="thinker",
    encoder={"dim": ENCODER.dim},
    thinker={"dim": THINKER.dim, "lora_rank": 0},
    hidden_dim=32,
)


@pytest.fixture
def runs(monkeypatch):
    """Checkpoints of runs without training them."""

    def load(folder):
        if "adaptor" in str(folder):
            return {"adaptor": part("stack_adaptor", STACK).params}
        return part("talker_mdm", FIXED).params

    monkeypatch.setattr(warm_start, "load_params", load)


ASKED = {
    "default": ([], PLAIN),
    "custom": (
        ["--system", "Answer\nlike a pirate.", "--examples", "shipped"],
        Prompt("Answer\nlike a pirate.", FEW_SHOT.examples),
    ),
}


@pytest.fixture(scope="module", params=ASKED)
def spoken(request, published, tmp_path_factory):
    """(system folder, its prompt)"""
    options, prompt = ASKED[request.param]
    folder = tmp_path_factory.mktemp("asked") / request.param
    assert main([*arguments(published, folder), *options]) == 0
    return folder, prompt


def task_of(experiment, folder, workdir, **settings):
    config = load_config(f"experiments/{experiment}.py:runlocal")
    use_system(config, str(folder))
    for key, value in settings.items():
        override(config, f"data.{key}={value}")
    return config, make_task(config, workdir)


def test_it_is_stored_and_reaches_training(spoken, tmp_path):
    folder, prompt = spoken
    assert load_release(folder).prompt == read_about(folder).prompt == prompt
    for experiment in ("thinker_06b", "talker_06b", "talker_isd_06b"):
        config, _ = task_of(experiment, folder, tmp_path / "run")
        assert Prompt.of(config.prompt.to_dict(), "") == prompt
        # what the run's config.json will hold
        assert json.loads(config.to_json_best_effort())["prompt"]["system"] == prompt.system


@pytest.mark.slow
def test_the_ids_before_and_after_the_question_are_those_of_training(spoken, tmp_path):
    folder, _ = spoken
    thinker = mdmspeech.load(folder).thinker
    _, task = task_of("thinker_06b", folder, tmp_path / "1", length=1536, batch=1)
    batch = next(iter(task.batches("train", 0)))
    conversation = batch["segment"][0] == 1
    ids, speech = batch["ids"][0][conversation], batch["speech"][0][conversation]
    spoken_at = np.flatnonzero(speech >= 0)
    answer = np.flatnonzero(batch["weight"][0][conversation])[0] + 1
    assert ids[: spoken_at[0]].tolist() == list(thinker.before)
    assert ids[spoken_at[-1] + 1 : answer].tolist() == thinker._after.tolist()


@pytest.mark.slow
def test_the_thinkers_states_are_those_of_training(spoken, tmp_path):
    """The same conversation through the Talker's training pipeline and step, and through
    `ThinkerRunner`: [Emb(y); h] of each id of the answer.
    """
    folder, _ = spoken
    thinker = mdmspeech.load(folder).thinker
    _, task = task_of("talker_06b", folder, tmp_path / "2", length=256, text=1536, batch=1)
    batch = next(iter(task.batches("train", 0)))
    params = task.load_frozen(jax.eval_shape(task.init_frozen, jax.random.key(0)))["thinker"]
    read = np.asarray(
        jax.jit(task._read)(
            params, {name: batch[name] for name in ("text", "text_segment", "text_position")}
        )
    )[0]
    ids = batch["text"][0][batch["text_segment"][0] == 1]
    first = batch["anchor"][0][(batch["segment"][0] == 1) & (batch["anchor"][0] >= 0)].min()
    assert ids[: len(thinker.before)].tolist() == list(thinker.before)
    question = ids[len(thinker.before) : first - len(thinker._after)]
    state = thinker.read([thinker.question(thinker.tokenizer.decode(question))])
    for place in range(first, len(ids)):
        token = np.array([ids[place]] * len(np.asarray(state.lengths_B)), np.int32)
        found, state = thinker._advance(params=thinker._params, state=state, token_B=token)
        found, wanted = np.asarray(found)[0], read[place]
        for part_ in (slice(0, THINKER.dim), slice(THINKER.dim, None)):
            cosine = (
                found[part_]
                @ wanted[part_]
                / np.linalg.norm(found[part_])
                / np.linalg.norm(wanted[part_])
            )
            assert cosine == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, PLAIN),
        ({"talker": "kind"}, KIND),
        ({"adaptor": "grim"}, GRIM),
        ({"talker": "kind", "adaptor": "kind"}, KIND),
        ({"talker": "kind_talker_run"}, KIND),
        ({"adaptor": "grim_adaptor_run", "talker": "grim"}, GRIM),
        ({"talker": "kind", "system": "Be kind."}, KIND),
        ({"adaptor": "grim", "system": "Be grim."}, GRIM),  # what is not asked for is the part's
    ],
)
def test_a_system_takes_the_prompt_of_its_trained_parts(
    given, found, trained, published, tmp_path, runs
):
    folder = tmp_path / "system"
    assert (
        main(
            arguments(
                published,
                folder,
                **{
                    name: value if name == "system" else trained / value
                    for name, value in given.items()
                },
            )
        )
        == 0
    )
    about = read_about(folder)
    assert about.prompt == found and set(about.trained_after) == {
        name for name in given if name != "system"
    }
    assert all(prompt == found for prompt in about.trained_after.values())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"talker": "kind", "adaptor": "grim"},
            ["the talker of", "'Be kind.' and no examples", "the adaptor of",
                "'Be grim.' and 1 example", "train one of them again"]),
        ({"talker": "kind_talker_run", "adaptor": "grim"},
            ["kind_talker_run", "'Be kind.'", "'Be grim.'"]),
        ({"talker": "kind", "adaptor": "grim_adaptor_run"},
            ["grim_adaptor_run", "'Be kind.'", "'Be grim.'"]),
        ({"talker": "kind_talker_run", "adaptor": "grim_adaptor_run"},
            ["kind_talker_run", "grim_adaptor_run"]),
        ({"talker": "kind", "system": "Be a pirate."},
            ["'Be kind.'", "'Be a pirate.'", "leave --system and --examples out"]),
        ({"adaptor": "kind_adaptor_run", "system": "Be kind"},
            ["'Be kind.'", "'Be kind'", "part at character 8"]),
        ({"talker": "kind", "examples": "shipped"},
            ["no examples", "5 examples", "other examples"]),
        ({"adaptor": "grim", "examples": "none"}, ["1 example", "no examples"]),
        ({"system": "Hear <|speech-goes-here|>."}, ["speech placeholders"]),
    ],
)  # fmt: skip
def test_parts_of_two_prompts_are_refused_before_anything_is_written(
    given, told, trained, published, tmp_path, capsys, runs
):
    named = {
        name: trained / value if name in ("talker", "adaptor") else value
        for name, value in given.items()
    }
    assert main(arguments(published, tmp_path / "system", **named)) == 2
    error = capsys.readouterr().err
    assert all(words in error for words in told), error
    assert not list(tmp_path.iterdir())


def test_an_untrained_part_binds_nothing_and_stays_untrained(system, published, tmp_path):
    folder = tmp_path / "again"
    assert (
        main([*arguments(published, folder, talker=system, adaptor=system), "--system", "Be new."])
        == 0
    )
    assert (
        read_about(folder).untrained == ("talker", "adaptor")
        and read_about(folder).trained_after == {}
    )


def test_a_prompt_that_was_edited_is_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained / "kind", tmp_path / "edited")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"system": "Be a pirate."}))
    assert main(["say", "Hello.", "--model", str(folder), "-o", str(tmp_path / "a.wav")]) == 2
    error = capsys.readouterr().err
    assert (
        "'Be kind.'" in error
        and "'Be a pirate.'" in error
        and "write that of the talker back" in error
    )


def test_folders_of_before_it_was_stored_open_as_they_were(trained, tmp_path):
    folder = shutil.copytree(trained / "grim", tmp_path / "old")
    about = json.loads((folder / "config.json").read_text())
    for entry in about["parts"].values():
        del entry["prompt"]
    (folder / "config.json").write_text(json.dumps(about))
    assert load_release(folder).prompt == GRIM and read_about(folder).trained_after == {
        "talker": GRIM,
        "adaptor": GRIM,
    }


def test_the_shipped_model_answers_without_examples():
    """It was fine-tuned so; its Thinker as it was published has them."""
    about = read_about("compact")
    assert about.prompt == PLAIN and about.trained_after == {}
    assert len(FEW_SHOT.examples) == 5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--base", "{0}/kind", "--talker", "{0}/grim_talker_run"],
            ["'Be kind.'", "'Be grim.'", "take another --base"],
        ),
        (
            ["--base", "{0}/kind", "--system", "Be a pirate."],
            ["'Be kind.'", "'Be a pirate.'", "leave --system out"],
        ),
        (
            ["--talker", "{0}/grim_talker_run", "--adaptor", "{0}/kind_adaptor_run"],
            ["grim_talker_run", "kind_adaptor_run"],
        ),
        (["--talker", "{0}/no_prompt_run"], ["does not say after which prompt"]),
    ],
)
def test_release_refuses_them_too(options, told, trained, tmp_path, capsys, runs):
    if not (trained / "no_prompt_run").exists():
        shutil.copytree(trained / "kind_talker_run", trained / "no_prompt_run")
        config = json.loads((trained / "no_prompt_run" / "config.json").read_text())
        (trained / "no_prompt_run" / "config.json").write_text(
            json.dumps({k: v for k, v in config.items() if k != "prompt"})
        )
    assert (
        main(["release", "-o", str(tmp_path / "out"), *(text.format(trained) for text in options)])
        == 2
    )
    error = capsys.readouterr().err
    assert all(words in error for words in told), error
    assert not (tmp_path / "out").exists()


def test_a_release_of_runs_has_their_prompt_or_the_shipped_one(trained, tmp_path, runs):
    assert (
        main(
            ["release", "-o", str(tmp_path / "grim"), "--talker", str(trained / "grim_talker_run")]
        )
        == 0
    )
    assert load_release(tmp_path / "grim").prompt == GRIM
    codec = {
        "codec": Part(
            "compact_codec", CODEC, jax.jit(CompactCodecModel(CODEC).init)(jax.random.key(0))
        )
    }
    save_release(tmp_path / "base", Release("base", codec, system="Be so."), "card")
    assert main(["release", "-o", str(tmp_path / "based"), "--base", str(tmp_path / "base")]) == 0
    assert load_release(tmp_path / "based").prompt == Prompt("Be so.")


@pytest.mark.parametrize(
    ("experiment", "setting", "told"),
    [
        (
            "thinker_06b",
            "prompt.system=Be long.",
            "'Be long.' and no examples is not that of --system",
        ),
        ("talker_06b", "prompt.system=Be long.", "assemble another system with it"),
        ("talker_06b", "prompt.examples=a,b", "give pairs of texts"),
        ("talker_isd_06b", "train.steps=1", "is untrained and would be the teacher"),
        (
            "talker_llada_05b",
            "train.steps=1",
            "its Talker has fixed anchors, this experiment trains one with prefix anchors",
        ),
        ("compact_talker", "train.steps=1", "this experiment trains one with paced anchors"),
    ],
)
def test_training_on_a_system_keeps_its_prompt(experiment, setting, told, system, tmp_path, capsys):
    command = [
        "train",
        "--config",
        f"experiments/{experiment}.py",
        "--system",
        str(system),
        "--workdir",
        str(tmp_path / "run"),
        "--set",
        setting,
    ]
    assert main(command) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
