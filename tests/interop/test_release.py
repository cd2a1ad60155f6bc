"""A release opens as it was written; whatever is wrong with a folder is one clear line."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_params import random_params
from safetensors.numpy import load_file, save_file

from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.parts import KINDS, StackConfig
from mdmspeech.interop.release import (
    Part,
    Release,
    check_destination,
    load_part,
    load_release,
    save_release,
    stored_alike,
)
from mdmspeech.models import talker
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig

CODEC = CompactCodecConfig(
    num_mels=16,
    encoder_dim=16,
    encoder_num_layers=1,
    decoder_dim=16,
    decoder_num_layers=2,
    frame_dim=16,
    head_dim=16,
    phones=4,
)
TALKER = talker.TalkerConfig(
    dim=64,
    num_layers=1,
    num_heads=1,
    ffn_dim=16,
    symbols=20,
    symbol_lookahead=(2,),
    structured_codes=False,
)


@pytest.fixture(scope="module")
def release():
    return Release(
        "small",
        {
            "codec": Part(
                "compact_codec", CODEC, jax.jit(CompactCodecModel(CODEC).init)(jax.random.key(0))
            ),
            "talker": Part(
                "talker_mdm",
                TALKER,
                random_params(talker.init, TALKER, jax.random.key(1)),
            ),
        },
        silence=(3, 5),
    )


@pytest.fixture
def folder(release, tmp_path):
    save_release(tmp_path, release, "# A card\n")
    return tmp_path


def rewrite(folder, name, change):
    """Changes a part's tensors and keeps its checksum right."""
    path = folder / f"{name}.safetensors"
    save_file(change(load_file(path)), path)
    about = json.loads((folder / "config.json").read_text())
    about["parts"][name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(about))


def edit(folder, change):
    about = json.loads((folder / "config.json").read_text())
    change(about)
    (folder / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": '{"stage": "talker"}', "checkpoints/1/state": ""},
        {"config.json": '{"model_type": "qwen2"}', "model.safetensors": ""},
        {"config.json": '{"format": "another"}'},
        {"README.md": "my project"},
        {"thesis.tex": "years of work"},
        {"checkpoints/1/state": ""},
        {"thinker/config.json": "{}", "notes.txt": ""},
    ],
)
def test_a_folder_of_something_else_stays_as_it_is(files, release, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="something else than a release"):
        save_release(tmp_path, release, "card")
    assert {
        str(path.relative_to(tmp_path)): path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    } == files


def test_a_release_takes_the_place_of_a_release(release, folder):
    save_release(folder, release, "another card")
    assert (folder / "README.md").read_text().endswith("---\n\nanother card")
    assert check_destination(folder / "new") == folder / "new"


def test_opens_as_written(release, folder):
    opened = load_release(folder)
    assert (opened.name, opened.silence, opened.system) == ("small", (3, 5), release.system)
    for name, part in release.parts.items():
        assert opened.parts[name].config == part.config
        saved, loaded = flatten_dict(part.params), flatten_dict(opened.parts[name].params)
        assert saved.keys() == loaded.keys()
        for path, value in saved.items():
            assert loaded[path].dtype == np.float32
            np.testing.assert_array_equal(
                loaded[path], np.asarray(value).astype(np.float16).astype(np.float32)
            )


def test_one_part_is_read_and_no_other(release, folder):
    (folder / "codec.safetensors").write_bytes(b"damaged")
    whole = dataclasses.asdict(release.parts["talker"].config)
    assert dataclasses.asdict(load_part(folder, "talker").config) == whole
    assert load_release(folder, only=("talker", "voice")).parts.keys() == {"talker"}
    with pytest.raises(UserError, match="has no voice; it has codec, "):
        load_part(folder, "voice")
    with pytest.raises(UserError, match=r"codec\.safetensors"):
        load_part(folder, "codec")


def test_a_part_in_8_bits(release, tmp_path):
    size = save_release(tmp_path / "wide", release, "card")
    assert save_release(tmp_path / "narrow", release, "card", bits={"talker": 8}) < size
    stored = load_file(tmp_path / "narrow" / "talker.safetensors")
    assert {a.dtype for a in stored.values()} == {
        np.dtype(np.int8),
        np.dtype(np.float16),
        np.dtype(np.float32),
    }
    assert {a.dtype for a in load_file(tmp_path / "narrow" / "codec.safetensors").values()} == {
        np.dtype(np.float16)
    }
    opened = load_release(tmp_path / "narrow").parts["talker"]
    for path, value in flatten_dict(release.parts["talker"].params).items():
        loaded = flatten_dict(opened.params)[path]
        assert loaded.dtype == np.float32
        np.testing.assert_allclose(loaded, value, atol=0.005 * np.abs(value).max())


