"""Sizes of the whole of CosyVoice2's codec; the defaults are those of the published CosyVoice2-0.5B
(257 M parameters without its language model).
"""

import dataclasses

from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.s3_tokenizer import S3Config
from mdmspeech.errors import UserError


@dataclasses.dataclass(frozen=True)
class CosyVoice2Config:
    """S3 tokenizer (speech -> tokens), flow (tokens -> mel) and HiFT (mel -> speech)."""

    tokenizer: S3Config = dataclasses.field(default_factory=S3Config)
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    hift: HiFTConfig = dataclasses.field(default_factory=HiFTConfig)

    def __post_init__(self):
        made, taken = self.flow.estimator.num_mels, self.hift.num_mels
        if made != taken:
            raise UserError(
                f"the flow makes {made} mel bins and HiFT takes {taken}: they are "
                "of two models; give files of one"
            )
