"""How much of this machine's matrix-product rate a training step reaches: stage 2 (and the others)
of a Talker of some width, on random tokens.

Command:  python -m experiments.bench_step [--width 512] [--dtype bfloat16] [--precision bfloat16] [--mode mdm]
Seen:     2 cores of an Intel Xeon, 2026-11-21, nothing else running: ratio 0.59 (width 512, 34 M
          parameters; 168 of 286 GFLOP/s), 0.70 (--width 1024 --layers 4 --batch 8, 94 M; 200 of 285
          GFLOP/s). With --precision bfloat16, 2026-12-01: 300 and 443 of 1,380 GFLOP/s; without it a step
          took 1.38 and 1.70 times as long.
Prints:   FLOPs of the step (see `training.mfu`), seconds (median), the rate, the rate of a plain
          matrix product in the same process, and their ratio; with --precision bfloat16 (see
          `nn.matmul_precision`) also a step without it, timed in turn.
"""

import argparse
import statistics
import time
from typing import Any

import jax

from experiments import compact_talker
from mdmspeech.cli.experiment import make_task
from mdmspeech.nn.matmul_precision import PRECISIONS
from mdmspeech.training import mesh as meshes
from mdmspeech.training.mfu import matmul_rate, model_flops
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.state import create_frozen, create_state
from mdmspeech.training.step import make_train_step

SIZES = (1024, 2048, 4096)  # of the square matrices whose product is the measure


def config_of(width: int, layers: int, batch: int, length: int, mode: str, dtype: str):
    """compact_talker in another size, on random tokens."""
    config = compact_talker.get_config()
    config.mode = mode
    config.init_from = "random" if mode == "isd" else ""
    config.talker.update(
        dim=width,
        num_layers=layers,
        num_heads=max(width // 64, 1),
        ffn_dim=-(-width * 8 // 3 // 64) * 64,
    )
    config.data.update(parts=("random",), batch=batch, length=length, symbols=length)
    config.train.dtype = dtype
    if mode == "isd":
        config.distillation = dict(iterations=4)
    return config


def seconds_of(step, state, frozen, batch) -> tuple[float, Any]:
    """What one update took, and the state after it."""
    began = time.perf_counter()
    state, metrics = step(state, frozen, batch)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - began, state


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--mode", default="mdm", choices=("mdm", "isd", "ntp"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--precision", default="default", choices=PRECISIONS)
    parser.add_argument("--steps", type=int, default=7)
    args = parser.parse_args()

    config = config_of(args.width, args.layers, args.batch, args.length, args.mode, args.dtype)
    task, mesh, rng = make_task(config, "unused"), meshes.make_mesh(data=1), jax.random.key(0)
    optimizer = make_optimizer(
        config.optim, args.steps, jax.eval_shape(task.init, rng), task.optimizer
    )
    state, frozen = (
        create_state(task.init, optimizer, rng, False, mesh),
        create_frozen(task, mesh, args.dtype),
    )
    batch = meshes.put_batch(mesh, numbers_of(dict(next(iter(task.batches("train", 0))))))
    flops = model_flops(task, optimizer, state.params, frozen, batch)
    steps = {
        precision: jax.jit(
            make_train_step(task, optimizer, dtype=args.dtype, precision=precision),
            donate_argnums=0,
        )
        for precision in dict.fromkeys(("default", args.precision))
    }
    for step in steps.values():  # compiles
        _, state = seconds_of(step, state, frozen, batch)
    seconds: dict[str, list[float]] = {precision: [] for precision in steps}
    rates = []
    for _ in range(args.steps):
        # beside every step: other jobs on the machine slow both
        rates.append(matmul_rate(args.dtype, args.precision, SIZES))
        for precision, step in steps.items():
            took, state = seconds_of(step, state, frozen, batch)
            seconds[precision].append(took)
    took, rate = statistics.median(seconds[args.precision]), statistics.median(rates)
    count = sum(x.size for x in jax.tree.leaves(state.params))
    print(
        f"{jax.devices()[0].device_kind}, {args.mode}, width {args.width}, "
        f"{args.layers} layers, {count / 1e6:.1f} M parameters, {args.dtype}, "
        f"{args.precision} precision of products"
    )
    print(
        f"{flops / 1e9:.1f} GFLOP a step, {took:.3f} s: {flops / took / 1e9:.1f} "
        f"GFLOP/s; plain product {rate / 1e9:.1f} GFLOP/s"
    )
    print(f"ratio {flops / took / rate:.2f} (median of {args.steps} pairs)")
    if args.precision != "default":
        plain = statistics.median(seconds["default"])
        print(f"default precision in turn: {plain:.3f} s a step, {plain / took:.2f} times as long")


if __name__ == "__main__":
    main()
