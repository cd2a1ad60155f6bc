"""SmolLM2 in ours and in `transformers`, tokens a second: python tests/parity/race.py (part of `make parity`; about three minutes).

Both in this one process, on the same two cores, float32, the same weights and prompts, in turns; medians. Compiling and a first run do not count.
PyTorch runs eagerly with its default attention and cache, called step by step without the machinery of `generate`.
"""

import json
import os
import statistics
import time
from collections.abc import Callable

CORES, ROUNDS = 2, 5
PROMPT, NEW = 512, 48  # tokens

if hasattr(os, "sched_setaffinity"):  # before either starts its threads
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

import jax
import jax.numpy as jnp
import numpy as np
import torch
from reference import llama_of

from mdmspeech.interop import sources
from mdmspeech.models.generation import empty_state, jit_extend, jit_generate
from mdmspeech.models.thinker import Thinker


def runners(batch: int) -> dict[str, dict[str, Callable[[], None]]]:
    """Who -> what -> one run of it."""
    loaded = sources.load_thinker(official=False)
    model, params = Thinker(loaded.config), jax.tree.map(jnp.asarray, loaded.params)
    ids = np.random.default_rng(0).integers(0, loaded.config.vocab_size, (batch, PROMPT))
    short, room = 32, 32 + NEW
    embed = jax.jit(lambda ids: model.apply({"params": params}, ids, method="embed"))
    keys = jax.random.split(jax.random.key(0), batch)

    def read(length, room):
        full = jnp.full(batch, length, jnp.int32)
        return jax.block_until_ready(jit_extend(model, params, empty_state(model, batch, room), embed(ids[:, :length]), full)[1])

    state = read(short, room)
    theirs, given = llama_of(loaded), torch.tensor(ids)

    @torch.inference_mode()
    def torch_read(length):
        return theirs(given[:, :length], use_cache=True, logits_to_keep=1)

    def torch_decode(out):
        cache = out.past_key_values
        token, tokens = out.logits[:, -1:].argmax(-1), []
        for _ in range(NEW):
            tokens.append(token)
            token = theirs(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        return torch.cat(tokens, 1)

    def timed(prepare, run):
        def once():
            prepared = prepare()
            start = time.perf_counter()
            run(prepared)
            return time.perf_counter() - start

        return once

    decode = lambda _: jax.block_until_ready(jit_generate(model, params, state, keys, stop_ids=(-1,), max_new=NEW).tokens_BN)
    mine, other = np.asarray(decode(None)), torch.inference_mode()(torch_decode)(torch_read(short)).numpy()
    assert (mine == other).mean() > 0.5, "these are not the same models"
    return {
        "ours": {"prefill": timed(lambda: None, lambda _: read(PROMPT, PROMPT)), "decode": timed(lambda: None, decode)},
        "transformers": {
            "prefill": timed(lambda: None, lambda _: torch_read(PROMPT)),
            "decode": timed(lambda: torch_read(short), torch.inference_mode()(torch_decode)),
        },
    }


def main() -> None:
    torch.set_num_threads(CORES)
    said = {}
    for batch in (1, 8):
        who = runners(batch)
        for what, tokens in (("prefill", PROMPT), ("decode", NEW)):
            seconds = {name: [] for name in who}
            for turn in range(ROUNDS + 1):
                for name in sorted(who, reverse=turn % 2 == 0):
                    spent = who[name][what]()
                    if turn:  # the first compiles, or warms up
                        seconds[name].append(spent)
            rates = {name: batch * tokens / statistics.median(values) for name, values in seconds.items()}
            spread = {name: f"{batch * tokens / max(v):.0f} to {batch * tokens / min(v):.0f}" for name, v in seconds.items()}
            shown = ", ".join(f"{name} {rate:.0f} ({spread[name]})" for name, rate in sorted(rates.items()))
            said[f"{what} of {tokens} tokens, {batch} row{'s' * (batch > 1)}, tokens/s"] = shown
    print(json.dumps(said))


if __name__ == "__main__":
    main()
