"""The settings every training run has. An experiment starts from `base()` and adds its own sections
(model, data, ...).
"""

from typing import Any

from ml_collections import ConfigDict

# May differ between a checkpoint and the run that resumes it: they change where and how long it
# runs, not what is computed.
VOLATILE = (
    "train.steps",  # reported when it differs: the learning rate schedule follows it
    "train.epochs",  # likewise
    "train.minutes",
    "train.max_hours",
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "train.keep",
    "train.keep_best",
    "train.keep_best_mode",
    "train.new_data",
    "train.prefetch",
    "train.profile",
    "train.peak_flops",
    "train.remat",
    "optim.decay_share",  # branches of one run differ in it
    "train.on_nan",
    "hours",
    "mesh",
)
# Words that a setting of every run may have; those of a stage are `Stage.choices`.
CHOICES: dict[str, tuple[str, ...]] = {
    "train.dtype": ("float32", "bfloat16"),
    "train.matmul_precision": ("default", "bfloat16"),
    "train.remat": ("none", "dots", "full"),
    "train.on_nan": ("stop", "skip", "rollback"),
    "train.reduce_dtype": ("compute", "float32"),
    "train.keep_best_mode": ("min", "max"),
    "optim.schedule": ("cosine", "linear", "constant", "wsd"),
}


def base() -> ConfigDict:
    """Defaults of the sections `train`, `optim` and `mesh`. All durations are in steps (updates)."""
    config = ConfigDict()
    config.train = ConfigDict(
        dict(
            steps=1000,  # end of the run and of the learning rate schedule; 0 = by `epochs`
            # passes over the data that the run makes: its steps follow from the records, see
            # training.epochs; 0 = by `steps`
            epochs=0.0,
            # also stop after this much training time, over all resumptions; 0 = no limit
            minutes=0.0,
            # what all starts of the run may take together, by its ledger.json, lost steps included:
            # then it saves and ends with exit code 2, so that nothing starts it again; 0 = no limit
            max_hours=0.0,
            seed=0,  # initialisation, dropout and masks, order of the data
            accum=1,  # micro-batches per update
            # of the computation, or "bfloat16"; parameters and their updates are float32
            dtype="float32",
            # of matrix products in updates (not in evaluations): what the machine takes (default), or
            # factors rounded to bfloat16 as on a TPU, quick on a CPU with AMX, see nn.matmul_precision
            matmul_precision="default",
            # in which gradients are added over the devices of the data axis: that of the computation
            # (compute) or float32
            reduce_dtype="compute",
            # what layers compute again for their gradient: none | dots | full, see nn.stack
            remat="none",
            log_every=20,
            eval_every=500,  # 0 = only at the end
            save_every=500,
            # what becomes of an update whose loss or gradient is no number: the run stops | the
            # update is left out | the run goes back to its last checkpoint and past those records,
            # see training.nonfinite
            on_nan="stop",
            keep=2,  # newest checkpoints to keep
            # and the best by this score of the evaluations, such as "held_out/token"; "" = none
            keep_best="",
            keep_best_mode="min",  # the best score is the smallest (min) or the largest (max)
            prefetch=2,  # batches made ahead by a thread
            # resume on other data (sources added, removed or made anew; other `data` settings): their
            # stream starts from the beginning. Without it such a run is refused
            new_data=False,
            # trace these updates: (first, how many), see training.profiler; (0, 0) = none
            profile=(0, 0),
            peak_flops=0.0,  # of one device, for the MFU; 0 = from `hardware`, or measured on a CPU
        )
    )
    config.optim = ConfigDict(
        dict(
            lr=1e-3,
            schedule="cosine",  # cosine | linear | constant | wsd (warm-up, stable, decay)
            decay_share=0.2,  # wsd: the last share of all steps, in which the rate goes down
            warmup=100,  # steps
            warmup_share=0.0,  # of all steps, in place of `warmup`; 0 = by that
            final=0.0,  # last learning rate as a fraction of lr
            b1=0.9,
            b2=0.98,
            eps=1e-8,
            weight_decay=0.01,
            clip=1.0,  # global gradient norm; 0 = off
            ema=0.0,  # decay of the averaged parameters; 0 = none
        )
    )
    # devices per axis; data=-1 = all; slices: see training.mesh.make_mesh, 0 = as the devices say
    config.mesh = ConfigDict(dict(data=-1, fsdp=1, tensor=1, slices=0))
    return config


def differences(saved: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What differs between two configs (nested dicts) as lines "a.b: 1 -> 2": (those that matter,
    those in `VOLATILE`, and those of the data where `train.new_data` says so).
    """
    # the same as not there: what earlier versions wrote into every run, and what they did not have
    unset: dict[str, Any] = {"init_from": "", "codec.semantic": 0.0, "codec.semantic_dim": 512}
    unset |= {"train.epochs": 0.0, "train.on_nan": "stop", "optim.warmup_share": 0.0}
    unset |= {"train.reduce_dtype": "compute", "train.matmul_precision": "default"}
    unset |= {"optim.decay_share": 0.2}
    old, new = unset | _flat(saved), unset | _flat(now)
    hard: list[str] = []
    soft: list[str] = []
    may_differ = (*VOLATILE, *(("data",) if new.get("train.new_data") else ()))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, "absent") != new.get(key, "absent"):
            volatile = any(key == v or key.startswith(v + ".") for v in may_differ)
            (soft if volatile else hard).append(
                f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
            )
    return hard, soft


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {prefix + str(key): value}
        )
    return flat
