"""`mdmspeech preflight`: each thing that would fail on machines that are paid for is refused before,
with a cure that works.
"""

import json
import shutil

import jax
import numpy as np
import pytest
import small_corpus
from small_speech import CODEC, talker_params
from small_speech import TALKER as TALKER_SIZES

from mdmspeech import remote
from mdmspeech.cli import main, preflight_checks
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.interop.release import Part, Release, load_part, save_release

TALKER = ["--config", "experiments/compact_talker.py", "--set", "data.parts=open"]
LOCAL = ["--config", "experiments/talker_8b.py:runlocal"]
TINY = ["--config", "experiments/aligner.py:runlocal"]
BIG = ["--config", "experiments/thinker_8b.py"]
RANDOM = [w for n in ("encoder", "thinker", "tokenizer") for w in ("--set", f"weights.{n}=random")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    small_corpus.write(root)
    tokens(root, "open", "abc")
    return root


def tokens(root, part, codec):
    from mdmspeech.data.datasets.corpus import folder_of
    from mdmspeech.data.datasets.writer import write_dataset

    rows = [
        {"id": str(n), "text": "One.", "tokens": [1, 2, 3], "symbols": [0, 5], "frames": [4, 12]}
        for n in range(4)
    ]
    about = {"part": part, "codec": codec}
    write_dataset(folder_of(root, "tokens", part), "tokens", {"train": rows}, about=about)


@pytest.fixture
def look(capsys, corpus, tmp_path):
    """Function of words -> (exit code, {check: what it says}); refusals begin with "WRONG"."""

    def run(*words):
        words = list(words)
        for option, value in (("--workdir", str(tmp_path / "run")), ("--data", str(corpus))):
            words += [] if option in words else [option, value]
        code = main(["preflight", *words])
        out, err = capsys.readouterr()
        lines = [line for line in (out + err).splitlines() if line.startswith(("ok", "WRONG"))]
        told = {
            line[6:16].strip(): line[:6].replace("ok", "").strip() + line[16:] for line in lines
        }
        assert (code == 2) == any(text.startswith("WRONG") for text in told.values()), (code, told)
        return code, told

    return run


def test_a_run_that_can_work(look):
    code, told = look(*TALKER, "--topology", "v5e:2x4", "--set", "data.batch=16", "--no-compile")
    assert code == 0 and list(told) == [
        "settings", "weights", "start", "workdir", "data", "batch", "memory",
    ]  # fmt: skip
    assert "16 rows, 2 a chip at a time, on 8 chips: mesh data=8 fsdp=1 tensor=1" in told["batch"]
    assert "4 records to train on, tokens of codec abc" in told["data"]


# ---- Settings, and what it starts from ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "experiments/none.py"], "no experiment file"),
        ([*TALKER, "--set", "train.stepz=3"], "no such setting; did you mean train.steps"),
        ([*TALKER, "--set", "optim.lr=-1"], "from 0 to 10"),
        ([*TALKER, "--set", "train.accum=3"], "a multiple of train.accum"),
        ([*TALKER, "--set", "mode=xyz"], "mode is 'xyz'"),
        ([*TALKER, "--system", "/no/such"], "no release '/no/such'"),
        ([*LOCAL, "--set", "talker.text_dim=7"], None),  # what only the model knows
    ],
)
def test_settings(look, words, said):
    code, told = look(*words)
    if said is not None:
        assert code == 2 and list(told) == ["settings"] and said in told["settings"]


WHISPER = ["--set", "weights.encoder=whisper-base"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "weights.encoder is empty: name a checkpoint"),
        (["--set", "weights.encoder=/no/such"], "no speech encoder at /no/such"),
        ([*RANDOM, *WHISPER], "whisper-base is another model than the experiment's"),
        ([*RANDOM, "--set", "weights.thinker=gs://bucket/qwen"], "nothing at gs://bucket/qwen"),
        (
            [*RANDOM, "--set", "weights.thinker=gs://bucket/there"],
            "weights.thinker=gs://bucket/there: ",
        ),
        ([*RANDOM, "--set", "weights.thinker=/here/qwen", "--disks", "empty"], "empty disks: copy"),
        (
            [*RANDOM, "--set", "weights.tokenizer=smollm2-135m-instruct", "--disks", "empty"],
            "empty",
        ),
        (
            [*RANDOM, "--set", "weights.tokenizer=/here/x", "--disks", "here"],
            "no Thinker at /here/x",
        ),
    ],
)
def test_weights(look, bucket, cache, words, said):
    remote.write_text("gs://bucket/there/config.json", "{}")
    code, told = look(*BIG, *words, "--set", "data.parts=random")
    assert code == 2 and said in told["weights"] and told["weights"].startswith("WRONG")


