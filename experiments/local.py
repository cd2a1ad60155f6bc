"""`runlocal`: any experiment in small, on random data and random weights, a minute on a laptop. It
shows that the whole path works, and teaches nothing.
"""

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training.stages.build import stage_of


def switch(config: ConfigDict, argument: str) -> ConfigDict:
    """What `get_config(argument)` returns: for "" the config as it is, for "runlocal" the same
    stage in small (`Stage.tiny`).
    """
    if argument not in ("", "runlocal"):
        raise UserError(f"{argument!r}: the only argument an experiment takes is 'runlocal'")
    if not argument:
        return config
    stage_of(config.stage).tiny(config)
    if config.get("init_from"):
        config.init_from = "random"
    config.data.batch = 8
    config.data.parts = ("random",)
    config.train.update(steps=20, epochs=0.0, accum=1, log_every=5, eval_every=10, save_every=10)
    config.optim.update(warmup=5, warmup_share=0.0)
    config.mesh.update(data=-1, fsdp=1, tensor=1)
    return config
