"""Names of CosyVoice2's `flow.pt` (as a safetensors file) -> parameters of our flow.

The names are the file format's own; they come from the modules of FunAudioLLM/CosyVoice
(cosyvoice/flow, cosyvoice/transformer) and Matcha-TTS.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mdmspeech.codec.cosyvoice2.flow import Flow
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig
from mdmspeech.codec.cosyvoice2.flow_encoder import FlowEncoderConfig
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimatorConfig
from mdmspeech.interop.rules import CONV1D, LINEAR, TensorRule, import_params


def flow_params(
    config: FlowConfig, tensors: Mapping[str, np.ndarray], source: str, dtype: Any = np.float32
) -> dict[str, Any]:
    """Tensors under their names in flow.pt -> flow parameters. Raises UserError as `import_params`."""
    return import_params(tensors, flow_rules(config), flow_shapes(config), source, dtype)


def flow_shapes(config: FlowConfig) -> Any:
    """Abstract parameter tree of a flow; nothing is allocated."""
    return jax.eval_shape(Flow(config).init, jax.random.key(0))["params"]


def flow_rules(config: FlowConfig) -> list[TensorRule]:
    """Where each parameter of the flow comes from."""
    return [
        TensorRule("embedding/embedding", "input_embedding.weight"),
        *_linear("speaker", "spk_embed_affine_layer"),
        *encoder_rules(config.encoder, "encoder/", "encoder."),
        *_linear("projection", "encoder_proj"),
        *estimator_rules(config.estimator, "estimator/", "decoder.estimator."),
    ]


def encoder_rules(config: FlowEncoderConfig, ours: str = "", theirs: str = "") -> list[TensorRule]:
    """Where each parameter of the encoder comes from, under these prefixes."""
    rules = _norm(f"{ours}norm", f"{theirs}after_norm") + _conv(
        f"{ours}up", f"{theirs}up_layer.conv"
    )
    for name in ("embed", "up_embed"):
        rules += _linear(f"{ours}{name}/linear", f"{theirs}{name}.out.0") + _norm(
            f"{ours}{name}/norm", f"{theirs}{name}.out.1"
        )
    for name in ("conv1", "conv2"):
        rules += _conv(f"{ours}lookahead/{name}", f"{theirs}pre_lookahead_layer.{name}")
    for i in range(config.num_layers):
        rules += _conformer(f"{ours}block_{i}/", f"{theirs}encoders.{i}.")
    for i in range(config.up_num_layers):
        rules += _conformer(f"{ours}up_block_{i}/", f"{theirs}up_encoders.{i}.")
    return rules


def estimator_rules(
    config: FlowEstimatorConfig, ours: str = "", theirs: str = ""
) -> list[TensorRule]:
    """Where each parameter of the estimator comes from, under these prefixes."""
    rules = _linear(f"{ours}time1", f"{theirs}time_mlp.linear_1") + _linear(
        f"{ours}time2", f"{theirs}time_mlp.linear_2"
    )
    stages = {"down": "down_blocks.0.", "up": "up_blocks.0."}
    stages |= {f"mid_{i}": f"mid_blocks.{i}." for i in range(config.mid_stages)}
    for mine, name in stages.items():
        rules += _stage(config, f"{ours}{mine}/", f"{theirs}{name}")
    rules += _conv(f"{ours}after_down", f"{theirs}down_blocks.0.2") + _conv(
        f"{ours}after_up", f"{theirs}up_blocks.0.2"
    )
    rules += _conv(f"{ours}final", f"{theirs}final_block.block.0") + _norm(
        f"{ours}final_norm", f"{theirs}final_block.block.2"
    )
    return rules + _conv(f"{ours}out", f"{theirs}final_proj")


def _stage(config: FlowEstimatorConfig, ours: str, theirs: str) -> list[TensorRule]:
    rules = _linear(f"{ours}convs/time", f"{theirs}0.mlp.1") + _conv(
        f"{ours}convs/skip", f"{theirs}0.res_conv"
    )
    for n in (1, 2):
        block = f"{theirs}0.block{n}.block"
        rules += _conv(f"{ours}convs/conv{n}", f"{block}.0") + _norm(
            f"{ours}convs/norm{n}", f"{block}.2"
        )
    for i in range(config.stage_num_layers):
        mine, name = f"{ours}block_{i}/", f"{theirs}1.{i}."
        rules += [
            TensorRule(f"{mine}{n}/kernel", f"{name}attn1.to_{n}.weight", LINEAR) for n in "qkv"
        ]
        rules += _linear(f"{mine}o", f"{name}attn1.to_out.0")
        rules += _linear(f"{mine}fc1", f"{name}ff.net.0.proj") + _linear(
            f"{mine}fc2", f"{name}ff.net.2"
        )
        rules += _norm(f"{mine}attn_norm", f"{name}norm1") + _norm(
            f"{mine}mlp_norm", f"{name}norm3"
        )
    return rules


def _conformer(ours: str, theirs: str) -> list[TensorRule]:
    rules = [
        TensorRule(f"{ours}attn/content_bias", f"{theirs}self_attn.pos_bias_u"),
        TensorRule(f"{ours}attn/position_bias", f"{theirs}self_attn.pos_bias_v"),
        TensorRule(f"{ours}attn/position/kernel", f"{theirs}self_attn.linear_pos.weight", LINEAR),
    ]
    for short, long in {"q": "q", "k": "k", "v": "v", "o": "out"}.items():
        rules += _linear(f"{ours}attn/{short}", f"{theirs}self_attn.linear_{long}")
    for n in (1, 2):
        rules += _linear(f"{ours}fc{n}", f"{theirs}feed_forward.w_{n}")
    return (
        rules
        + _norm(f"{ours}attn_norm", f"{theirs}norm_mha")
        + _norm(f"{ours}mlp_norm", f"{theirs}norm_ff")
    )


def _linear(ours: str, theirs: str) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}/kernel", f"{theirs}.weight", LINEAR),
        TensorRule(f"{ours}/bias", f"{theirs}.bias"),
    ]


def _conv(ours: str, theirs: str) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}/kernel", f"{theirs}.weight", CONV1D),
        TensorRule(f"{ours}/bias", f"{theirs}.bias"),
    ]


def _norm(ours: str, theirs: str) -> list[TensorRule]:
    return [
        TensorRule(f"{ours}/scale", f"{theirs}.weight"),
        TensorRule(f"{ours}/bias", f"{theirs}.bias"),
    ]