@pytest.mark.parametrize(
    "words", [RANDOM, [*RANDOM, "--set", "weights.thinker=/on/the/machines", "--disks", "there"]]
)
def test_weights_that_need_no_look(look, words):
    _, told = look(*BIG, *words, "--set", "data.parts=random")
    assert not told["weights"].startswith("WRONG")


def test_a_system_and_its_weights(look, bucket, cache, system):
    """Given as a folder of this machine, which a launcher copies, or as one in a bucket."""
    for file in sorted(system.rglob("*")):
        if file.is_file():
            remote.upload(file, f"gs://bucket/system/{file.relative_to(system).as_posix()}")
    for place in (str(system), "gs://bucket/system"):
        words = ["--config", "experiments/talker_8b.py", "--system", place, "--disks", "empty"]
        _, told = look(*words, "--workdir", "gs://bucket/run", "--set", "data.parts=random")
        assert told["weights"] == (
            "thinker is that of the experiment, tokenizer is that of the experiment"
        )
        assert told["start"] == f"the Talker of {place}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "disks", "said"),
    [
        ("/runs/stage2", "here", "holds no checkpoint"),
        ("/runs/stage2", "empty", "empty disks: copy that run to a bucket"),
        ("runs/stage2", "empty", "empty disks: copy that run to a bucket"),
        ("gs://bucket/none", "empty", "no checkpoint"),
        ("nothing", "empty", "no release"),
        ("/runs/stage2", "there", ""),
        ("random", "empty", ""),
        ("", "empty", ""),
        ("compact", "empty", ""),
        ("stage2", "empty", ""),  # beside the workdir
        ("../stage2", "empty", "empty disks: copy that run to a bucket"),
    ],
)
def test_what_it_starts_from(look, bucket, start, disks, said):
    remote.write_text("gs://bucket/stage2/config.json", json.dumps({"stage": "talker"}))
    remote.write_text("gs://bucket/stage2/checkpoints/1/about/metadata", "{}")
    words = ["--workdir", "gs://bucket/run", "--set", f"init_from={start}", "--disks", disks]
    _, told = look(*TALKER, *words)
    assert told["start"].startswith("WRONG") == bool(said) and said in told["start"], told


# ---- The workdir ----------------------------------------------------------------------------------


def test_a_bucket_is_written_read_and_left_as_it_was(look, bucket):
    code, told = look(*TALKER, "--workdir", "gs://bucket/new run", "--disks", "empty")
    assert code == 0 and "written, read and removed a probe, as you; a new run" in told["workdir"]
    assert remote.list_names("gs://bucket/new run") == []
    assert [r for r in bucket.requests if r.startswith("POST")], "it was written to"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda method, path: "403" * (method in ("POST", "PUT")), "cannot write gs://bucket/run"),
        (lambda method, path: "403" * (method == "GET" and "preflight" in path), "cannot read"),
        (lambda method, path: "403" * (method == "DELETE"), "cannot remove"),
        (lambda method, path: "401", "not permitted"),
        (lambda method, path: "503", "check the network and the storage service"),
    ],
)
def test_a_bucket_that_cannot_be_used(look, bucket, fault, said):
    bucket.faults = lambda number, method, path: fault(method, path)
    code, told = look(*TALKER, "--workdir", "gs://bucket/run", "--disks", "empty")
    assert code == 2 and said in told["workdir"], told


def test_a_bucket_that_is_not_there(look, bucket):
    code, told = look(*TALKER, "--workdir", "gs://other/run", "--disks", "empty")
    assert code == 2 and "there is no bucket gs://other" in told["workdir"]


