"""S3 tokenizer files: safetensors and ONNX give the same parameters; corrupt, foreign and hostile
ones give one line.
"""

import re
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_tokenizer import load_s3_tokenizer, onnx_tensors
from mdmspeech.interop.onnx_weights import OnnxWeights
from mdmspeech.interop.tensors import read_tensors, write_tensors

SOURCE = Path(__file__).parents[1] / "fixtures" / "cosyvoice2" / "s3_tokenizer_v2.safetensors"


def _official_graph(tensors):
    """An ONNX model with the golden weights laid out as in the official file: named nodes,
    anonymous weights, MatMul transposed.
    """
    nodes, weights, counter = [], [], iter(range(2216, 9999))

    def weight(kind, value, name=None):
        weights.append(
            numpy_helper.from_array(
                np.ascontiguousarray(value), name or f"onnx::{kind}_{next(counter)}"
            )
        )
        return weights[-1].name

    def add(kind, inputs, name=""):
        nodes.append(helper.make_node(kind, inputs, [f"{name or kind}_output_{len(nodes)}"], name))
        return nodes[-1].output[0]

    def linear(x, scope, theirs):
        y = add("MatMul", [x, weight("MatMul", tensors[f"{theirs}.weight"].T)], f"{scope}/MatMul")
        bias = tensors.get(f"{theirs}.bias")
        return y if bias is None else add("Add", [weight("Add", bias), y], f"{scope}/Add")

    x = "mel"
    for name in ("conv1", "conv2"):
        parts = [weight("Conv", tensors[f"encoder.{name}.{part}"]) for part in ("weight", "bias")]
        x = add("Erf", [add("Conv", [x, *parts], f"/{name}/Conv")])
    for block in range(3):
        theirs = f"encoder.blocks.{block}"
        scope = f"/blocks.{block}"
        for norm, parts in (("attn_ln", ("query", "key", "value", "out")), ("mlp_ln", ("0", "2"))):
            pair = [
                weight("LayerNormalization", tensors[f"{theirs}.{norm}.{part}"])
                for part in ("weight", "bias")
            ]
            y = add("LayerNormalization", [x, *pair], f"{scope}/{norm}/LayerNormalization")
            for part in parts:
                inside = f"mlp/mlp.{part}" if norm == "mlp_ln" else f"attn/{part}"
                y = linear(
                    y,
                    f"{scope}/{inside}",
                    f"{theirs}.{'mlp' if norm == 'mlp_ln' else 'attn'}.{part}",
                )
            if norm == "attn_ln":
                kernel = weight(
                    "",
                    tensors[f"{theirs}.attn.fsmn_block.weight"],
                    f"blocks.{block}.attn.fsmn_block.weight",
                )
                y = add(
                    "Add",
                    [y, add("Conv", [y, kernel], f"{scope}/attn/fsmn_block/Conv")],
                    f"{scope}/attn/Add",
                )
            x = add("Add", [x, y], f"{scope}/Add")
    codebook = "quantizer._codebook.project_down"
    product = add(
        "MatMul",
        [x, weight("MatMul", tensors[f"{codebook}.weight"].T)],
        "/quantizer/project_in/MatMul",
    )
    x = add(
        "Add",
        [weight("", tensors[f"{codebook}.bias"], "quantizer.project_in.bias"), product],
        "/quantizer/project_in/Add",
    )
    x = add("Mul", [x, weight("", np.array(3, np.int64), "onnx::Mul_9999")], "/quantizer/Mul")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("mel", x)]
    return helper.make_model(
        helper.make_graph(nodes, "main_graph", ends[:1], ends[1:], weights), producer_name="pytorch"
    )


@pytest.fixture(scope="module")
def tensors():
    return read_tensors(SOURCE)


@pytest.fixture
def graph(tensors):
    return _official_graph(tensors)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "speech_tokenizer_v2.onnx"


def _write(path, value, name="w", **fields):
    """An ONNX file of one weight; fields are set on it by hand."""
    tensor = numpy_helper.from_array(value, name)
    for field, content in fields.items():
        if isinstance(content, list):
            tensor.ClearField(field)
            getattr(tensor, field).extend(content)
        else:
            setattr(tensor, field, content)
    # `onnx.save` would object
    path.write_bytes(
        helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    )
    return path


def test_onnx_equals_safetensors(graph, path, tensors):
    onnx.save(graph, path)
    config, params = load_s3_tokenizer(path, head_dim=32)
    expected_config, expected = load_s3_tokenizer(SOURCE, head_dim=32)
    assert config == expected_config
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    found = onnx_tensors(OnnxWeights(path))
    assert found.keys() == tensors.keys()


