"""CosyVoice2's incremental vocoder along a minute: milliseconds a block of 16 tokens (0.64 s), by
Euler steps and guidance, and how far few steps end from ten.

Command: make bench-vocoder (SECONDS=20 is shorter). Not an experiment with a config, and no test.

Sizes are the published ones, weights are random: time and memory are those of the real model,
quality is not. The distance between the mels of few and of ten steps is what such weights give; a
trained flow has straighter paths or bent ones, so measure it again with the published weights
(CODEC=their folder).
"""

import argparse
import time

import jax
import numpy as np

from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.codec.cosyvoice2.flow_batch import Prompt
from mdmspeech.codec.cosyvoice2.flow_stream import MelStream, StreamPlan, state_bytes
from mdmspeech.codec.cosyvoice2.hift_stream import WaveStream
from mdmspeech.interop.cosyvoice2 import cosyvoice2_shapes, load_cosyvoice2
from mdmspeech.speech_format import TOKEN_RATE

PLANS = [
    StreamPlan(),
    StreamPlan(steps=4),
    StreamPlan(steps=2),
    StreamPlan(guidance=0.0),
    StreamPlan(steps=4, guidance=0.0),
]  # the first is the measure
BLOCK, PROMPT, STRETCH = 16, 125, 25  # tokens, tokens (5 s), blocks of a column (16 s)


def random_params(config):
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        one = jax.tree_util.keystr(path[-1:]) in ("['scale']", "['alpha']")
        scale = 0.1 if one or leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5
        return one + scale * rng.standard_normal(leaf.shape, np.float32)

    shapes = cosyvoice2_shapes(config)
    return jax.tree_util.tree_map_with_path(fill, {name: shapes[name] for name in ("flow", "hift")})


def row(*cells):
    """A line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def run(config, params, plan, prompt, tokens):
    """(seconds [blocks, (flow, HiFT)], mel) of an utterance, block by block; neither compiling nor
    reading the prompt is in it.
    """
    first = 2 * (BLOCK - config.flow.encoder.lookahead)
    behind_prompt = MelStream(
        config.flow, plan, params["flow"], prompt, jax.random.split(jax.random.key(0), 1)
    )
    for blocks in (2, len(tokens) // BLOCK):  # the first time, it compiles
        mel, wave = (
            behind_prompt.copy(),
            WaveStream(config.hift, params["hift"], jax.random.key(1), 2 * BLOCK, first),
        )
        seconds, frames = [], []
        for ids in tokens[: blocks * BLOCK].reshape(blocks, BLOCK):
            began = time.perf_counter()
            frames.append(mel.push(ids))
            between = time.perf_counter()
            wave.push(frames[-1])
            seconds.append((between - began, time.perf_counter() - between))
    return np.array(seconds), np.concatenate(frames)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60, help="of speech")
    parser.add_argument(
        "--codec", default="", help="folder of the published weights; without: random ones"
    )
    args = parser.parse_args()
    config, params = load_cosyvoice2(args.codec) if args.codec else (CosyVoice2Config(), None)
    params = jax.device_put(
        random_params(config)
        if params is None
        else {name: params[name] for name in ("flow", "hift")}
    )
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, config.flow.vocab_size, args.seconds * TOKEN_RATE // BLOCK * BLOCK)
    prompt = Prompt(
        rng.integers(0, config.flow.vocab_size, PROMPT),
        rng.normal(-6, 2, (2 * PROMPT, 80)).astype(np.float32),
        rng.normal(size=192),
    )
    print(
        f"{jax.devices()[0].device_kind}, "
        f"{'published' if args.codec else 'random'} weights, {args.seconds} s "
        "of speech, a prompt of 5 s\n"
    )
    starts = range(0, max(len(tokens) // BLOCK - STRETCH // 2, 1), STRETCH)
    row(
        "steps",
        "guidance",
        "state, MB",
        *(f"ms a block from {start * BLOCK // TOKEN_RATE} s" for start in starts),
        "of that HiFT",
        "x real time",
        "mel, mean distance to the first row",
    )
    row(*["---"] * (6 + len(starts)))
    first = None
    for plan in PLANS:
        seconds, mel = run(config, params, plan, prompt, tokens)
        first = mel if first is None else first
        total = seconds.sum(axis=1)
        times = (f"{1e3 * np.median(total[start : start + STRETCH]):.0f}" for start in starts)
        speed = BLOCK / TOKEN_RATE / np.median(total)
        size = state_bytes(config.flow, plan) / 1e6
        row(
            plan.steps,
            plan.guidance,
            f"{size:.0f}",
            *times,
            f"{1e3 * np.median(seconds[:, 1]):.0f}",
            f"{speed:.2f}",
            f"{np.abs(mel - first).mean():.3f}",
        )
    print(f"\n(the mel's own standard deviation is {first.std():.2f})")


if __name__ == "__main__":
    main()
