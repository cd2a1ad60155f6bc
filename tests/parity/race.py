"""SmolLM2 in ours and in `transformers`, tokens a second: python tests/parity/race.py (part of
`make parity`; a few minutes).

Both in this one process, on the same two cores, float32, the same weights and prompts, in turns;
medians. Compiling and a first run do not count. PyTorch runs eagerly with its default attention and
cache, called step by step without the machinery of `generate`.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from reference import llama_of

from mdmspeech.interop import sources
from mdmspeech.models.generation import empty_state, jit_extend, jit_generate
from mdmspeech.models.prepared_thinker import PreparedThinker

CORES, ROUNDS = 2, 5
PROMPT, SHORT, NEW = 512, 32, 48  # tokens read, tokens read before the answer, tokens of the answer
TOKENS = {"prefill": PROMPT, "decode": NEW}


def ours(loaded: sources.LoadedThinker, ids: np.ndarray) -> dict[str, tuple[Callable, Callable]]:
    """What is timed -> (what is done before: its argument, what is timed: returns tokens)."""
    model, params = PreparedThinker.of(loaded.config, jax.tree.map(jnp.asarray, loaded.params))
    batch = len(ids)
    embed = jax.jit(lambda ids: model.apply({"params": params}, ids, method="embed"))
    keys = jax.random.split(jax.random.key(0), batch)

    def read(length, room):
        return jit_extend(
            model,
            params,
            empty_state(model, batch, room),
            embed(ids[:, :length]),
            jnp.full(batch, length, jnp.int32),
        )[1]

    def decode(state):
        return np.asarray(
            jit_generate(model, params, state, keys, stop_ids=(-1,), max_new=NEW).tokens_BN
        )

    prefill = lambda _: np.asarray(read(PROMPT, PROMPT).logits_BV.argmax(-1))
    return {
        "prefill": (lambda: None, prefill),
        "decode": (lambda: jax.block_until_ready(read(SHORT, SHORT + NEW)), decode),
    }


def theirs(model: torch.nn.Module, ids: np.ndarray) -> dict[str, tuple[Callable, Callable]]:
    """The same in PyTorch, under `torch.inference_mode`."""
    given = torch.tensor(ids)
    read = lambda length: model(given[:, :length], use_cache=True, logits_to_keep=1)

    def decode(out):
        tokens = []
        for _ in range(NEW):
            tokens.append(out.logits[:, -1:].argmax(-1))
            out = model(tokens[-1], past_key_values=out.past_key_values, use_cache=True)
        return torch.cat(tokens, 1).numpy()

    return {
        "prefill": (lambda: None, lambda _: read(PROMPT).logits[:, -1].argmax(-1).numpy()),
        "decode": (lambda: read(SHORT), decode),
    }


@torch.inference_mode()
def race(loaded: sources.LoadedThinker, model: torch.nn.Module, what: str, batch: int) -> str:
    """Medians and ranges of both, in words."""
    ids = np.random.default_rng(0).integers(0, loaded.config.vocab_size, (batch, PROMPT))
    runs = {"ours": ours(loaded, ids)[what], "transformers": theirs(model, ids)[what]}
    rates = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        results = {}
        for name in sorted(runs, reverse=turn % 2 == 0):
            prepare, run = runs[name]
            prepared = prepare()
            start = time.perf_counter()
            results[name] = run(prepared)
            if turn:  # the first compiles, or warms up
                rates[name].append(batch * TOKENS[what] / (time.perf_counter() - start))
    assert (results["ours"] == results["transformers"]).mean() > 0.5, "they do not say the same"
    return ", ".join(
        f"{name} {statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
        for name, found in rates.items()
    )


def main() -> None:
    if hasattr(os, "sched_setaffinity"):  # before either starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    loaded = sources.load_thinker(official=False)
    with tempfile.TemporaryDirectory() as folder:
        model = llama_of(loaded, Path(folder) / "exported")
    asked = [("prefill", 1), ("decode", 1), ("decode", 8)]
    print(
        json.dumps(
            {
                f"{what}, {rows} x {TOKENS[what]} tokens, tokens/s": race(loaded, model, what, rows)
                for what, rows in asked
            }
        )
    )


if __name__ == "__main__":
    main()
