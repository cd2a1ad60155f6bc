"""Any chat LLM as the Thinker: what is found, what it is asked with, what is refused and how; no
weight is read before.
"""

import dataclasses
import json
import shutil
import struct
import weakref
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from chat_llm import write_llm
from torch_files import save, tensor

from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.interop import any_thinker, converted, rules, sources
from mdmspeech.interop.any_thinker import open_any_thinker
from mdmspeech.interop.release import read_about
from mdmspeech.interop.tensors import read_tensors, write_tensors
from mdmspeech.interop.to_run import laid_out
from mdmspeech.models.prepared_thinker import prepared
from mdmspeech.text.prompts import FEW_SHOT, SYSTEM, Prompt, around_question

KINDS = {"llama": {}, "qwen2": {"shards": 3}, "qwen3": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """One folder a family."""
    root = tmp_path_factory.mktemp("llms")
    return {kind: write_llm(root / kind, kind, **how) for kind, how in KINDS.items()}


@pytest.fixture
def folder(published, tmp_path):
    """A good one, to be spoilt."""
    return Path(shutil.copytree(published["qwen3"], tmp_path / "llm"))


@pytest.fixture(autouse=True)
def nothing_is_read(request, monkeypatch):
    """No weight, unless a test says so."""
    if not request.node.get_closest_marker("usefixtures"):
        monkeypatch.setattr(rules, "_assemble", lambda *args: pytest.fail("weights were read"))


reads = pytest.mark.usefixtures("tmp_path")


# ---- What it is asked with ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_is_the_models_own_template(published, kind):
    chosen = open_any_thinker(published[kind], "compact")
    chat = chosen.opened.tokenizer()
    before, after = around_question(chat, chosen.prompt)
    shown = [chat.tokenizer.decode(ids, skip_special_tokens=False) for ids in (before, after)]
    wanted = {
        "llama": (
            f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        "qwen2": (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        "qwen3": (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
    }
    assert tuple(shown) == wanted[kind]
    assert chosen.prompt == Prompt(SYSTEM) and chosen.opened.context == 1024


@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_an_answer_is_special(published, kind):
    """A "</s>" that is plain text ends none; "<|endoftext|>" and its like do beside the turn's end."""
    chat = open_any_thinker(published[kind], "compact").opened.tokenizer()
    ends = {chat.tokenizer.id_to_token(i) for i in chat.stop_ids}
    assert ends == (
        {"<|eot_id|>", "<|end_of_text|>"} if kind == "llama" else {"<|im_end|>", "<|endoftext|>"}
    )


def test_the_shipped_thinker_as_it_was_published_has_examples():
    """By its name it is asked for without the LoRA that the release brings."""
    about = read_about("compact")
    assert open_any_thinker(about.thinker, "compact").prompt == FEW_SHOT != about.prompt


def test_a_real_quantised_file():
    """SmolLM2, Q4_1, as anybody's file: its tokenizer, template and end are in its metadata."""
    path = sources._package_file(*sources._SMOLLM2_FILE, "", "")
    chosen = open_any_thinker(path, "compact")
    assert chosen.prompt == Prompt(SYSTEM) and chosen.opened.context == 8192
    chat = chosen.opened.tokenizer()
    assert chat.stop_ids == (0, 2) and chosen.opened.config.dim == 576


# ---- Where it is found --------------------------------------------------------------------------


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """A local cache as `hf download` leaves it, with two repositories of one snapshot each."""
    from huggingface_hub import constants

    for name, kind in (("models--me--tiny", "llama"), ("models--me--parts", "qwen2")):
        snapshot = tmp_path / "hub" / name / "snapshots" / ("0" * 40)
        shutil.copytree(published[kind], snapshot)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("asked the network"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.parametrize(("name", "bias"), [("me/tiny", False), ("me/parts", True)])
def test_a_name_is_looked_up_in_the_local_cache(hub, name, bias):
    assert open_any_thinker(name, "compact").opened.config.qkv_bias is bias


def test_a_folder_goes_before_the_cache(hub, published, tmp_path):
    shutil.copytree(published["qwen3"], tmp_path / "me" / "tiny")
    assert open_any_thinker("me/tiny", "compact").opened.config.qk_norm


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path):
    path = sources._package_file(*sources._SMOLLM2_FILE, "", "")
    (tmp_path / "model.gguf").symlink_to(path)
    (tmp_path / "mmproj-f16.gguf").write_bytes(b"")
    assert open_any_thinker(tmp_path, "compact").opened.config.dim == 576


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("me/none", r"no such repository in the local Hugging Face cache .*hf download me/none"),
        ("me/tiny/more", "no Thinker at me/tiny/more: give a model folder"),
        ("tiny", r"no Thinker at tiny.*OWNER/NAME"),
        ("", "no Thinker at ''"),
        ("  ", "no Thinker at"),
        ("me/..", r"no Thinker at me/\.\."),
        ("./none", "no Thinker at ./none"),
        ("~/none", "no Thinker at ~/none"),
        ("~nobody-here/none", "no Thinker at ~nobody-here/none"),
        ("./me/none", "no Thinker at ./me/none"),
        ("me/none.gguf", "no such repository"),
        ("https://example.com/m.gguf", "is on the web, and nothing is downloaded"),
    ],
)
def test_names_that_nothing_has(hub, name, told):
    with pytest.raises(UserError, match=told):
        open_any_thinker(name, "compact")


def test_a_download_that_was_not_finished(hub):
    next(hub.rglob("model-00002-of-00003.safetensors")).unlink()
    with pytest.raises(UserError, match=r"lacks 1 of its 3 files .*00002"):
        open_any_thinker("me/parts", "compact")


# ---- What is refused ----------------------------------------------------------------------------


def config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def tokenizer_config(**changes):
    def change(folder):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def lora(folder):
    without("config.json", "model.safetensors")(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-8B"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")


def release(folder):
    for path in folder.iterdir():
        path.unlink()
    about = {"format": "mdmspeech-release", "parts": {"talker": {}, "codec": {}}}
    (folder / "config.json").write_text(json.dumps(about))


def system(folder):
    release(folder)
    (folder / "thinker").mkdir()


def run(folder):
    (folder / "checkpoints").mkdir()
    (folder / "config.json").write_text('{"stage": "thinker"}')


def bare_run(folder):
    run(folder), without("config.json")(folder)


def weights(folder, change):
    path = folder / "model.safetensors"
    tensors = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors)


def pickles(*names):
    def change(folder):
        without("model.safetensors")(folder)
        for name in names:
            (folder / name).write_bytes(b"\x80\x02")

    return change


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def vocabulary(size):
    """Another model's, of so many embeddings."""
    return lambda folder: write_llm(folder, "qwen3", vocab_size=size)


def unended(folder):
    """A base model with a template of no known end."""
    without("generation_config.json")(folder)
    tokenizer_config(eos_token=None)(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|im_end|>", "<|over|>").replace("endoftext", "pad"))


def several(folder):
    without("config.json")(folder)
    for name in ("q4.gguf", "q8.gguf"):
        (folder / name).write_bytes(b"GGUF")


REFUSED = {
    "no tokenizer": (without("tokenizer.json"), "has no tokenizer.json; give a complete model"),
    "the older tokenizer": (lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"),
        r"vocab.json is the older form: .*AutoTokenizer.*save_pretrained"),
    "a broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"),
        "tokenizer.json is broken"),
    "another architecture": (config(model_type="gemma3_text"),
        r"'gemma3_text' cannot be a Thinker; use one of: llama \(also SmolLM2\), qwen2 .*qwen3"),
    "a mixture of experts": (config(model_type="qwen3_moe"), "'qwen3_moe' cannot be a Thinker"),
    "one that sees": (config(model_type="qwen2_5_vl"), "'qwen2_5_vl' cannot be a Thinker"),
    "a speech encoder": (config(model_type="whisper"), "'whisper' cannot be a Thinker"),
    "a talker of others": (config(model_type="cosyvoice2"), "'cosyvoice2' cannot be a Thinker"),
    "no architecture": (config(model_type=None), "None cannot be a Thinker"),
    "a switch it has not": (config(attention_bias=True), "attention_bias, which the Thinker does"),
    "a base model": (tokenizer_config(chat_template=None),
        r"no chat template .*take an instruction-tuned \(chat\) model, or copy the file"),
    "a broken template": (tokenizer_config(chat_template="{% if"), "chat template is broken"),
    "a template without system": (tokenizer_config(chat_template=
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"),
        "refuses these messages: no system"),
    "a template that says nothing": (tokenizer_config(chat_template="{{ bos_token }}"), "0 times"),
    "no end of an answer": (unended, "names no end of an answer: set eos_token_id"),
    "a LoRA": (lora, r"is a LoRA of Qwen/Qwen3-8B, not a whole model: merge the two"),
    "a release": (release, r"is a release \(talker, codec\), not a text LLM: --model"),
    "a system": (system, r"is a release .*its Thinker is .*llm/thinker"),
    "a run": (run, r"is a training run, not a text LLM.*mdmspeech convert \S+ NEW_FOLDER"),
    "a run without a config": (bare_run, "is a training run"),
    "a pickle": (pickles("pytorch_model.bin"),
        r"as pickles \(pytorch_model.bin\).*`mdmspeech convert \S+ NEW_FOLDER` writes it anew"),
    "pickles": (pickles("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
        r"as pickles .*AutoModelForCausalLM.*save_pretrained"),
    "no weights": (without("model.safetensors"), "has no .safetensors file"),
    "cut off": (cut, "model.safetensors is corrupt"),
    "too few embeddings": (vocabulary(200), r"its tokenizer has \d+ ids, its model 200"),
    "too many embeddings": (vocabulary(9000), r"its tokenizer has \d+ ids, its model 9000"),
    "a weight less": (lambda folder: weights(folder, lambda w: w.pop("model.norm.weight")),
        r"llm does not fit its config: 1 missing \(model.norm.weight\)"),
    "a weight more": (lambda folder: weights(folder, lambda w: w.update(more=w["model.norm.weight"])),
        r"llm does not fit its config: 1 unknown \(more\)"),
    "of another width": (config(hidden_size=40), "does not fit its config: .* misshapen"),
    "of another depth": (config(num_hidden_layers=3), "does not fit its config: 11 missing"),
    "whole numbers": (lambda folder: weights(folder, lambda w: w.update(
        {n: v.astype(np.int8) for n, v in w.items() if "q_proj" in n})), "whole numbers"),
    "no config": (without("config.json"), "config.json does not exist"),
    "a broken config": (lambda folder: (folder / "config.json").write_text("[]"),
        "holds a JSON list instead of an object"),
    "several files": (several, r"holds 2 .gguf files \(q4.gguf, q8.gguf, ...\); give the path of one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_the_thinker_is_told_with_a_cure(folder, case):
    change, told = REFUSED[case]
    change(folder)
    with pytest.raises(UserError, match=told) as refused:
        open_any_thinker(folder, "compact")
    assert str(folder) in str(refused.value)


@reads
def test_the_cure_of_a_pickle_works(folder, tmp_path):
    tensors = read_tensors(folder / "model.safetensors")
    without("model.safetensors")(folder)
    stored = {n: tensor(n, value.astype(np.float32)) for n, value in tensors.items()}
    save(folder / "pytorch_model.bin", stored)
    with pytest.raises(UserError, match=r"`mdmspeech convert (\S+) NEW_FOLDER`"):
        open_any_thinker(folder, "compact")
    assert main(["convert", str(folder), str(tmp_path / "new")]) == 0
    assert open_any_thinker(tmp_path / "new", "compact").opened.config.qk_norm


def test_a_model_with_checkpoints_beside_it_is_a_model(folder):
    (folder / "checkpoints").mkdir()
    assert open_any_thinker(folder, "compact").opened.config.qk_norm


def test_a_file_of_weights_alone(folder):
    with pytest.raises(UserError, match=r"that is a file by itself; give a model folder"):
        open_any_thinker(folder / "model.safetensors", "compact")


def gguf(**fields):
    """The header of a file without tensors."""
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    packed = [
        text(name)
        + (struct.pack("<I", 8) + text(v) if isinstance(v, str) else struct.pack("<IH", 2, v))
        for name, v in fields.items()
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(packed)) + b"".join(packed)


GGUFS = {
    "empty": (b"", "truncated or no GGUF"),
    "cut": (gguf(**{"general.architecture": "qwen3"})[:-3], "truncated or no GGUF"),
    "text": (b"hello" * 10, "truncated or no GGUF"),
    "another architecture": (gguf(**{"general.architecture": "gemma3"}),
        r"'gemma3' model, which cannot be the Thinker; use one of: llama"),
    "eyes": (gguf(**{"general.architecture": "clip"}), "'clip' model"),
    "a part": (gguf(**{"general.architecture": "qwen3", "split.count": 3}),
        "one of 3 files of a split model; .*llama-gguf-split --merge"),
    "a LoRA": (gguf(**{"general.architecture": "llama", "general.type": "adapter"}),
        "is a LoRA, not a whole model; .*llama-export-lora"),
    "no weights": (gguf(**{"general.architecture": "llama"}), "no token embedding"),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUFS)
def test_gguf_files_that_cannot_be_the_thinker(tmp_path, case):
    data, told = GGUFS[case]
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(UserError, match=told) as refused:
        open_any_thinker(tmp_path / "m.gguf", "compact")
    assert "m.gguf" in str(refused.value)


def test_a_real_file_that_is_cut_off(tmp_path):
    path = sources._package_file(*sources._SMOLLM2_FILE, "", "")
    with path.open("rb") as file:
        (tmp_path / "m.gguf").write_bytes(file.read(9_000_000))
    with pytest.raises(UserError, match=r"truncated inside \S+; fetch it again"):
        open_any_thinker(tmp_path / "m.gguf", "compact")


def test_a_release_whose_parts_read_states_takes_no_other(published, tmp_path, monkeypatch):
    about = read_about("compact")
    stacked = {**about.parts, "adaptor": ("stack_adaptor", about.parts["adaptor"][1])}
    changed = dataclasses.replace(about, parts=stacked)
    monkeypatch.setattr(any_thinker.releases, "read_about", lambda name: changed)
    with pytest.raises(UserError, match=r"the adaptor of \S+ work with the states of their own"):
        open_any_thinker(published["llama"], "compact")


@pytest.mark.parametrize(
    ("have", "dtype", "told"),
    [
        (1000, "float32", r"as float32, .*--dtype bfloat16\) needs half of it, or take a smaller"),
        (1000, "bfloat16", "as bfloat16, .*of memory: take a smaller model"),
        (10**9, "float32", None),
        (None, "float32", None),
    ],
)
def test_a_model_larger_than_the_memory(published, monkeypatch, have, dtype, told):
    monkeypatch.setattr(any_thinker, "machine_memory", lambda: have)
    if told is None:
        open_any_thinker(published["llama"], "compact", dtype)
        return
    with pytest.raises(UserError, match=told):
        open_any_thinker(published["llama"], "compact", dtype)


# ---- Converted once -----------------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path):
    converted.keep(tmp_path / "copies")
    yield lambda: sorted((tmp_path / "copies").glob("thinker-*"))
    converted.keep(None)


@reads
def test_it_is_converted_once_and_anew_when_a_file_changes(copies, folder, monkeypatch):
    made, real = [], rules._assemble
    monkeypatch.setattr(rules, "_assemble", lambda *args: made.append(1) or real(*args))
    load = lambda dtype="float32": open_any_thinker(folder, "compact", dtype).load()
    first, count = load().params, len(made)
    (copy,) = copies()
    second = load().params
    assert count > 10 and len(made) == count and copies() == [copy]
    for params in (first, second):  # both are the map
        assert not params["norm"]["scale"].flags.writeable
    np.testing.assert_array_equal(first["norm"]["scale"], second["norm"]["scale"])

    write_llm(folder, "qwen3", rms_norm_eps=1e-5)
    load()
    assert len(made) == 2 * count and len(copies()) == 1 and copies() != [copy]
    assert load("bfloat16").params["norm"]["scale"].dtype == ml_dtypes.bfloat16
    assert len(made) == 3 * count


@reads
@pytest.mark.parametrize(("to_run", "most"), [(False, 1), (True, 16)])
def test_one_layer_after_the_other_is_held_while_it_is_converted(
    copies, tmp_path, monkeypatch, to_run, most
):
    folder = write_llm(tmp_path / "deep", "qwen3", num_hidden_layers=4, head_dim=16)
    made, held, real = [], [], rules._assemble

    def assemble(*args):
        held.append(sum(ref() is not None for ref in made))
        made.append(weakref.ref(value := real(*args)))
        return value

    monkeypatch.setattr(rules, "_assemble", assemble)
    open_any_thinker(folder, "compact").load(to_run=to_run)
    assert len(made) == 47 and max(held) <= most


@reads
@pytest.mark.parametrize("kind", KINDS)
def test_read_one_by_one_is_read_at_once(published, kind):
    opened = open_any_thinker(published[kind], "compact").opened
    whole, lazily = opened.params(), opened.params(unread=True)
    equal = np.testing.assert_array_equal
    jax.tree.map(equal, jax.tree.map(np.asarray, lazily), whole)
    ready, wanted = laid_out(lazily, False), prepared(whole)
    assert {leaf.dtype for leaf in jax.tree.leaves(ready)} == {np.dtype(np.float32)}
    jax.tree.map(lambda one, other: equal(np.asarray(one), other), ready, wanted)