def test_a_workdir_that_cannot_be_written(look, tmp_path):
    (tmp_path / "file").write_text("")
    code, told = look(*TALKER, "--workdir", str(tmp_path / "file" / "run"))
    assert code == 2 and "name another --workdir" in told["workdir"]


def test_a_workdir_on_the_machines_is_not_looked_at(look, tmp_path):
    (tmp_path / "file").write_text("")
    code, told = look(*TALKER, "--workdir", str(tmp_path / "file" / "run"), "--disks", "there")
    assert code == 0 and "not looked at" in told["workdir"] and "not looked at" in told["data"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [("optim.lr=0.5", "of another config (optim.lr: 0.002 -> 0.5)"), ("train.log_every=7", "")],
)
def test_a_workdir_of_another_config(look, tmp_path, changed, said):
    from mdmspeech.cli.experiment import load_experiment, override

    config = load_experiment(TALKER[1])
    override(config, TALKER[3])
    folder = tmp_path / "run" / "checkpoints" / "5" / "about"
    folder.mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"config": json.loads(config.to_json())}))
    code, told = look(*TALKER, "--set", changed)
    assert code == (2 if said else 0)
    assert (said or "goes on from its checkpoints") in told["workdir"]


# ---- Data -----------------------------------------------------------------------------------------


def test_data_that_is_not_there(look, tmp_path, bucket):
    for words in (["--data", str(tmp_path)], ["--data", "gs://bucket/corpus", "--disks", "empty"]):
        code, told = look(*TALKER, "--set", "data.parts=open", *words)
        assert code == 2 and "make it with: mdmspeech data" in told["data"]


def test_machines_with_empty_disks_must_be_told_where_data_are(look, bucket):
    code, told = look(*TALKER, "--data", "", "--workdir", "gs://bucket/run", "--disks", "empty")
    assert code == 2 and "give --data gs://BUCKET/CORPUS" in told["data"]


def test_tokens_of_two_codecs(look, corpus, tmp_path):
    root = shutil.copytree(corpus, tmp_path / "corpus")
    tokens(root, "answers", "def")
    code, told = look(*TALKER, "--set", "data.parts=open,answers", "--data", str(root))
    assert code == 2 and "tokens of codec abc" in told["data"] and "of codec def" in told["data"]


@pytest.fixture(scope="module")
def with_codec(tmp_path_factory):
    """(folder of a small release with a codec, what its tokens are known by)."""
    from mdmspeech.data.datasets.make import fingerprint

    folder = tmp_path_factory.mktemp("system")
    shapes = jax.eval_shape(CompactCodecModel(CODEC).init, jax.random.key(0))
    params = jax.tree.map(lambda s: np.full(s.shape, 0.5, s.dtype), shapes)
    parts = {
        "codec": Part("compact_codec", CODEC, params),
        "talker": Part("talker_mdm", TALKER_SIZES, talker_params()),
    }
    save_release(folder, Release("tiny", parts), "card")
    return str(folder), fingerprint(load_part(folder, "codec").params)


@pytest.mark.parametrize("way", ["--system", "init_from"])
def test_tokens_of_another_codec_than_the_systems(look, corpus, with_codec, tmp_path, way):
    folder, codec = with_codec
    words = [
        *TALKER,
        *(["--system", folder] if way == "--system" else ["--set", f"{way}={folder}"]),
    ]
    code, told = look(*words)
    assert code == 2 and f"are of codec abc, that of {folder} is {codec}" in told["data"]
    assert f"mdmspeech data --tokens --codec {folder} --parts open" in told["data"]
    root = shutil.copytree(corpus, tmp_path / "corpus")
    shutil.rmtree(root / "datasets" / "tokens" / "open")
    tokens(root, "open", codec)
    code, told = look(*words, "--data", str(root))
    assert code == 0 and f"that of {folder}" in told["data"]


@pytest.mark.parametrize("stage", ["codec", "hearing"])
def test_data_of_other_stages(look, stage):
    words = ["--config", f"experiments/compact_{stage}.py"]
    if stage == "codec":
        words += ["--set", "data.parts=open"]
    assert "records to train on" in look(*words)[1]["data"]


