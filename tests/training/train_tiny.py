"""One process of a real run of a small task, for tests that need processes to kill: `python
train_tiny.py WORKDIR --steps 12 ...`.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save-every", type=int, default=2)
    parser.add_argument("--eval-every", type=int, default=4)
    parser.add_argument("--log-every", type=int, default=1)
    parser.add_argument("--width", type=int, default=16, help="of the hidden layer")
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--data", default="", help="corpus whose tokens are read, on a disk or not")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to make a batch")
    parser.add_argument(
        "--fail-at",
        type=int,
        default=-1,
        help="record whose batch raises an error on the process that makes it",
    )
    parser.add_argument("--bad", type=int, default=None, help="record that is no number")
    parser.add_argument("--on-nan", default="stop")
    parser.add_argument("--coordinator", default="")
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--process", type=int, default=-1)
    parser.add_argument("--tpu-vm", action="store_true", help="find the others as on a TPU VM")
    parser.add_argument("--join-s", type=float, default=120.0)
    parser.add_argument("--heartbeat-s", type=float, default=10.0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    import jax
    import jax.numpy as jnp
    import numpy as np
    from tiny import Numbers, TinyTask, tiny_config

    from mdmspeech.data.datasets import corpus
    from mdmspeech.data.pipelines.talker_packed import PacedText, packed_talker_batches
    from mdmspeech.training import distributed, joining
    from mdmspeech.training.loop import train

    class Paced(Numbers):
        def __next__(self):
            time.sleep(args.pause)
            batch = super().__next__()
            if f"record-{args.fail_at}" in batch["id"]:
                raise ValueError(f"record-{args.fail_at} is damaged")
            return batch

    class Spoken:
        """Rows of a dataset's speech tokens, packed as a Talker has them, as the task's numbers."""

        def __init__(self, root, seed, rows, pause):
            self._pause = pause
            self._packed = packed_talker_batches(
                {"open": corpus.tokens(root, ("open",), "train")},
                PacedText(64, 0.04),
                batch=rows,
                length=64,
                block=16,
                eos=6561,
                pad=6563,
                seed=seed,
                shard=distributed.share(),
            )
            self.get_state, self.set_state = self._packed.get_state, self._packed.set_state

        def __iter__(self):
            return self

        def __next__(self):
            time.sleep(self._pause)
            batch = next(self._packed)
            x = (batch["tokens"][:, :6] / 6561 - 0.5).astype(np.float32)
            mask = np.ones(len(x), np.float32)
            return {"x": x, "y": x.sum(-1, keepdims=True), "mask": mask, "id": batch["id"]}

    class Wide(TinyTask):
        def init(self, rng):
            a, b = jax.random.split(rng)
            return {
                "in": {
                    "kernel": 0.3 * jax.random.normal(a, (6, args.width)),
                    "bias": jnp.zeros((args.width,)),
                },
                "out": {
                    "kernel": 0.3 * jax.random.normal(b, (args.width, 1)),
                    "bias": jnp.zeros((1,)),
                },
            }

        def batches(self, split, seed):
            if args.data:
                return Spoken(args.data, seed, self.size, args.pause)
            return Paced(seed, self.size, self.bad, distributed.share())

    config = tiny_config(
        steps=args.steps,
        save_every=args.save_every,
        eval_every=args.eval_every,
        log_every=args.log_every,
        on_nan=args.on_nan,
    )
    config.mesh.fsdp = args.fsdp
    if args.tpu_vm:  # on the CPU: JAX, which has found no chip, forbids to ask the metadata server
        env = {name: text for name, text in os.environ.items() if name != "TPU_SKIP_MDS_QUERY"}
        peers = joining.find_peers(env, platforms="tpu,cpu", libtpu=True, ask=joining.Metadata(env))
        args.coordinator, args.processes, args.process = (
            peers.coordinator,
            peers.count,
            peers.number,
        )
    with distributed.session(
        args.coordinator,
        args.processes,
        args.process,
        join_s=args.join_s,
        heartbeat_s=args.heartbeat_s,
    ):
        train(config, Wide(bad=args.bad), args.workdir)


if __name__ == "__main__":
    main()
