"""The codec's semantic head: its loss by hand, what it teaches, that it is gone where it has no
weight and from a release, and that the states it predicts are those of its own crop.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_codec import SMALL, TOKENS, two_crops

from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, make_task, override
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.data.datasets.corpus import folder_of, open_part, speech
from mdmspeech.data.datasets.make import recordings_from_raw, write_states
from mdmspeech.data.datasets.speech_states import SpeechStates, known_states, speech_name
from mdmspeech.data.pipelines.codec_crops import check_states, codec_crops, crop
from mdmspeech.data.pipelines.random_source import RandomRecordings, RandomSpeechStates
from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.errors import UserError
from mdmspeech.interop import sources
from mdmspeech.interop.parts import KINDS
from mdmspeech.interop.release import config_from
from mdmspeech.interop.sources import LoadedEncoder
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from mdmspeech.preprocessing.precompute import Resampled
from mdmspeech.training.config import differences
from mdmspeech.training.optim import match_rules
from mdmspeech.training.stages.codec import STAGE, CodecTask

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PLAIN = dataclasses.replace(SMALL, semantic_dim=3)
CODEC = dataclasses.replace(PLAIN, semantic=0.5)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        **two_crops(rng, 4),
        "states": jnp.asarray(rng.normal(size=(2, 2 * TOKENS, 3)), jnp.float16),
        "states_valid": jnp.ones((2, 2 * TOKENS), bool).at[1, 7:].set(False),
    }


@pytest.fixture(scope="module")
def task():
    return CodecTask(CODEC, "tokens", None)


@pytest.fixture(scope="module")
def params(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def made(task, params, batch):
    """(losses, gradients of the semantic loss alone)."""

    def semantic(params):
        losses = task.loss(params, {}, batch, jax.random.key(1), jnp.int32(0))
        return losses["semantic"][0] / losses["semantic"][1], losses

    (_, losses), gradient = jax.jit(jax.value_and_grad(semantic, has_aux=True))(params)
    return losses, gradient


@pytest.mark.slow
def test_the_loss_is_that_of_hand(task, params, batch, made):
    ids = jax.jit(task.model.encode)(
        params, batch["audio"].astype(jnp.float32) / 32768, batch["valid"]
    )
    codes = np.asarray(ids)[..., None] // 3 ** np.arange(8) % 3 - 1.0
    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), params["semantic"])
    total, count = 0.0, 0
    for b in range(2):
        for token in range(TOKENS):
            near = [
                codes[b, i] if 0 <= i < TOKENS else np.zeros(8)
                for i in (token - 1, token, token + 1)
            ]
            h = np.concatenate(near) @ weights["in"]["kernel"] + weights["in"]["bias"]
            out = (h / (1 + np.exp(-h))) @ weights["out"]["kernel"] + weights["out"]["bias"]
            for half in range(2):
                place = 2 * token + half
                if batch["states_valid"][b, place]:
                    wanted = np.asarray(batch["states"][b, place], np.float64)
                    total += np.mean((out[3 * half : 3 * half + 3] - wanted) ** 2)
                    count += 1
    assert count == 19
    np.testing.assert_allclose(made[0]["semantic"][0], total, rtol=1e-4)
    assert float(made[0]["semantic"][1]) == count
    assert task.weights["semantic"] == 0.5


def test_its_gradient_reaches_the_encoder_through_the_rounding(made):
    gradient = made[1]
    for part in ("encoder", "semantic"):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient[part]))
        assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient[part])), part
    assert np.any(gradient["encoder"]["stack"]["kernel"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["decoder"]))


def test_without_a_weight_all_is_as_it_was(task, params, batch, made):
    """Same parameters from the same key, same losses; states that batches bring are not looked at."""
    plain = CodecTask(PLAIN, "tokens", None, sizes=dict(batch=2, tokens=TOKENS))
    fresh = jax.jit(plain.init)(jax.random.key(0))
    assert set(fresh) == {"encoder", "decoder", "spectral"}
    jax.tree.map(np.testing.assert_array_equal, fresh, {name: params[name] for name in fresh})
    assert "semantic" not in plain.weights and "states" not in plain.batch_spec()
    bare = {name: array for name, array in batch.items() if not name.startswith("states")}
    of = lambda batch: jax.make_jaxpr(
        lambda params: plain.loss(params, {}, batch, jax.random.key(1), jnp.int32(0))
    )(fresh)
    assert str(of(bare)) == str(of(batch))
    losses = jax.jit(lambda p: plain.loss(p, {}, bare, jax.random.key(1), jnp.int32(0)))(fresh)
    assert losses.keys() == made[0].keys() - {"semantic"}
    for name, (numerator, denominator) in losses.items():
        np.testing.assert_allclose(numerator, made[0][name][0], rtol=1e-5, err_msg=name)
        assert float(denominator) == float(made[0][name][1])


@pytest.mark.parametrize(("phase", "trained"), [("tokens", True), ("wave", False)])
def test_the_wave_leaves_it_as_it_is(phase, trained, batch):
    task = CodecTask(CODEC, phase, None, sizes=dict(batch=2, tokens=TOKENS))
    params = jax.eval_shape(task.init, jax.random.key(0))
    rules = match_rules(params, task.optimizer)["semantic"]
    frozen = {
        rule.frozen for rule in jax.tree.leaves(rules, is_leaf=lambda x: hasattr(x, "frozen"))
    }
    assert frozen == {not trained}
    assert ("semantic" in task.weights) == ("states" in task.batch_spec()) == trained


def test_a_release_has_no_head():
    task = CodecTask(CODEC, "tokens", None)
    exported = STAGE.exports["codec"]({"codec": dataclasses.asdict(CODEC)})
    kind = KINDS[exported.kind]
    config = kind.config(**exported.sizes)
    assert config == dataclasses.replace(PLAIN, semantic_dim=512)
    shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
    trained = jax.eval_shape(task.init, jax.random.key(0))
    assert "semantic" in trained
    assert shapes(exported.params(trained)) == shapes(kind.shapes(config))


def test_releases_of_before_can_be_read():
    sizes = {
        name: size
        for name, size in dataclasses.asdict(CompactCodecConfig()).items()
        if not name.startswith("semantic")
    }
    assert config_from("compact_codec", sizes, "old") == CompactCodecConfig()


def test_a_run_of_before_goes_on():
    now = {"codec": {"semantic": 0.0, "semantic_dim": 512}}
    assert differences({"codec": {}}, now) == ([], [])
    hard, _ = differences({"codec": {}}, {"codec": {"semantic": 0.3, "semantic_dim": 512}})
    assert hard == ["codec.semantic: 0.0 -> 0.3"]


def test_it_can_be_asked_for_and_tried_without_a_corpus(tmp_path):
    config = load_config(f"{EXPERIMENTS / 'compact_codec.py'}:runlocal")
    config.codec.update(semantic=0.3, semantic_dim=5)
    task = make_task(config, tmp_path / "run")
    found = next(iter(task.batches("train", 0)))
    for name, spec in task.batch_spec().items():
        assert (found[name].shape, found[name].dtype) == (spec.shape, spec.dtype), name
    assert found["states_valid"].any()
    whole = load_config(str(EXPERIMENTS / "compact_codec.py"))
    override(whole, "codec.semantic=0.3")
    for wrong in ("-0.1", "nan", "1e9", "much"):
        with pytest.raises(UserError, match=r"codec\.semantic"):
            override(whole, f"codec.semantic={wrong}")


# --- states of recordings ------------------------------------------------------------------------

LOUD = {"a": 3, "b": 17, "c": 11, "d": 0}  # the token in which the recording is loud
LENGTH = {"a": 20, "b": 22, "c": 18, "d": 27}


def recording(name: str) -> tuple[dict, np.ndarray]:
    audio = np.zeros(LENGTH[name] * 960 - 100, np.int16)
    start = LOUD[name] * 960
    audio[start + 100 : start + 860] = 9000 * np.sin(np.arange(760) * 0.3)
    return {"id": name, "rate": 24_000, "text": f"Text {name}.", "split": "train"}, audio


def energies(waves_BN, samples_B):
    """In place of the encoder: loudness of each 20 ms at 16 kHz, and a number of its place."""
    frames = np.asarray(waves_BN).reshape(len(waves_BN), -1, 320)
    counts = -(-np.asarray(samples_B) // 320)
    valid = np.arange(frames.shape[1])[None] < counts[:, None]
    loud = np.sqrt(np.mean(frames**2, -1))
    place = np.broadcast_to(np.arange(frames.shape[1]), loud.shape)
    return np.stack([100 * loud, place + 50.0, np.full_like(loud, 7.0)], -1), valid


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_shard(made_folder(folder / "raw" / "own"), "00000-x", [recording(n) for n in LOUD])
    recordings_from_raw(folder, "own")
    splits = {split: Resampled(speech(folder, ("own",), split)) for split in ("val", "train")}
    write_states(folder_of(folder, "states", speech_name("own")), splits, energies, 3, batch=3)
    return folder


def made_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_states_are_those_of_the_crop(root):
    """The token that is loud is the one whose states say so, wherever the crop begins."""
    source = speech(root, ("own",), "train")
    states = SpeechStates(root, ("own",), "train")
    seen = set()
    for i in range(len(source)):
        for seed in range(8):
            one = crop(source[i], np.random.default_rng(seed), 8, 960, 8, states)
            audio = np.abs(one["audio"].astype(float)).reshape(8, 960).sum(1)
            loud = one["states"][:, 0].astype(float).reshape(8, 2).sum(1)
            if audio.max() > 0:
                assert int(np.argmax(audio)) == int(np.argmax(loud))
                seen.add(int(np.argmax(audio)))
            assert one["states_valid"].tolist() == [True] * 16
    assert len(seen) > 2
    short, count = crop(source[0], None, 30, 960, 8, states), 2 * LENGTH[source[0]["id"]]
    assert short["states_valid"].tolist() == [True] * count + [False] * (60 - count)
    assert not short["states"][count:].any()


def test_states_are_white_over_the_training_records(root):
    source = speech(root, ("own",), "train")
    states = SpeechStates(root, ("own",), "train")
    rows = np.concatenate([states.find(source[i]) for i in range(len(source))]).astype(np.float64)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(rows.std(0)[:2], 1, atol=1e-2)
    np.testing.assert_allclose(rows[:, 2], 0, atol=1e-2)  # a dimension that never changes
    held_out = SpeechStates(root, ("own",), "val").find(speech(root, ("own",), "val")[0])
    place = held_out[:, 1].astype(np.float64)  # by the training records' mean and deviation
    about = open_part(root, "states", "speech_own", "train").about
    wanted = (np.arange(len(place)) + 50 - about["mean"][1]) / about["deviation"][1]
    np.testing.assert_allclose(place, wanted, atol=2e-3)


def test_two_parts_are_whitened_as_one(tmp_path):
    rng = np.random.default_rng(2)
    values = {"x": 5 + rng.normal(size=(30, 2)), "y": 3 * rng.normal(size=(70, 2)) - 4}
    for part, rows in values.items():
        record = {"id": part, "text": "t", "rate": 16_000, "samples": 320 * len(rows)}
        audio = np.zeros(record["samples"], np.int16)
        encode = lambda waves, samples, rows=rows: (rows[None], np.ones((1, len(rows)), bool))
        folder = folder_of(tmp_path, "states", speech_name(part))
        write_states(folder, {"train": One({**record, "audio": audio})}, encode, 2, batch=1)
    states = SpeechStates(tmp_path, ("x", "y"), "train")
    both = np.concatenate(list(values.values()))
    found = states.find({"id": "x", "text": "t", "samples": 9600})
    np.testing.assert_allclose(found, (values["x"] - both.mean(0)) / both.std(0), atol=1e-2)


class One:
    """A source of one record."""

    def __init__(self, record: dict):
        self._record = record

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> dict:
        return self._record

    def fields(self, i: int) -> dict:
        fields = {name: value for name, value in self._record.items() if name != "audio"}
        return {"samples": len(self._record["audio"]), **fields}

    def counts(self, column: str) -> np.ndarray:
        return np.array([self.fields(0)[column]])


def test_known_states_are_kept_and_others_made(root, tmp_path):
    records = Resampled(speech(root, ("own",), "train"))
    before = open_part(root, "states", "speech_own", "train")
    every, asked = known_states(root, "own"), []
    kept = records.fields(0)["id"]

    def encode(waves, samples):
        asked.extend(samples[samples > 0])
        return energies(waves, samples)

    made = write_states(
        folder_of(tmp_path, "states", "speech_own"),
        {"train": records},
        encode,
        3,
        known=lambda record: every(record) if record["id"] == kept else None,
    )
    assert made == {"train": int(before.counts("states").sum())}
    assert len(asked) == len(records) - 1
    again = open_part(tmp_path, "states", "speech_own", "train")
    np.testing.assert_allclose(again.about["mean"], before.about["mean"])
    np.testing.assert_allclose(again.about["deviation"], before.about["deviation"])
    assert again[0]["id"] == kept


@pytest.mark.parametrize(
    ("hours", "count"), [(None, 4), (0, 1), (1e-9, 1), (0.9 / 3600, 2), (9, 4)]
)
def test_some_hours_of_the_records(hours, count):
    rows = [{"rate": 24_000, "samples": 12_000 + 2_400 * i, "id": str(i)} for i in range(4)]
    source = type("Rows", (), {"__len__": lambda s: 4, "fields": lambda s, i: rows[i]})()
    assert len(Resampled(source, hours)) == count


def test_the_command_makes_them_and_keeps_what_is_there(root, tmp_path, monkeypatch, capsys):
    """By a small encoder; the states of the silence that it hears after each wave are not kept."""
    asked = []

    def load():
        asked.append(1)
        sizes = SpeechEncoderConfig(dim=32, num_layers=1, num_heads=2, ffn_dim=64)
        mel, heard = jnp.zeros((1, 4, sizes.num_mels)), jnp.ones((1, 4), bool)
        params = jax.jit(SpeechEncoder(sizes).init)(jax.random.key(len(asked)), mel, heard)
        return LoadedEncoder(sizes, params["params"], "small")

    monkeypatch.setattr(sources, "load_speech_encoder", load)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "own").symlink_to(root / "raw" / "own")
    recordings_from_raw(tmp_path, "own")
    command = ["data", "--states", "--parts", "own", "--root", str(tmp_path)]
    assert main(command) == 0
    told = capsys.readouterr().out
    states = [SpeechStates(tmp_path, ("own",), split) for split in ("train", "val")]
    found = 0
    for split, one in zip(("train", "val"), states, strict=True):
        source = speech(tmp_path, ("own",), split)
        for record in (source[i] for i in range(len(source))):
            assert len(one.find(record)) == -(-(len(record["audio"]) * 2 // 3) // 320)
            found += 1
    assert found == 4 and "speech_own train: " in told and "questions" not in told
    before = open_part(tmp_path, "states", "speech_own", "train")
    assert main(command) == 0  # by an encoder with other parameters: nothing is encoded again
    again = open_part(tmp_path, "states", "speech_own", "train")
    for one in (before[i] for i in range(len(before))):
        (other,) = [again[i] for i in range(len(again)) if again.fields(i)["id"] == one["id"]]
        np.testing.assert_array_equal(one["states"], other["states"])
    assert len(asked) == 2


def test_states_of_other_recordings_are_not_taken(root, capsys):
    states = SpeechStates(root, ("own",), "train")
    record = speech(root, ("own",), "train")[0]
    other = (
        {**record, "text": "Another."},
        {**record, "audio": record["audio"][1:]},
        {**record, "id": "z"},
    )
    for one in other:
        assert states.find(one) is None and one not in states
        assert not crop(one, None, 8, 960, 8, states)["states_valid"].any()
        with pytest.raises(UserError, match="make them again with: mdmspeech data --states"):
            check_states(One(one), states, 3)
    with pytest.raises(UserError, match=r"--set codec\.semantic_dim=3"):
        check_states(One(record), states, 512)
    check_states(One(record), states, 3)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("parts", [("open",), ("open", "answers"), ("own", "mine")])
def test_missing_states_are_told_with_the_command_that_makes_them(parts, tmp_path):
    with pytest.raises(UserError, match=f"mdmspeech data --states --parts {','.join(parts)}$"):
        SpeechStates(tmp_path, parts, "train")


def test_batches_without_states_are_as_before():
    source, settings = RandomRecordings(8), dict(batch=2, tokens=8, token_samples=960, seed=3)
    plain = next(codec_crops(source, **settings))
    more = next(codec_crops(source, **settings, states=RandomSpeechStates(4)))
    assert more.keys() - plain.keys() == {"states", "states_valid"}
    for name, array in plain.items():
        np.testing.assert_array_equal(array, more[name])
