"""Plans of plain dense language models, beside what others have measured of such steps: how far the
bounds of `mdmspeech plan` can be believed.

Command:  python -m experiments.plan_dense [--only NAME]
Seen:     experiments/results/plan_dense.md
Models are of our own layers (a Thinker's), all parameters trained, in the sizes of the published
runs; their rows a chip are not published everywhere, here as many as fit.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdmspeech.evaluation.provenance import line, provenance
from mdmspeech.files import write_text
from mdmspeech.models.thinker import QWEN3_8B, Thinker, ThinkerConfig
from mdmspeech.nn import losses
from mdmspeech.nn.masks import causal
from mdmspeech.nn.partition import constrain
from mdmspeech.planning.plan import Plan, make_plan
from mdmspeech.planning.program import train_program
from mdmspeech.planning.topology import parse
from mdmspeech.training.config import base
from mdmspeech.training.task import Task

OUT = Path("experiments/results/plan_dense")
LLAMA = dict(rope_theta=500_000.0, norm_eps=1e-5, qk_norm=False)
LLAMA31_8B = dataclasses.replace(QWEN3_8B, vocab_size=128256, num_layers=32, ffn_dim=14336, **LLAMA)
# its published figure is of a gated layer four times as wide as the model
DENSE_16B = dataclasses.replace(
    LLAMA31_8B,
    vocab_size=32768,
    dim=6144,
    num_heads=48,
    num_kv_heads=48,
    ffn_dim=24576,
    num_layers=26,
)
LLAMA2_70B = dataclasses.replace(
    LLAMA31_8B, vocab_size=32000, dim=8192, num_heads=64, ffn_dim=28672, num_layers=80
)


class Measured(NamedTuple):
    """A step that others have timed. fsdp: chips that share the parameters, here; rows: of a chip;
    mfu: published (docs/planning.md names the sources).
    """

    model: ThinkerConfig
    slice_name: str
    fsdp: int
    length: int
    rows: int
    mfu: float


STEPS = {
    "dense_8b": Measured(LLAMA31_8B, "v6e-256", 256, 8192, 2, 0.45),
    "dense_16b": Measured(DENSE_16B, "v5e-256", 256, 2048, 4, 0.61),
    "llama2_70b_v5e": Measured(LLAMA2_70B, "v5e-256", 256, 2048, 3, 0.57),
    "llama2_70b_v5p": Measured(LLAMA2_70B, "v5p-1024", 512, 4096, 4, 0.65),
}


class DenseTask(Task):
    """A causal language model on whole rows of text."""

    name, unit, rows_apart = "dense", "tokens", True

    def __init__(self, model: ThinkerConfig, rows: int, length: int):
        self.model, self._shape = Thinker(model), (rows, length)

    def init(self, rng):
        return self.model.init(rng, jnp.zeros((1, 2), jnp.int32))["params"]

    def batch_spec(self):
        of = lambda dtype: jax.ShapeDtypeStruct(self._shape, dtype)
        return {"ids": of(jnp.int32), "target": of(jnp.int32), "weight": of(jnp.float32)}

    def loss(self, params, frozen, batch, rng, step):
        apply = lambda method, *args: self.model.apply({"params": params}, *args, method=method)
        positions_BT = jnp.arange(batch["ids"].shape[1])[None]
        x_BTD = apply("embed", batch["ids"])
        hidden_BTD, _ = apply("states", x_BTD, positions_BT, causal(x_BTD.shape[1]))
        matrix_DV = apply("output_matrix")
        project = lambda part: constrain(
            jnp.matmul(part, matrix_DV, preferred_element_type=jnp.float32),
            "batch",
            "length",
            "vocab",
        )
        found = losses.projected_cross_entropy(
            hidden_BTD, project, batch["target"], batch["weight"], chunk=512
        )
        return {"loss": found["loss"]}


def plan_of(name: str) -> Plan:
    """Of one of STEPS, every layer computed again."""
    step, config = STEPS[name], base()
    topology = parse(step.slice_name)
    task = DenseTask(step.model, step.rows * topology.chips, step.length)
    config.train.update(dtype="bfloat16", remat="full")
    return make_plan(
        name,
        "train",
        topology,
        dict(data=topology.chips // step.fsdp, fsdp=step.fsdp, tensor=1),
        lambda mesh: train_program(config, task, mesh),
        {"remat": "full", "dtype": "bfloat16", "accum": 1},
    )


def page(plans: dict[str, Plan]) -> str:
    """Markdown: published and planned, side by side."""
    head = "| step | slice | parameters | row | rows/chip | memory/chip | step | limit | MFU, planned | measured |"
    lines = [head, "|" + " --- |" * 10]
    for name, plan in plans.items():
        step, r = STEPS[name], plan.roofline
        count = sum(
            leaf.size
            for leaf in jax.tree.leaves(
                jax.eval_shape(DenseTask(step.model, 1, 2).init, jax.random.key(0))
            )
        )
        told = (
            f"{r.seconds_low:.2f} - {r.seconds_high:.2f} s | {r.limit} | {r.mfu_low:.0%} - {r.mfu:.0%}"
            if r
            else "does not fit | |"
        )
        lines.append(
            f"| {name} | {plan.slice_name} | {count / 1e9:.1f} B | {step.length:,} | {step.rows} | "
            f"{plan.needed / 2**30:.1f} GiB | {told} | {step.mfu:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", choices=["", *STEPS])
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    kept = OUT.with_suffix(".json")
    rows = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in [args.only] if args.only else STEPS:
        plan = plan_of(name)
        made = provenance(sizes={"plans": 1}, seeds={})
        rows[name] = {"plan": plan.to_json(), "made": made}
        print(f"{name}: needs {plan.needed / 2**30:.1f} GiB, {plan.seconds}", flush=True)
        write_text(kept, json.dumps(rows, indent=1) + "\n")
        jax.clear_caches()
    plans = {name: Plan.from_json(rows[name]["plan"]) for name in STEPS if name in rows}
    made = "\n".join(f"- {name}: {line(rows[name]['made'])}" for name in plans)
    write_text(
        OUT.with_suffix(".md"),
        "# Dense language models, planned and measured\n\n"
        "Made by `python -m experiments.plan_dense`; measured by others, see docs/planning.md.\n\n"
        f"{page(plans)}\n\n{made}\n",
    )
    print(page(plans))


if __name__ == "__main__":
    main()