def test_a_part_whose_tables_are_in_6_bits(tmp_path):
    config = Seq2SeqConfig(
        encoder_dim=16, dim=64, num_layers=1, num_heads=2, ffn_dim=64, pieces=100, positions=40
    )
    shapes = KINDS["attention_adaptor"].shapes(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    release = Release("it", {"adaptor": Part("attention_adaptor", config, params)})
    sizes = [
        save_release(tmp_path / str(bits), release, "card", bits={"adaptor": bits})
        for bits in (16, 8, 6)
    ]
    assert sizes == sorted(sizes, reverse=True)
    stored = load_file(tmp_path / "6" / "adaptor.safetensors")
    assert stored["embedding"].dtype == np.uint8
    assert stored["layer_0/mlp/fc1/kernel"].dtype == np.int8
    opened = load_release(tmp_path / "6").parts["adaptor"].params
    np.testing.assert_allclose(
        opened["embedding"], params["embedding"], atol=np.abs(params["embedding"]).max() / 60
    )
    # such a part is taken as it is when it is asked for in 6 bits, and not in 8
    for bits, kept in ((6, {"adaptor"}), (8, set())):
        taken = stored_alike(tmp_path / "6", ["adaptor"], "float16", {"adaptor": bits})
        assert taken.keys() == kept


def test_what_is_stored_in_the_same_way_is_taken_as_it_is(release, tmp_path):
    """Twice rounded it would be another file, and another model."""
    save_release(tmp_path / "a", release, "card", bits={"codec": 8})
    for name in ("codec", "talker"):  # as another program writes them
        rewrite(tmp_path / "a", name, dict)
    base = load_release(tmp_path / "a")
    taken = stored_alike(tmp_path / "a", base.parts, "float16", {"codec": 8})
    save_release(tmp_path / "b", base, "card", bits={"codec": 8}, taken=taken)
    for name in ("codec", "talker"):
        files = [(tmp_path / one / f"{name}.safetensors").read_bytes() for one in "ab"]
        assert files[0] == files[1]
    again = load_release(tmp_path / "b")
    assert again.parts.keys() == base.parts.keys() and again.silence == base.silence
    assert not stored_alike(tmp_path / "a", base.parts, "bfloat16", {"talker": 8})
    assert stored_alike(tmp_path / "a", ["talker"], "float16", {}).keys() == {"talker"}


def test_8_bits_without_their_scales(release, tmp_path):
    save_release(tmp_path, release, "card", bits={"talker": 8})
    stored = load_file(tmp_path / "talker.safetensors")
    lost = next(name for name in stored if name.endswith(":scale"))
    rewrite(tmp_path, "talker", lambda tensors: {n: a for n, a in tensors.items() if n != lost})
    with pytest.raises(UserError, match="8 bits"):
        load_release(tmp_path)


def test_stored_in_16_bits(release, folder, tmp_path_factory):
    assert {a.dtype for a in load_file(folder / "talker.safetensors").values()} == {
        np.dtype(np.float16)
    }
    other = tmp_path_factory.mktemp("bf16")
    assert (
        save_release(other, release, "card", "bfloat16")
        < 2.2 * sum(leaf.size for p in release.parts.values() for leaf in jax.tree.leaves(p.params))
        + 20_000
    )
    opened = load_release(other).part("codec").params["spectral"]["in"]["kernel"]
    np.testing.assert_allclose(
        opened, release.parts["codec"].params["spectral"]["in"]["kernel"], rtol=1e-2
    )


def test_missing_unknown_and_misshapen_tensors_are_all_named(folder):
    def change(tensors):
        tensors["norm/extra"] = np.zeros(2, np.float16)
        tensors.pop("norm/scale")
        tensors["layers_0/mlp/up/kernel"] = np.zeros((3, 3), np.float16)
        return tensors

    rewrite(folder, "talker", change)
    with pytest.raises(UserError) as error:
        load_release(folder)
    for told in (
        "1 missing (norm/scale)",
        "1 unknown (norm/extra)",
        "1 misshapen (layers_0/mlp/up/kernel [3, 3]",
    ):
        assert told in str(error.value)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_named(folder, damage):
    path = folder / "codec.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[-5] ^= 1
    path.write_bytes(b"" if damage == "empty" else bytes(data))
    with pytest.raises(UserError, match=r"codec\.safetensors has SHA-256"):
        load_release(folder)


def test_garbage_with_a_right_checksum_is_still_refused(folder):
    path = folder / "codec.safetensors"
    path.write_bytes(b"not tensors")
    edit(
        folder,
        lambda about: about["parts"]["codec"].update(
            sha256=hashlib.sha256(b"not tensors").hexdigest()
        ),
    )
    with pytest.raises(UserError, match="corrupt or no safetensors"):
        load_release(folder)


def test_a_missing_file_is_named(folder):
    (folder / "talker.safetensors").unlink()
    with pytest.raises(UserError, match=r"talker\.safetensors is missing"):
        load_release(folder)


def test_a_file_outside_the_folder_is_not_opened(folder):
    edit(folder, lambda about: about["parts"]["talker"].update(file="../talker.safetensors"))
    with pytest.raises(UserError, match="is missing"):
        load_release(folder)


def test_sizes_that_came_later_are_the_defaults_of_older_releases(release, tmp_path):
    talker_part = dataclasses.replace(
        release.parts["talker"], config=dataclasses.replace(TALKER, label_shift=True)
    )
    save_release(tmp_path, dataclasses.replace(release, parts={"talker": talker_part}), "card")
    assert load_release(tmp_path).part("talker").config.label_shift
    edit(
        tmp_path,
        lambda about: [
            about["parts"]["talker"]["config"].pop(name)
            for name in ("label_shift", "num_kv_heads", "norm_eps")
        ],
    )
    assert load_release(tmp_path).part("talker").config == TALKER


def test_another_format_version(folder):
    edit(folder, lambda about: about.update(version=99))
    with pytest.raises(UserError, match="release format 99, this program reads 5; update"):
        load_release(folder)


@pytest.mark.parametrize("content", ['{"model_type": "llama", "hidden_size": 5}', "[1, 2]"])
def test_the_config_of_another_model(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config of another model|instead of an object"):
        load_release(folder)


def test_broken_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable JSON"):
        load_release(folder)


def test_sizes_of_another_model(folder):
    edit(folder, lambda about: about["parts"]["talker"]["config"].update(experts=8))
    with pytest.raises(UserError, match="unknown experts"):
        load_release(folder)


def test_other_sizes_than_the_tensors(folder):
    edit(folder, lambda about: about["parts"]["talker"]["config"].update(num_layers=2))
    with pytest.raises(UserError, match="missing"):
        load_release(folder)


def test_an_incomplete_config(folder):
    edit(folder, lambda about: about.pop("system"))
    with pytest.raises(UserError, match="incomplete"):
        load_release(folder)


def test_an_unknown_kind(folder):
    edit(folder, lambda about: about["parts"]["talker"].update(kind="gan"))
    with pytest.raises(UserError, match="unknown kind 'gan'"):
        load_release(folder)


def test_no_such_release(tmp_path):
    with pytest.raises(UserError, match="no release 'nothing_here'"):
        load_release("nothing_here")


def test_values_that_16_bits_cannot_hold(release, tmp_path):
    part = release.parts["talker"]
    params = jax.tree.map(np.array, part.params)
    params["norm"]["scale"][0] = 1e6
    broken = dataclasses.replace(
        release, parts={"talker": dataclasses.replace(part, params=params)}
    )
    with pytest.raises(UserError, match=r"norm/scale has values that are not finite in float16"):
        save_release(tmp_path, broken, "card")


def test_a_part_that_is_not_there(release):
    with pytest.raises(UserError, match="has no adaptor; it has codec, talker"):
        release.part("adaptor")


def test_both_adaptors_have_shapes():
    for kind in ("spelling_adaptor", "stack_adaptor"):
        part = KINDS[kind]
        assert all(leaf.size for leaf in jax.tree.leaves(part.shapes(part.config())))
    assert part.shapes(StackConfig())["fc2"]["kernel"].shape == (2048, 576)
