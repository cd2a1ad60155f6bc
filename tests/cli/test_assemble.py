"""`mdmspeech assemble`: checkpoints on disk become one folder that talks, trains, and takes what
was trained back in; nothing is written when a part does not fit.
"""

import jax
import numpy as np
import pytest
import small_cosyvoice2
from small_published import THINKER, arguments
from small_speech import CODEC, question

import mdmspeech
from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, use_system
from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.release import Part, Release, load_release, read_about, save_release
from mdmspeech.interop.voice_file import save_voice
from mdmspeech.models import lora
from mdmspeech.training.warm_start import load_params

pytestmark = pytest.mark.slow


def test_what_is_inside_is_what_was_given(published, system):
    about = read_about(system)
    assert (about.thinker, about.encoder) == (
        str(system / "thinker"),
        str(system / "encoder"),
    ) and set(about.raw["digests"]) == {"thinker", "encoder"}
    for name, load in {
        "thinker": sources.load_thinker,
        "whisper": sources.load_speech_encoder,
    }.items():
        given, found = (
            load(published / name),
            load(getattr(about, "thinker" if name == "thinker" else "encoder")),
        )
        assert given.config == found.config
        jax.tree.map(np.testing.assert_array_equal, given.params, found.params)
    assert "licence" in (system / "README.md").read_text()
    assert (
        about.parts["talker"][1].text_dim == 2 * THINKER.dim
        and about.parts["adaptor"][0] == "stack_adaptor"
    )


def test_it_talks(system):
    reply = mdmspeech.load(system).chat(question(), steps=1)
    assert len(reply.audio) == len(reply.tokens) * CODEC.token_samples and reply.stop_reason in (
        "eos",
        "text",
        "silence",
        "budget",
    )


def test_who_listens_is_told_that_it_is_untrained(system, tmp_path, capsys):
    assert load_release(system).untrained == ("talker", "adaptor")
    output = ["-o", str(tmp_path / "a.wav")]
    assert main(["say", "Good day.", "--model", str(system), "--steps", "1", *output]) == 0
    assert (
        "talker and adaptor: untrained, so what this system says means nothing yet: mdmspeech train"
    ) in capsys.readouterr().err
    assert main(["release", *output[:1], str(tmp_path / "made"), "--base", str(system)]) == 0
    assert read_about(tmp_path / "made").untrained == ("talker", "adaptor")


def test_it_can_be_moved(system, tmp_path):
    moved = tmp_path / "elsewhere"
    system.rename(moved)
    try:
        assert read_about(moved).thinker == str(moved / "thinker")
    finally:
        moved.rename(system)


def test_an_experiment_takes_its_sizes_and_weights(system):
    config = load_config("experiments/talker_8b.py")
    use_system(config, str(system))
    assert (
        config.thinker.dim == THINKER.dim and config.thinker.scan_layers and config.talker.dim == 64
    )
    assert config.weights.thinker == str(system / "thinker") and config.init_from == str(system)
    assert config.talker.mtp_modules == 0
    config = load_config("experiments/talker_8b.py")
    config.talker.mtp_modules = 5  # what an experiment adds to the trunk stays
    use_system(config, str(system))
    assert config.talker.mtp_modules == 5 and config.talker.dim == 64
    with pytest.raises(UserError, match="trains no part of it"):
        use_system(load_config("experiments/compact_codec.py"), str(system))


def test_what_stage_1_learnt_is_merged(published, system, tmp_path):
    """Train adaptor and LoRA on the system, assemble again from that run: its Thinker is base +
    update, its adaptor the run's.
    """
    run = tmp_path / "run"
    settings = [
        f"--set={s}"
        for s in (
            "train.steps=2",
            "train.eval_every=0",
            "mesh.data=1",
            "data.batch=1",
            "data.frames=1000",
            "data.length=640",
            "optim.warmup=1",
        )
    ]
    assert (
        main(
            [
                "train",
                "--config",
                "experiments/thinker_06b.py:runlocal",
                "--system",
                str(system),
                "--workdir",
                str(run),
                *settings,
            ]
        )
        == 0
    )
    again = tmp_path / "again"
    assert main(arguments(published, again, adaptor=run, talker=system)) == 0
    trained, base = load_params(run), sources.load_thinker(published / "thinker", scan_layers=True)
    wanted = lora.fuse(base.params, trained["lora"], 16.0)
    found = sources.load_thinker(again / "thinker", scan_layers=True).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), wanted, found)
    differ = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), base.params, found)
    assert max(jax.tree.leaves(differ)) > 0
    release = load_release(again)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2),
        trained["adaptor"],
        release.part("adaptor").params,
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        load_release(system).part("talker").params,
        release.part("talker").params,
    )


def test_with_cosyvoice2s_codec_it_speaks_in_the_voice_given(published, tmp_path):
    release = tmp_path / "codec"
    save_release(
        release,
        Release(
            "codec",
            {
                "codec": Part(
                    "cosyvoice2_codec", small_cosyvoice2.CONFIG, small_cosyvoice2.small_params()
                )
            },
        ),
        "card",
    )
    save_voice(tmp_path / "voice.safetensors", small_cosyvoice2.small_voice())
    folder = tmp_path / "system"
    assert (
        main(arguments(published, folder, codec=release, voice=tmp_path / "voice.safetensors")) == 0
    )
    kinds = {name: kind for name, (kind, _) in read_about(folder).parts.items()}
    assert kinds == {
        "codec": "cosyvoice2_codec",
        "voice": "cosyvoice2_voice",
        "talker": "talker_mdm",
        "adaptor": "stack_adaptor",
    }
    given, found = (load_release(one).part("codec").params for one in (release, folder))
    jax.tree.map(np.testing.assert_array_equal, given, found)  # not rounded once more
    speech = mdmspeech.load(folder).say("yes", steps=1)
    assert len(speech.audio) == 960 * len(speech.tokens) > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"thinker": "nowhere"}, "no Thinker at nowhere"),
        ({"talker-sizes": "dim=65"}, "cannot have"),
        ({"talker-sizes": "breadth=65"}, "no size 'breadth'"),
        ({"talker-sizes": "dim=wide"}, "whole numbers"),
        ({"talker-sizes": "width=64"}, "width is called dim now"),
        ({"adaptor": "compact"}, "states of width 512; this encoder makes 32"),
        ({"voice": "some.safetensors"}, "one voice of its own"),
        ({"codec": "nothing"}, "no release"),
        ({"codec": "CosyVoice2-0.5B"}, "no codec at CosyVoice2-0.5B: give a CosyVoice2 folder"),
        ({"adaptor": "runs/1"}, "no adaptor at runs/1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    published, tmp_path, capsys, changes, told
):
    folder = tmp_path / "system"
    assert main(arguments(published, folder, **changes)) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_thinker_without_a_tokenizer_is_refused(published, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((published / "thinker" / name).read_bytes())
    assert main(arguments(published, tmp_path / "system", thinker=bare)) == 2
    assert "tokenizer.json" in capsys.readouterr().err and not (tmp_path / "system").exists()


def test_an_existing_folder_stays(published, system, capsys):
    before = (system / "config.json").read_bytes()
    assert main(arguments(published, system)) == 2
    assert (
        "exists already" in capsys.readouterr().err
        and (system / "config.json").read_bytes() == before
    )
