"""`mdmspeech data --states --thinker DIR`: the states that Talkers with fixed anchors read, computed
once.
"""

from collections.abc import Sequence
from typing import Any

from mdmspeech.data.datasets.corpus import Root


def write(root: Root, thinker: str, parts: Sequence[str], system: str | None) -> dict[str, int]:
    """Writes them for the tokens of every part; returns dataset and split -> states.

    Args:
      thinker: as the weights.thinker of an experiment. system: text of the prompt's system turn, as
        the experiment's prompt.system; None: that of the experiments.

    Raises:
      UserError: no such Thinker, a part without tokens, or one of them without text.
    """
    import dataclasses

    import jax

    from mdmspeech.data.datasets.thinker_states import (
        check_tokens,
        states_name,
        write_thinker_states,
    )
    from mdmspeech.data.pipelines.conversations import Conversations
    from mdmspeech.interop import loaders, sources
    from mdmspeech.models.thinker import Thinker
    from mdmspeech.preprocessing.thinker_states import states_of
    from mdmspeech.text import prompts
    from mdmspeech.training.mesh import make_mesh, param_shardings

    for part in parts:  # before anything is loaded
        check_tokens(root, part)
    config = sources.open_thinker(thinker).config
    config = dataclasses.replace(config, scan_layers=True)
    prompt = prompts.PLAIN if system is None else dataclasses.replace(prompts.PLAIN, system=system)
    tokenizer: Any = loaders.load_tokenizer(thinker)
    chat = Conversations(tokenizer, prompt)
    mark = loaders.thinker_mark(thinker, config)
    # its parameters lie over all devices of this machine
    mesh = make_mesh(data=1, fsdp=len(jax.local_devices()), devices=jax.local_devices())
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    ids = jax.ShapeDtypeStruct((1, 2), "int32")
    shapes = jax.eval_shape(Thinker(config).init, jax.random.key(0), ids)["params"]
    shapes = {name: x for name, x in shapes.items() if name != "output"}
    with jax.set_mesh(mesh):
        like = jax.tree.map(
            lambda s, place: jax.ShapeDtypeStruct(s.shape, dtype, sharding=place),
            shapes,
            param_shardings(mesh, shapes),
        )
        compute = states_of(config, loaders.load_thinker(thinker, config, like))
        counts = {}
        for part in parts:
            made = write_thinker_states(root, part, chat, compute, mark, config.dim)
            counts |= {f"{states_name(part)} {split}": count for split, count in made.items()}
    return counts
