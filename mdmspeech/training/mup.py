"""The maximal update parametrisation, muP, of the Talker: rules of the optimiser by parameter path.

Source: Yang et al. 2022, "Tensor Programs V: Tuning Large Neural Networks by Zero-Shot
Hyperparameter Transfer" (arXiv 2203.03466), table 8, for Adam. Under it the best learning rate of a
narrow model is that of a wide one. With m = width / base width:

    what              initial variance   rate      factor in the forward pass
    input, vectors    as at the base     lr        1
    hidden matrices   1 / fan in         lr / m    1
    output matrices   as at the base     lr        1 / m, or less variance at the start
    attention scores                               1 / head size, not its root

The factors are settings of the model (`TalkerConfig.base_dim`), the rates follow here. At the base
width all of it is the standard parametrisation. It says nothing of depth.
"""

from mdmspeech.errors import UserError
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.training.optim import ParamRule

_LAYER = r"(mtp_)?layers_\d+/(attn/[qkvo]|mlp/(gate|up|down))/kernel"
# Both sides grow with the width.
HIDDEN = rf"(anchors/)?{_LAYER}|anchors/(duration_in|join|fuse_out)/kernel"
# The width is summed over, and what comes out has a size of its own.
OUTPUT = r"outputs/(table|digits)|anchors/duration_out/kernel"
# Only what comes out is as wide as the model: tables, vectors, and what reads something else.
INPUT = (
    r"inputs/(table|digits)|anchors/(embed/)?embedding|anchors/null|output_bias"
    r"|anchors/(inside|fuse_in)/kernel|(.*/)?(bias|scale)"
)


def rules(config: TalkerConfig, weight_decay: float) -> tuple[ParamRule, ...]:
    """One rule for each kind of parameter of a Talker; none is left over, so that a new kind must be
    given its place above (see `optim.match_rules`).

    weight_decay: of the experiment. That of hidden matrices grows as their rate falls: what is taken
      off in an update, their product, stays (as in the authors' package, `mup.MuAdamW`).

    Raises:
      UserError: the config is of the standard parametrisation.
    """
    if not config.base_dim:
        raise UserError("talker.base_dim is 0: give the width at which the rates were found")
    times = config.dim / config.base_dim
    return (
        ParamRule(HIDDEN, lr=1.0 / times, weight_decay=weight_decay * times),
        ParamRule(OUTPUT),
        ParamRule(INPUT),
    )