# ---- Batch, mesh and memory -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--topology", "v5e:4x8"],
            "16 rows (data.batch) do not divide into 32 data-parallel chips",
        ),
        (["--topology", "v5e:2x4", "--set", "data.batch=20"], "a multiple of 8 (16 or 24)"),
        (["--topology", "v5e:2x4", "--set", "train.accum=4"], "a multiple of 32 (32)"),
        (["--topology", "v5e:2x4", "--slices", "4"], "32 data-parallel chips"),
        (["--topology", "v5e:2x4", "--set", "mesh.fsdp=3"], "does not divide the 8 chips: set"),
        (["--topology", "v5e:2x2", "--set", "mesh.tensor=8"], "does not divide the 4 chips"),
        (
            ["--topology", "v5e:2x2", "--slices", "2", "--set", "mesh.fsdp=8"],
            "does not divide the 4 chips of a slice",
        ),
        (
            ["--topology", "v5e:2x4", "--set", "mesh.data=4"],
            "4 places for 8 chips: set mesh.data=-1",
        ),
        (["--topology", "v5e:2x2", "--set", "mesh.data=8"], "8 places for 4 chips"),
        (["--chips", "5"], "16 rows (data.batch) do not divide into 5"),
        (["--chips", "8", "--set", "mesh.tensor=16"], "does not divide the 8 chips"),
        (["--topology", "v5e:2"], "unknown topology"),
    ],
)
def test_batches_and_meshes_that_do_not_fit(look, words, said):
    code, told = look(*TALKER, *words)
    assert code == 2 and said in told["batch"] and "memory" not in told


@pytest.mark.parametrize(
    ("mesh", "chips", "slices", "inside"),
    [
        ("-1,1,1", 8, 1, (8, 1, 1)),
        ("-1,4,2", 32, 2, (2, 4, 2)),
        ("4,4,2", 32, 2, (2, 4, 2)),
        ("-1,16,1", 32, 2, (1, 16, 1)),
        ("2,8,1", 16, 1, (2, 8, 1)),
    ],
)
def test_the_mesh_of_a_slice(mesh, chips, slices, inside):
    from ml_collections import ConfigDict

    names = ("data", "fsdp", "tensor")
    sizes = dict(zip(names, map(int, mesh.split(",")), strict=True))
    found = preflight_checks.mesh_of(ConfigDict({"mesh": sizes}), chips, slices)
    assert tuple(found[name] for name in names) == inside


@pytest.mark.slow
@pytest.mark.parametrize(("compiler", "split"), [(True, "1"), (False, "1"), (True, "8")])
def test_a_state_that_does_not_fit_is_refused_without_compiling(look, monkeypatch, compiler, split):
    if not compiler:
        monkeypatch.setattr(preflight_checks, "_has_compiler", lambda: False)
    preflight_checks._mesh.cache_clear()
    words = [*BIG, *RANDOM, "--set", "data.parts=random", "--topology", "v5e:2x4", "--no-compile"]
    code, told = look(*words, "--set", f"mesh.fsdp={split}")
    preflight_checks._mesh.cache_clear()
    if split == "1":
        assert code == 2 and "take 16.9 GiB of the 16 GiB of a v5e chip: split" in told["memory"]
        assert "mesh.fsdp=2" in told["memory"]
    else:
        assert code == 0 and "at least" in told["memory"] and "not compiled" in told["memory"]


@pytest.mark.slow
def test_the_step_is_compiled_where_it_can_be(look):
    code, told = look(*TINY, "--topology", "v5e:2x4", "--slices", "2", "--set", "data.batch=16")
    assert code == 0 and "a chip in a step" in told["memory"]
    assert "each of 2 hosts (of a slice) has whole rows" in told["batch"]


@pytest.mark.slow
def test_a_step_that_does_not_fit(look):
    """The state fits, what a step needs besides does not."""
    code, told = look(*TINY, "--set", "data.batch=4194304", "--topology", "v5e:1x1")
    assert code == 2 and "a step needs 353 GiB" in told["memory"]
    assert "train.accum=2" in told["memory"]


@pytest.mark.parametrize(
    "words", [["--slices", "0"], ["--chips", "-1"], ["--chips", "4", "--topology", "v5e:2x2"]]
)
def test_options_that_make_no_sense(words, capsys):
    assert main(["preflight", *TALKER, "--workdir", "w", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