def test_a_part_of_a_larger_file(tmp_path, tensors):
    """As in Chatterbox's s3gen.safetensors: under a prefix, with buffers, beside other models."""
    inside = {f"tokenizer.{name}": value for name, value in tensors.items()}
    others = {
        "tokenizer._mel_filters": np.ones((128, 201)),
        "tokenizer.window": np.ones(400),
        "flow.encoder.weight": np.ones(3),
    }
    write_tensors(tmp_path / "s3gen.safetensors", inside | others)
    jax.tree.map(
        np.testing.assert_array_equal,
        load_s3_tokenizer(tmp_path, 32),
        load_s3_tokenizer(SOURCE, 32),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_every_float_type(path, dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [helper.make_tensor("raw", kind, value.shape, value.tobytes(), raw=True)]
    if dtype in (np.float32, np.float64):
        tensors.append(helper.make_tensor("inline", kind, value.shape, value.ravel()))
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], tensors)), path)
    file = OnnxWeights(path)
    assert file.names == [tensor.name for tensor in tensors]
    for name in file.names:
        found = file.tensor(name)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": [2**40, 2**40]}, "needs 4835703278458516698824704 bytes, it has 24"),
        ({"dims": [-1, -6]}, "bytes, it has 24"),
        ({"dims": [0, 3]}, "needs 0 bytes, it has 24"),
        ({"dims": [1] * 40}, "more than 16 axes"),
        ({"data_type": 8}, "data type 8; known are float"),
        ({"data_location": 1}, "in another file"),
        (
            {
                "external_data": [
                    onnx.StringStringEntryProto(key="location", value="../../etc/passwd")
                ]
            },
            "in another file",
        ),
    ],
)
def test_hostile_weights_are_named(path, fields, message):
    with pytest.raises(
        UserError, match=rf"speech_tokenizer_v2\.onnx: weight 'w' cannot be read \(.*{message}"
    ):
        OnnxWeights(_write(path, np.ones((2, 3), np.float32), **fields)).tensor("w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 a zip", ""),
        (b"\x3a\x00\x3a\x00", "holds 2 graphs"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "runs past the end"),
        (b"\x3a" + b"\xff" * 30, "a number without an end"),
        (b"\x3a\x02\x28\x01", "a number where a message should be"),
        (b"\x3a\x04\x2a\x02\x42\x00" * 2, "holds 2 graphs"),
        (b"\x3a\x08" + b"\x2a\x02\x42\x00" * 2, "two weights are called ''"),
        (b"\x3b\x00", "wire type 3"),
        (b"\x02\x00", "a field without a number"),
        (b"\x3a\x05\x2a\x03\x42\x01\xff", "utf-8"),
    ],
)
def test_bytes_that_are_no_onnx(path, content, message):
    path.write_bytes(content)
    with pytest.raises(
        UserError,
        match=(
            r"speech_tokenizer_v2\.onnx is corrupt, cut short or no ONNX file "
            rf"\(.*{message}.*; fetch it again"
        ),
    ):
        OnnxWeights(path)


def test_a_damaged_file_loads_or_is_named(path, graph):
    """Cut anywhere, or with a byte changed in its nodes or at the head of a weight: never another
    error, and never two lines.
    """
    whole = graph.SerializeToString()
    heads = [match.start() for match in re.finditer(b"onnx::", whole)]
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(150):
        changed = bytearray(whole)
        changed[rng.choice(heads) + rng.integers(-20, 30)] = rng.integers(256)
        path.write_bytes(changed)
        errors.append(_error(path))
        path.write_bytes(whole[: rng.integers(len(whole))])
        errors.append(_error(path))
        assert errors[-1]
    assert not [text for text in errors if "\n" in text or len(text) > 400]


def _error(path):
    try:
        onnx_tensors(OnnxWeights(path))
    except UserError as error:
        return str(error)
    return ""


def test_other_models_are_named(path, graph):
    del graph.graph.node[0]
    onnx.save(graph, path)
    with pytest.raises(
        UserError,
        match=r"holds no S3 tokenizer v2: it has 1 front convolutions.* speech_tokenizer_v2\.onnx",
    ):
        load_s3_tokenizer(path, head_dim=32)
    with pytest.raises(UserError, match=r"tensors encoder\.blocks\.0\.\* have other shapes"):
        load_s3_tokenizer(SOURCE, head_dim=48)
    with pytest.raises(UserError, match=r"no S3 tokenizer v2: it has no encoder\.conv1\.weight"):
        load_s3_tokenizer(_safetensors(path.with_name("other.safetensors"), {"w": np.ones(3)}))


def test_a_layer_with_other_weights_is_named(path, graph):
    node = next(n for n in graph.graph.node if n.name == "/blocks.1/attn/key/MatMul")
    node.input[1] = "computed"
    onnx.save(graph, path)
    with pytest.raises(UserError, match=r"node /blocks\.1/attn/key/MatMul has 0 weights, not 1"):
        load_s3_tokenizer(path, head_dim=32)


def test_files_that_are_not_opened(tmp_path):
    with pytest.raises(UserError, match=r"model\.pt is a pickle"):
        load_s3_tokenizer(tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        load_s3_tokenizer(tmp_path / "none.onnx")
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        OnnxWeights(tmp_path / "none.onnx")


def _safetensors(path, tensors):
    write_tensors(path, tensors)
    return path
