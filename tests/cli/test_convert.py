"""`mdmspeech convert` as a user calls it: every source, the check, and what stage 1 trained."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from encoder_folder import read_encoder_folder
from jax.sharding import NamedSharding, PartitionSpec
from tokenizers import Tokenizer, models, pre_tokenizers

from mdmspeech.cli import convert, main
from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.interop import sources
from mdmspeech.interop.export import How, export_encoder, export_thinker
from mdmspeech.interop.huggingface import encoder_shapes, read_thinker_folder, thinker_shapes
from mdmspeech.models import lora
from mdmspeech.models.speech_encoder import SpeechEncoderConfig
from mdmspeech.models.thinker import ThinkerConfig
from mdmspeech.training.checkpoint import Checkpoints
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.state import TrainState, create_frozen

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "thinker_1b.py"
SMALL = ThinkerConfig(
    vocab_size=96,
    dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    ffn_dim=24,
    qk_norm=True,
    scan_layers=True,
)


def _thinker(folder, config=SMALL, scale=0.1, force=False):
    export_thinker(folder, config, _random(thinker_shapes(config), scale), How(force=force))
    return folder


def _random(shapes, scale=0.1):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(np.float32), shapes
    )


def _save(workdir, config, params, mesh):
    """A run that was stopped after five steps."""
    workdir.mkdir()
    (workdir / "config.json").write_text(config.to_json_best_effort())
    checkpoints = Checkpoints(workdir, config.to_dict(), 1)
    state = TrainState(jnp.int32(5), params, {}, None, jax.random.key(0))
    checkpoints.save(jax.device_put(state, NamedSharding(mesh, PartitionSpec())), None, 0.0)
    checkpoints.close()


def _convert(*args):
    return main(["convert", *map(str, args)])


def test_a_folder_in_another_precision_and_back(tmp_path, capsys):
    base = _thinker(tmp_path / "base")
    assert (
        _convert(base, tmp_path / "half", "--dtype", "bfloat16", "--check", "--shard-gb", "0.00001")
        == 0
    )
    assert "check: outputs differ by at most" in capsys.readouterr().out
    assert _convert(tmp_path / "half", tmp_path / "back", "--check") == 0
    assert "differ by at most 0 where" in capsys.readouterr().out
    wanted = jax.tree.map(
        lambda leaf: leaf.astype(ml_dtypes.bfloat16), read_thinker_folder(base)[1]
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        read_thinker_folder(tmp_path / "back", dtype=ml_dtypes.bfloat16)[1],
        wanted,
    )


def test_destinations(tmp_path, capsys):
    base = _thinker(tmp_path / "base")
    assert _convert(base, tmp_path / "out") == 0
    assert _convert(base, tmp_path / "out") == 2
    assert "exists already: give another destination" in capsys.readouterr().err
    assert _convert(base, tmp_path / "out", "--force") == 0
    assert _convert(base, base, "--force") == 2
    assert "the destination is the source" in capsys.readouterr().err
    assert _convert(tmp_path / "nowhere", tmp_path / "new") == 2
    assert "nothing at" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_tokenizers_are_compared_where_there_is_one(tmp_path, capsys):
    """A chat model's is; that of a base model, which has no chat template, cannot be opened and
    goes along unseen.
    """
    base = _thinker(tmp_path / "base")
    tokenizer = Tokenizer(
        models.BPE(
            {
                letter: i
                for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())[:96])
            },
            [],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(base / "tokenizer.json"))
    assert _convert(base, tmp_path / "a", "--check") == 0
    assert "tokenizer not compared" in capsys.readouterr().out
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    (base / "additional_chat_templates" / "weights.bin").write_text("none of its business")
    assert _convert(base, tmp_path / "b", "--check") == 0
    assert [path.name for path in (tmp_path / "b" / "additional_chat_templates").iterdir()] == [
        "rag.jinja"
    ]
    assert "not compared" not in capsys.readouterr().out
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() == (
        base / "tokenizer.json"
    ).read_bytes()
    (base / "chat_template.jinja").write_text("{{ broken")
    assert _convert(tmp_path / "b", tmp_path / "c", "--check", "--tokenizer", base) == 2
    assert "template is broken" in capsys.readouterr().err and not (tmp_path / "c").exists()
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert _convert(tmp_path / "b", tmp_path / "c", "--check", "--tokenizer", base) == 0
    assert (tmp_path / "c" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_what_is_too_large_or_too_far_off_leaves_nothing(tmp_path, capsys, monkeypatch):
    base = _thinker(tmp_path / "base", scale=1e6)
    assert _convert(base, tmp_path / "half", "--dtype", "float16") == 2
    assert "cannot hold; store bfloat16" in capsys.readouterr().err
    _thinker(base, force=True)
    monkeypatch.setitem(convert._TOLERANCE, "bfloat16", 1e-6)
    assert _convert(base, tmp_path / "half", "--dtype", "bfloat16", "--check") == 2
    assert "nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_encoder(tmp_path, capsys):
    config = SpeechEncoderConfig(
        num_mels=8, dim=16, num_layers=2, num_heads=2, ffn_dim=24, max_positions=50
    )
    params = _random(encoder_shapes(config))
    sources.save_encoder(
        tmp_path / "e.safetensors", sources.LoadedEncoder(config, params, "test"), np.float32
    )
    export_encoder(tmp_path / "a", config, params)
    for source, name in ((tmp_path / "e.safetensors", "b"), (tmp_path / "a", "c")):
        assert _convert(source, tmp_path / name, "--check") == 0
        assert "differ by at most 0 where" in capsys.readouterr().out
        jax.tree.map(np.testing.assert_array_equal, read_encoder_folder(tmp_path / name)[1], params)


@pytest.mark.slow
def test_what_stage_one_trained_is_merged(tmp_path, capsys):
    """A base folder is streamed to eight devices; a run's LoRA, merged into it, gives the logits of
    both beside each other.
    """
    config = load_config(f"{EXPERIMENT}:runlocal")
    thinker = ThinkerConfig(**{**config.thinker, "lora_rank": 0})
    base = _thinker(tmp_path / "base", thinker)
    encoder = SpeechEncoderConfig(**config.encoder)
    export_encoder(tmp_path / "whisper", encoder, _random(encoder_shapes(encoder)))
    config.weights.update(thinker=str(base), encoder=str(tmp_path / "whisper"))
    workdir, mesh = tmp_path / "run", make_mesh(2, 2, 2)
    task = make_task(config, workdir)
    frozen = create_frozen(task, mesh, jnp.bfloat16)["thinker"]
    plain = read_thinker_folder(base, scan_layers=thinker.scan_layers)[1]
    jax.tree.map(
        lambda got, stored: np.testing.assert_array_equal(got, stored.astype(ml_dtypes.bfloat16)),
        frozen,
        plain,
    )
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(frozen))

    params = _random(jax.eval_shape(task.init, jax.random.key(0)))
    _save(workdir, config, params, mesh)
    assert _convert(workdir, tmp_path / "merged", "--check", "--dtype", "float32") == 0
    assert "check: outputs differ by at most" in capsys.readouterr().out
    assert _convert(base, tmp_path / "again", "--lora", workdir) == 0
    wanted = lora.fuse(plain, params["lora"], config.thinker.lora_alpha)
    assert (
        np.abs(
            wanted["layers"]["all"]["attn"]["q"]["kernel"]
            - plain["layers"]["all"]["attn"]["q"]["kernel"]
        ).max()
        > 0.01
    )
    for name in ("merged", "again"):
        read = read_thinker_folder(tmp_path / name, scan_layers=thinker.scan_layers)[1]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), read, wanted)
    other = _thinker(tmp_path / "other")
    assert _convert(other, tmp_path / "new", "--lora", workdir) == 2
    assert "is another model than the experiment's" in capsys.readouterr().err
    assert (
        json.loads((tmp_path / "merged" / "config.json").read_text())["mdmspeech"]["origin"]
        == "folder base with the LoRA of run run"
    )


def test_what_was_learnt_from_conversations_is_merged(tmp_path, capsys):
    """A run of the Thinker alone, whose layers lie one by one; one of another stage is refused."""
    config = load_config(f"{EXPERIMENT.parent}/compact_thinker.py:runlocal")
    thinker = ThinkerConfig(**{**config.thinker, "lora_rank": 0})
    base = _thinker(tmp_path / "base", thinker)
    config.weights.update(thinker=str(base), tokenizer="random")
    params = _random(jax.eval_shape(make_task(config, tmp_path).init, jax.random.key(0)))
    _save(tmp_path / "run", config, params, make_mesh(devices=jax.devices()[:1]))
    assert _convert(tmp_path / "run", tmp_path / "merged") == 0
    plain, got = (
        read_thinker_folder(tmp_path / name, scan_layers=thinker.scan_layers)[1]
        for name in ("base", "merged")
    )
    wanted = lora.fuse(plain, params["lora"], config.thinker.lora_alpha)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, wanted)

    (tmp_path / "run" / "config.json").write_text(json.dumps({"stage": "codec"}))
    assert _convert(tmp_path / "run", tmp_path / "new") == 2
    told = capsys.readouterr().err
    assert "a run of stage 'codec': give one of 'thinker' or 'thinker_sft'" in told
