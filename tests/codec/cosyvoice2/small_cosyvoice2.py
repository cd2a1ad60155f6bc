"""A small random CosyVoice2 codec for tests: every kind of layer, but few of each, as compiling is
what takes time.
"""

import jax
import numpy as np

from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig, Prompt
from mdmspeech.codec.cosyvoice2.flow_encoder import FlowEncoderConfig
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimatorConfig
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.s3_tokenizer import S3Config
from mdmspeech.interop.cosyvoice2 import cosyvoice2_shapes

CONFIG = CosyVoice2Config(
    S3Config(num_mels=16, dim=16, num_layers=1, num_heads=2, ffn_dim=32, memory=5),
    FlowConfig(
        encoder=FlowEncoderConfig(dim=16, num_heads=2, ffn_dim=32, num_layers=1, up_num_layers=1),
        estimator=FlowEstimatorConfig(
            channels=16, num_heads=2, head_dim=8, stage_num_layers=1, mid_stages=0
        ),
    ),
    HiFTConfig(
        base_channels=16,
        resblock_kernels=(3,),
        source_kernels=(3, 3, 5),
        dilations=(1, 3),
        f0_channels=8,
        f0_num_layers=2,
        overtones=3,
    ),
)


def small_params(config: CosyVoice2Config = CONFIG) -> dict:
    """Random parameters, biases included; HiFT hums at 150 Hz, give or take."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.05
        return (
            scale * rng.normal(size=leaf.shape) + (("alpha" in name) or ("scale" in name))
        ).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(fill, cosyvoice2_shapes(config))
    params["hift"]["decoder"]["post"]["kernel"] *= 0.5
    out = params["hift"]["f0_predictor"]["out"]
    out["kernel"], out["bias"] = 20.0 * out["kernel"], np.float32([150])
    return params


def small_voice(tokens: int = 21, seed: int = 0, config: CosyVoice2Config = CONFIG) -> Prompt:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, config.flow.vocab_size, tokens).astype(np.int32)
    mel = rng.normal(size=(2 * tokens, config.flow.estimator.num_mels)).astype(np.float32)
    return Prompt(ids, mel, rng.normal(size=config.flow.speaker_dim).astype(np.float32))
