"""From counts to time: how long a step takes at least, and what keeps it from being faster. An
estimate, never a measurement.

Assumed: matrix units at their bfloat16 peak; HBM and every link at their published rate; nothing
waits for data or for the host. Between `seconds_low` (the three overlap perfectly) and
`seconds_high` (they follow one another) lies what a good run can hope for; real steps are slower
than `seconds_low` always, and often near `seconds_high`.
"""

import dataclasses

from mdmspeech.planning.collectives import Collective
from mdmspeech.planning.topology import Topology

ASSUMPTIONS = (
    "matrix units run at the bfloat16 peak (float32 products are several times slower)",
    (
        "HBM and links run at their published rates, without latency; collectives "
        "of one chip follow one another, and use all links of their mesh axis"
    ),
    (
        "FLOPs are those of matrix products and convolutions, counted before "
        "compilation; attention counts the tiles a mask leaves"
    ),
    (
        "HBM bytes: every instruction of the compiled program reads and writes HBM "
        "once, except what the compiler keeps on the chip"
    ),
    (
        "step time lies between the largest of the three times (perfect overlap) "
        "and their sum (none); no waiting for data or host"
    ),
)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Attributes:
    compute, hbm, ici: seconds of each alone.
    limit: the largest of them. seconds_low, seconds_high: max and sum.
    mfu: upper bound of model FLOPs utilisation, at `seconds_low`; mfu_low at `seconds_high`.
    rate, rate_low: units/s, all chips together, at `seconds_low` and `seconds_high`.
    """

    compute: float
    hbm: float
    ici: float
    limit: str
    seconds_low: float
    seconds_high: float
    mfu: float
    mfu_low: float
    rate: float
    rate_low: float


def estimate(
    topology: Topology,
    chips: int,
    flops: float,
    model_flops: float,
    hbm_bytes: float,
    collectives: list[Collective],
    units: int,
) -> Roofline:
    """Times of one call. flops, model_flops and units: over all chips; hbm_bytes and collectives:
    of one. chips: those in the mesh.
    """
    chip = topology.tpu.chip
    times = {
        "compute": flops / (chips * chip.bf16_flops),
        "hbm": hbm_bytes / chip.bandwidth,
        "ici": sum(c.seconds for c in collectives),
    }
    low, high = max(times.values()), sum(times.values())
    peak = chips * chip.bf16_flops
    return Roofline(
        **times,
        limit=max(times, key=lambda name: times[name]),
        seconds_low=low,
        seconds_high=high,
        mfu=model_flops / peak / low,
        mfu_low=model_flops / peak / high,
        rate=units / low,
        rate_low=units / high,
    )
