"""From counts to time: between which bounds a step lies, and what keeps it from being faster. An
estimate, never a measurement.

`seconds_low`: the compiled schedule, every instruction at the rate of the chip, networks and copies
beside it where the schedule lets them; but no resource is used faster than it is. `seconds_high`:
every instruction as long as the compiler estimates it from its shapes (that is the utilisation of
the matrix and vector units), and nothing overlaps. docs/planning.md sets published utilisation of
similar steps beside it.
"""

import dataclasses

from mdmspeech.planning.collectives import DCN_S, HOP_S, Collective
from mdmspeech.planning.schedule import KERNEL_SHARE, Times
from mdmspeech.planning.topology import Topology

ASSUMPTIONS = (
    (
        "shortest step: every instruction takes the longer of its FLOPs at the bfloat16 peak "
        "(matrices padded to the unit's tiles) and its HBM bytes at the published bandwidth; "
        "copies and collectives run beside what the compiled schedule puts between their start "
        "and their end; never less than any one of compute, HBM and links needs alone"
    ),
    (
        "longest step: every instruction takes as many cycles as the TPU compiler itself "
        f"estimates, Pallas attention kernels {KERNEL_SHARE:.0%} of the peak, and nothing overlaps"
    ),
    (
        f"links at their published rates and {HOP_S * 1e6:.0f} us a hop; between slices each chip "
        f"has its share of its host's network, and a transfer {DCN_S * 1e6:.0f} us of latency"
    ),
    (
        "FLOPs are those of matrix products and convolutions, counted before "
        "compilation; attention counts the tiles a mask leaves"
    ),
    (
        "HBM bytes: every instruction of the compiled program reads and writes HBM "
        "once, except what the compiler keeps on the chip"
    ),
    "no waiting for data, host, checkpoints or restarts: `mdmspeech cost` adds those",
)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Attributes:
    compute, hbm, ici, dcn: seconds of each alone, at its rate. limit: the largest of them.
    exposed: seconds that the shortest step waits for networks and copies.
    seconds_low, seconds_high: of a step, see above.
    mfu, mfu_low: model FLOPs utilisation at `seconds_low`, at `seconds_high`.
    rate, rate_low: units/s, all chips together, at `seconds_low` and `seconds_high`.
    """

    compute: float
    hbm: float
    ici: float
    dcn: float
    limit: str
    exposed: float
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
    times: Times,
    units: int,
) -> Roofline:
    """Times of one call. flops, model_flops and units: over all chips; hbm_bytes, collectives and
    times: of one. chips: those in the mesh.
    """
    chip = topology.tpu.chip
    alone = {
        "compute": flops / (chips * chip.bf16_flops),
        "hbm": hbm_bytes / chip.bandwidth,
        **{net: sum(c.seconds for c in collectives if c.network == net) for net in ("ici", "dcn")},
    }
    # copies beside an instruction share the bandwidth with it, which the schedule does not show
    low = max(times.scheduled, *alone.values())
    high = max(low, times.estimated + sum(times.serial.values()))
    peak = chips * chip.bf16_flops
    return Roofline(
        **alone,
        limit=max(alone, key=lambda name: alone[name]),
        exposed=sum(times.exposed.values()),
        seconds_low=low,
        seconds_high=high,
        mfu=model_flops / peak / low,
        mfu_low=model_flops / peak / high,
        rate=units / low,
        rate_low=units / high,
    )
