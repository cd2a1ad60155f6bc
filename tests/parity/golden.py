"""The sizes of golden models, from the JSON beside their arrays, as configs of ours."""

import json
from pathlib import Path
from typing import Any

from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig
from mdmspeech.codec.cosyvoice2.flow_encoder import FlowEncoderConfig
from mdmspeech.codec.cosyvoice2.flow_estimator import FlowEstimatorConfig
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig

COSYVOICE2 = Path(__file__).parents[1] / "fixtures" / "cosyvoice2"


def sizes(name: str) -> dict[str, Any]:
    """What the fixture's reference was constructed with."""
    return json.loads((COSYVOICE2 / f"{name}.json").read_text())["config"]


def estimator_config(given: dict[str, Any]) -> FlowEstimatorConfig:
    return FlowEstimatorConfig(
        num_mels=given["out_channels"],
        channels=given["channels"],
        num_heads=given["heads"],
        head_dim=given["head_dim"],
        stage_num_layers=given["n_blocks"],
        mid_stages=given["num_mid_blocks"],
    )


def flow_config(given: dict[str, Any]) -> FlowConfig:
    encoder = given["encoder"]
    return FlowConfig(
        vocab_size=given["vocab_size"],
        encoder=FlowEncoderConfig(
            dim=encoder["d"],
            num_heads=encoder["heads"],
            ffn_dim=encoder["ffn"],
            num_layers=encoder["num_blocks"],
        ),
        estimator=estimator_config(given["estimator"]),
    )


def hift_config(given: dict[str, Any]) -> HiFTConfig:
    return HiFTConfig(
        base_channels=given["base_channels"],
        overtones=given["nb_harmonics"],
        f0_channels=given["f0_channels"],
    )
