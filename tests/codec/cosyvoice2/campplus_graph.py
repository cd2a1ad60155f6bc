"""An ONNX graph that takes and gives what campplus.onnx does, small enough to make in a test."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_campplus(path, num_mels=80, axes=3):
    """mean over frames of |features| -> [192]; features [B, T, 80]. Returns the matrix."""
    matrix = np.random.default_rng(0).normal(size=(num_mels, 192)).astype(np.float32)
    nodes = [
        helper.make_node("Abs", ["input"], ["size"]),
        helper.make_node("ReduceMean", ["size", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["output"]),
    ]
    shape = ["B", "T", num_mels] if axes == 3 else ["T", num_mels]
    ends = (
        helper.make_tensor_value_info("input", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, None),
    )
    weights = [
        numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.array([axes - 2], np.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    return matrix
