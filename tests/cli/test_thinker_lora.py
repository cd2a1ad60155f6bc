"""A release that brings a LoRA of its Thinker answers as the Thinker with the LoRA merged in, and
another Thinker in its place answers as itself.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_published import THINKER
from small_speech import spelling

import mdmspeech
from mdmspeech import programs
from mdmspeech.cli import main
from mdmspeech.interop import converted, sources
from mdmspeech.interop.export import How, export_thinker
from mdmspeech.interop.parts import KINDS
from mdmspeech.interop.release import Part, Release, load_release, save_release
from mdmspeech.models import lora

RANKED = dataclasses.replace(THINKER, lora_rank=4, lora_alpha=8.0)
QUESTION = "where is the old house?"


@pytest.fixture(autouse=True)
def nothing_kept():
    """By other tests."""
    yield
    programs.keep(None)
    converted.keep(None)


def random_update(config, seed=3):
    rng = np.random.default_rng(seed)
    draw = lambda leaf: (0.4 * rng.standard_normal(leaf.shape)).astype(np.float16)
    return jax.tree.map(
        lambda leaf: draw(leaf).astype(np.float32), KINDS["thinker_lora"].shapes(config)
    )


@pytest.fixture(scope="module")
def update():
    return random_update(RANKED)


@pytest.fixture(scope="module")
def tuned(published, update, tmp_path_factory):
    config, params = spelling()
    parts = {**load_release(published / "speaks").parts}
    parts["adaptor"] = Part("spelling_adaptor", config, params)
    parts["thinker_lora"] = Part("thinker_lora", RANKED, update)
    folder = tmp_path_factory.mktemp("tuned")
    release = Release("tuned", parts, str(published / "thinker"), str(published / "whisper"))
    save_release(folder, release, "card")
    return folder


@pytest.fixture(scope="module")
def merged(published, update, tmp_path_factory):
    """The same as a whole model of its own."""
    folder = tmp_path_factory.mktemp("merged") / "thinker"
    loaded = sources.load_thinker(published / "thinker")
    files = {
        name: (published / "thinker" / name).read_text()
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    }
    params = lora.fuse(loaded.params, update, RANKED.lora_alpha)
    export_thinker(folder, THINKER, jax.tree.map(np.asarray, params), How(files=files))
    return folder


@pytest.mark.slow
def test_it_answers_as_the_merged_thinker(tuned, merged, published):
    ours = mdmspeech.load(tuned).answer_many([QUESTION])
    assert ours == mdmspeech.load(tuned, thinker=merged).answer_many([QUESTION])
    assert ours != mdmspeech.load(tuned, thinker=published / "thinker").answer_many([QUESTION])


def test_what_is_kept_of_one_is_not_taken_for_another(published, update, tmp_path):
    converted.keep(tmp_path)
    base = sources.load_thinker(published / "thinker").params
    first = sources.load_thinker(published / "thinker", update=(RANKED, update)).params
    other = sources.load_thinker(published / "thinker", update=(RANKED, random_update(RANKED, 4)))
    again = sources.load_thinker(published / "thinker", update=(RANKED, update)).params
    leaf = lambda params: np.asarray(params["layers"]["0"]["mlp"]["down"]["kernel"])
    assert len({leaf(p).tobytes() for p in (base, first, other.params)}) == 3
    np.testing.assert_array_equal(leaf(first), leaf(again))
    wanted = lora.fuse(base, update, RANKED.lora_alpha)
    np.testing.assert_allclose(leaf(first), leaf(wanted), rtol=1e-6)


@pytest.mark.slow
def test_a_run_becomes_a_part(published, tmp_path, capsys):
    """Trained, put into a release, opened: the update is the run's. And training goes on from it."""
    from mdmspeech.training.warm_start import load_params

    run, sizes = tmp_path / "run", dataclasses.asdict(THINKER)
    small = [f"thinker.{k}={v}" for k, v in sizes.items() if isinstance(v, int | bool | float)]
    settings = [
        *small, "thinker.lora_rank=4", "train.steps=2", "train.eval_every=0",
        f"weights.thinker={published / 'thinker'}", f"weights.tokenizer={published / 'thinker'}",
        "prompt.system=Be brief.",
    ]  # fmt: skip
    argv = ["train", "--config", "experiments/compact_thinker.py:runlocal", "--workdir", str(run)]
    assert main(argv + [a for one in settings for a in ("--set", one)]) == 0
    about = tmp_path / "base"
    base = dataclasses.replace(
        load_release(published / "speaks"), thinker=str(published / "thinker"), folder=None
    )
    save_release(about, base, "card")
    out = tmp_path / "out"
    assert main(["release", "-o", str(out), "--base", str(about), "--thinker-lora", str(run)]) == 0
    release = load_release(out)
    assert release.system == "Be brief." and release.parts["thinker_lora"].config.lora_rank == 4
    stored, trained = release.parts["thinker_lora"].params, load_params(run)["lora"]
    for ours, theirs in zip(jax.tree.leaves(stored), jax.tree.leaves(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3, rtol=2e-3)

    settings += ["optim.lr=0.0", f"init_from={out}"]
    argv[-1] = str(tmp_path / "again")
    assert main(argv + [a for one in settings for a in ("--set", one)]) == 0
    again = load_params(tmp_path / "again")["lora"]
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(stored), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    capsys.readouterr()
    argv = ["release", "-o", str(tmp_path / "no"), "--base", "compact", "--thinker-lora", str(run)]
    assert main(argv) == 2
    assert "its own base model" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_sizes_without_a_rank_are_no_update(tuned, tmp_path):
    from mdmspeech.errors import UserError

    about = json.loads((tuned / "config.json").read_text())
    about["parts"]["thinker_lora"]["config"]["lora_rank"] = 0
    for file in tuned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="lora_rank is 0"):
        load_release(tmp_path)
