"""What to change when a plan does not fit, with the figures that say so."""

from typing import Any

from mdmspeech.planning.units import size

_STATE = ("parameters", "optimizer", "average", "frozen", "cache")


def advise(plan: Any, settings: dict[str, Any]) -> list[str]:
    """Sentences, the most promising change first.

    Args:
      plan: a `plan.Plan` that does not fit.
      settings: remat, dtype, accum and ema of the configuration, where they apply.
    """
    memory, mesh = plan.memory, plan.mesh
    held = sum(memory.get(name, 0) for name in _STATE)
    temporaries = memory.get("temporaries", 0)
    limit = int(0.9 * plan.available)
    shards = mesh["data"] * mesh["fsdp"]
    rows = plan.rows / shards / settings.get("accum", 1)
    says: list[str] = []
    if held and mesh["data"] > 1 and held > limit / 4:
        factor = mesh["data"]
        says.append(
            f"split the state further: it takes {size(held)} of {size(plan.available)} a chip with "
            f"fsdp={mesh['fsdp']}; mesh.fsdp={mesh['fsdp'] * factor} (data=1) would make it about "
            f"{size(held / factor)}"
        )
    if temporaries > limit / 4:
        remat = settings.get("remat")
        if remat in ("none", "dots"):
            better = "dots, or full" if remat == "none" else "full"
            says.append(
                f"compute more again: temporaries take {size(temporaries)} with "
                f"train.remat={remat}; try {better}"
            )
        if settings.get("dtype") == "float32":
            says.append(
                "compute in half the bytes: train.dtype=bfloat16 about halves the "
                f"{size(temporaries)} of temporaries"
            )
        if rows >= 2:
            accum = settings.get("accum", 1)
            says.append(
                f"smaller micro-batches: each chip works on {rows:g} rows at a "
                f"time; train.accum={accum * 2} (or half the batch) "
                f"would need about {size(temporaries / 2)} of temporaries"
            )
        if mesh["tensor"] < 8:
            says.append(
                f"split activations: mesh.tensor={mesh['tensor'] * 2} splits heads and hidden "
                "units, at the price of two all-reduces a layer"
            )
    if memory.get("average"):
        says.append(f"no averaged parameters: optim.ema=0 saves {size(memory['average'])} a chip")
    if settings.get("dtype") == "float32" and memory.get("frozen", 0) > limit / 8:
        says.append(
            "frozen parameters in bfloat16 (train.dtype): saves "
            f"{size(memory['frozen'] / 2)} a chip"
        )
    if held > limit and mesh["data"] == 1:
        says.append(
            f"a larger slice or chip: the state alone takes {size(held)} a chip of "
            f"{size(plan.available)}, split {mesh['fsdp'] * mesh['tensor']} ways"
        )
    return says or [
        (
            f"a larger slice or a chip with more memory: {size(plan.needed)} are "
            f"needed, {size(limit)} of {size(plan.available)} should be used"
        )
    ]
