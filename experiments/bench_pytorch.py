"""Our Talker beside the same Talker in PyTorch, eager and compiled: tokens a second. Benchmark only:
nothing else of ours runs on PyTorch.

The same weights as our engine has them (q, k, v and gate, up in one product each, code tables
folded, the output table filled up to whole 128s), float32, batch 1, greedy, the same forwards: one
a token of next-token decoding, S a block of masked diffusion with the commit of a block in the first
forward of the next. PyTorch has these advantages: conditions are given to it, ours makes them inside
the decoding; it keeps no confidences and looks for no end; it attends to no more slots than the
utterance has tokens (ours: 144); and its first block has no scratch block in front.

Command:   make bench-pytorch
Hardware:  any CPU with 8 GB of memory and nothing else running; a C++ compiler (g++) for
           torch.compile. Four minutes on 2 cores, after a first run that compiles.
Writes:    experiments/results/bench_pytorch.json and .md. Weights: the shipped compact Talker's;
           of d1024 random ones.

T tokens of one forward, L positions of the utterance, K block, D width, H heads, E head size, V
rows of the output table.
"""

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdmspeech.evaluation.provenance import line, provenance
from mdmspeech.evaluation.report import write_json
from mdmspeech.evaluation.speed.machine import Times, interleaved
from mdmspeech.evaluation.speed.talkers import SIZES, STEPS, Way, text_of_blocks
from mdmspeech.files import write_text
from mdmspeech.inference.conditioning import PacedText
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.inference.utterance import Utterance, advance
from mdmspeech.interop.release import load_part
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.nn.rope import rope_frequencies
from mdmspeech.speech_format import BOS, CODES, MASK, VOCAB

WAYS = (Way("ntp"), *(Way("mdm", steps) for steps in STEPS))
OURS, EAGER, COMPILED = "ours", "PyTorch eager", "torch.compile"
EQUAL = 0.99  # share of tokens that must be ours; sums are rounded differently, so a tie may break

Caches = Sequence[tuple[Tensor, Tensor]]  # keys and values of each layer, both [L, H, E]


class Layer(nn.Module):
    """One layer of the trunk, from prepared weights (`nn.feature_major.prepare`)."""

    def __init__(self, config: TalkerConfig, weights: Any):
        super().__init__()
        attention, mlp = weights["attn"], weights["mlp"]
        self.heads, self.eps = config.num_heads, config.norm_eps
        self.scale = config.score_scale * config.head_dim**-0.5
        self.qkv, self.o = _linear(attention["qkv"]), _linear(attention["o"])
        self.gate_up, self.down = _linear(mlp["gate_up"]), _linear(mlp["down"])
        self.attn_norm = _weight(weights["attn_norm"]["scale"])
        self.mlp_norm = _weight(weights["mlp_norm"]["scale"])
        qk_norm = [np.asarray(attention[f"{name}_norm"]["scale"]) for name in "qk"]
        # queries and keys in one: the same norm and rotation, few operations
        self.qk_norm_JE = _weight(np.repeat(np.stack(qk_norm), self.heads, axis=0))

    def forward(self, x_TD, cos_T1E, sin_T1E, mask_TL, at_T, cache) -> Tensor:
        """cache: written at `at_T`, then all of it is attended to where `mask_TL` is 0."""
        normed_TD = F.rms_norm(x_TD, x_TD.shape[-1:], self.attn_norm, self.eps)
        all_T3HE = self.qkv(normed_TD).view(len(x_TD), 3 * self.heads, -1)
        qk_TJE, v_THE = all_T3HE.split((2 * self.heads, self.heads), dim=1)
        qk_TJE = F.rms_norm(qk_TJE, qk_TJE.shape[-1:], eps=self.eps) * self.qk_norm_JE
        first, second = qk_TJE.chunk(2, dim=-1)
        qk_TJE = qk_TJE * cos_T1E + torch.cat((-second, first), dim=-1) * sin_T1E
        q_THE, k_THE = qk_TJE.chunk(2, dim=1)
        k_LHE, v_LHE = cache
        k_LHE.index_copy_(0, at_T, k_THE)
        v_LHE.index_copy_(0, at_T, v_THE)
        q_1HTE, k_1HLE, v_1HLE = (x.transpose(0, 1)[None] for x in (q_THE, k_LHE, v_LHE))
        out_1HTE = F.scaled_dot_product_attention(
            q_1HTE, k_1HLE, v_1HLE, attn_mask=mask_TL, scale=self.scale
        )
        x_TD = x_TD + self.o(out_1HTE[0].transpose(0, 1).reshape(len(x_TD), -1))
        normed_TD = F.rms_norm(x_TD, x_TD.shape[-1:], self.mlp_norm, self.eps)
        gate, up = self.gate_up(normed_TD).chunk(2, dim=-1)
        return x_TD + self.down(F.silu(gate) * up)


class TorchTalker(nn.Module):
    """The trunk and output layer of a Talker, and the greedy draw.

    Args:
      params: as `PreparedTalker.of` gives them. length: L, tokens of the utterances.
    """

    def __init__(self, config: TalkerConfig, params: Any, length: int):
        super().__init__()
        self.config, self.length = config, length
        self.layers = nn.ModuleList(Layer(config, weights) for weights in params["layers"])
        self.inputs = _weight(params["inputs"])
        self.norm = _weight(params["norm"]["scale"])
        self.outputs = _linear({"weight": np.asarray(params["outputs_DV"]).T})
        angles_LF = np.arange(length, dtype=np.float32)[:, None] * rope_frequencies(
            config.head_dim, config.rope_theta
        )
        angles_L1E = np.concatenate([angles_LF, angles_LF], axis=1)[:, None]
        self.register_buffer("cos", torch.tensor(np.cos(angles_L1E)))
        self.register_buffer("sin", torch.tensor(np.sin(angles_L1E)))
        for name, block in (("causal", 1), ("block_causal", config.block)):
            of_L = torch.arange(length) // block
            seen_LL = of_L[None, :] <= of_L[:, None]
            self.register_buffer(name, torch.where(seen_LL, 0.0, -torch.inf))

    def caches(self) -> Caches:
        """Empty ones, of one utterance."""
        size = self.length, self.config.num_heads, self.config.head_dim
        return [(torch.zeros(size), torch.zeros(size)) for _ in self.layers]

    def forward(self, ids_T, cond_TD, at_T, mask_LL, caches, count: int) -> Tensor:
        """Logits [count, V] of the last `count` of T tokens at positions `at_T`."""
        x_TD = F.embedding(ids_T, self.inputs) + cond_TD
        cos_T1E, sin_T1E, mask_TL = self.cos[at_T], self.sin[at_T], mask_LL[at_T]
        for layer, cache in zip(self.layers, caches, strict=True):
            x_TD = layer(x_TD, cos_T1E, sin_T1E, mask_TL, at_T, cache)
        x_TD = F.rms_norm(x_TD[-count:], x_TD.shape[-1:], self.norm, self.config.norm_eps)
        return self.outputs(x_TD * self.config.output_scale)

    def next_token(self, ids_1, cond_1D, at_1, caches) -> Tensor:
        """The token at `at_1` behind the one before it."""
        logits_1V = self(ids_1, cond_1D, at_1, self.causal, caches, 1)
        return logits_1V[:, :CODES].argmax(-1)

    def unmask(self, before, ids_K, masked_K, count, cond_TD, at_T, caches):
        """One step: (ids, masked) with `count` (a tensor) more of the masked places filled, the
        surest first. before: clean tokens of the block before, to be committed, or none.
        """
        ids_T = torch.cat((before, ids_K))
        logits_KV = self(ids_T, cond_TD, at_T, self.block_causal, caches, len(ids_K))
        top_K, best_K = logits_KV[:, :CODES].max(-1)
        # rows behind only fill the table up
        logits_KV = logits_KV[:, :VOCAB]
        others_KV = torch.exp(logits_KV - top_K[:, None]).scatter(1, best_K[:, None], 0.0)
        # log-probability as log1p: how sure of two sure places is surer (diffusion/unmasking.py)
        score_K = -torch.log1p(others_KV.sum(-1))
        score_K = torch.where(masked_K, score_K, -torch.inf)
        order_K = torch.argsort(score_K, descending=True, stable=True)
        in_turn_K = torch.arange(len(ids_K)) < count
        chosen_K = torch.zeros_like(masked_K).scatter(0, order_K, in_turn_K) & masked_K
        return torch.where(chosen_K, best_K, ids_K), masked_K & ~chosen_K


class Decoding:
    """Our two ways of decoding, over the functions of a `TorchTalker`.

    Args:
      compiled: what turns a function into a faster one (torch.compile); None: eager.
    """

    def __init__(self, model: TorchTalker, cond_LD: Tensor, compiled: Callable | None = None):
        self.model, self.cond_LD, self.at_L = model, cond_LD, torch.arange(model.length)
        self.next_token: Callable = model.next_token
        self.unmask: Callable = model.unmask
        if compiled is not None:
            self.next_token, self.unmask = compiled(model.next_token), compiled(model.unmask)
        self.caches = model.caches()  # whatever stands in them is never seen before it is written

    @torch.inference_mode()
    def say(self, way: Way) -> np.ndarray:
        """Tokens int [L]."""
        said = self._one_by_one() if way.mode == "ntp" else self._block_by_block(way.steps)
        return torch.cat(said).numpy()

    def _one_by_one(self) -> list[Tensor]:
        said = [torch.tensor([BOS])]
        for at_1, cond_1D in zip(self.at_L.split(1), self.cond_LD.split(1), strict=True):
            said.append(self.next_token(said[-1], cond_1D, at_1, self.caches))
        return said[1:]

    def _block_by_block(self, steps: int) -> list[Tensor]:
        block, said = self.model.config.block, []
        nothing = torch.zeros(0, dtype=torch.int64)
        counts = [torch.tensor(n) for n in unmasked_counts(block, steps)]
        for start in range(0, self.model.length, block):
            ids_K, masked_K = torch.full((block,), MASK), torch.ones(block, dtype=torch.bool)
            for step, count in enumerate(counts):
                before = said[-1] if said and step == 0 else nothing
                here = slice(start - len(before), start + block)
                ids_K, masked_K = self.unmask(
                    before,
                    ids_K,
                    masked_K,
                    count,
                    self.cond_LD[here],
                    self.at_L[here],
                    self.caches,
                )
            said.append(ids_K)
        return said


def unmasked_counts(block: int, steps: int) -> list[int]:
    """How many places each step fills: the even share of those left."""
    counts: list[int] = []
    for left in range(min(steps, block), 0, -1):
        counts.append(-(-(block - sum(counts)) // left))
    return counts


def _weight(array: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.ascontiguousarray(array)), requires_grad=False)


def _linear(params: Any) -> nn.Linear:
    """From a weight [N, K], without a bias."""
    weight = _weight(params["weight"])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = weight
    return layer


def conditions(engine: TalkerEngine, text: PacedText, length: int) -> Tensor:
    """Conditions [L, D] of a text, by ours."""
    cond_1LD = text.inputs.condition(engine.talker, engine.params, np.arange(length)[None])
    return torch.tensor(np.asarray(cond_1LD)[0])


def ours(engine: TalkerEngine, text: PacedText, way: Way, blocks: int) -> np.ndarray:
    """Tokens int [L] of a whole utterance, by our engine."""
    one = Utterance(engine, text, steps=way.steps, seed=0)
    advance([one], blocks)
    return one.ended().tokens


def compare(
    config: TalkerConfig, params: Any, compiled: Callable, blocks: int, rounds: int, told: Callable
) -> list[dict[str, Any]]:
    """One row a way: times of the three in turns, and how many of PyTorch's tokens are ours.
    RuntimeError: fewer than `EQUAL` of them.
    """
    engines = {mode: TalkerEngine(config, params, mode) for mode in ("mdm", "ntp")}
    one = engines["mdm"]
    text, length = text_of_blocks(one, blocks), blocks * config.block
    model, cond_LD = TorchTalker(one.config, one.params, length), conditions(one, text, length)
    eager, faster = Decoding(model, cond_LD), Decoding(model, cond_LD, compiled)
    said: dict[str, list[np.ndarray]] = {}

    def remembered(name: str, job: Callable[[], np.ndarray]) -> Callable[[], None]:
        return lambda: said.setdefault(name, []).append(job())

    jobs: dict[str, Callable] = {}
    for way in WAYS:
        mine = functools.partial(ours, engines[way.mode], text, way, blocks)
        theirs = {
            name: functools.partial(decoding.say, way)
            for name, decoding in ((EAGER, eager), (COMPILED, faster))
        }
        for name, job in {OURS: mine, **theirs}.items():
            jobs[f"{way.name} {name}"] = remembered(f"{way.name} {name}", job)
    times = interleaved(jobs, rounds, told)
    equal = {}
    for way in WAYS:
        expected = np.array(said[f"{way.name} {OURS}"])  # of every round
        for name in (f"{way.name} {EAGER}", f"{way.name} {COMPILED}"):
            equal[name] = float(np.mean(np.array(said[name]) == expected))
    for name, share in equal.items():
        if share < EQUAL:
            raise RuntimeError(f"{name}: only {share:.1%} of its tokens are ours")
    return [_row(way.name, times, equal, length) for way in WAYS]


def _row(way: str, times: dict[str, Times], equal: dict[str, float], length: int) -> dict[str, Any]:
    mine = times[f"{way} {OURS}"]
    row: dict[str, Any] = {"way": way, OURS: {"tokens_per_second": round(length / mine.median, 1)}}
    for name in (EAGER, COMPILED):
        theirs = times[f"{way} {name}"]
        # both of one round, so that a slow moment of the machine hits both
        ratios = [a / b for a, b in zip(theirs.seconds, mine.seconds, strict=True)]
        low, high = np.percentile(ratios, [25, 75])
        row[name] = {
            "tokens_per_second": round(length / theirs.median, 1),
            "ours_is_times_as_fast": round(statistics.median(ratios), 2),
            "quartiles": [round(float(low), 2), round(float(high), 2)],
            "equal_tokens": equal[f"{way} {name}"],
        }
    return row


def page(result: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    out = [
        "# Our Talker beside the same one in PyTorch",
        "",
        line(result["made"], also=f", torch {result['made']['versions']['torch']}"),
        "",
        f"Tokens a second of one utterance, batch 1, float32, greedy, {result['torch']['threads']} "
        "threads each, in turns. The same weights, forwards and fused commit; PyTorch is given the "
        "conditions, keeps no confidences and attends to fewer slots. torch.compile: fixed "
        f"shapes, {result['torch']['compile']}. Ratios are of the same round: median (quartiles).",
    ]
    for size, rows in result["sizes"].items():
        out += ["", f"## {size}", ""]
        out += [
            "| | ours | PyTorch eager | torch.compile | ours / eager | ours / compiled | equal |"
        ]
        out += ["|" + " --- |" * 7]
        for row in rows:
            speeds = [f"{row[name]['tokens_per_second']:,.0f}" for name in (OURS, EAGER, COMPILED)]
            ratios = [
                "{ours_is_times_as_fast:.2f} ({0:.2f} .. {1:.2f})".format(
                    *row[name]["quartiles"], **row[name]
                )
                for name in (EAGER, COMPILED)
            ]
            equal = min(row[name]["equal_tokens"] for name in (EAGER, COMPILED))
            out.append("| " + " | ".join([row["way"], *speeds, *ratios, f"{equal:.1%}"]) + " |")
    return "\n".join(out) + "\n"


def weights(size: str) -> tuple[TalkerConfig, Any, str]:
    """(config, parameters, whose they are): the shipped ones of compact, else random ones."""
    if size == "compact":
        part = load_part("compact", "talker")
        return part.config, part.params, "shipped"
    config = SIZES[size]
    return config, jax.jit(talker.init, static_argnums=0)(config, jax.random.key(0)), "random"


# ways to call torch.compile; on 2 cores of an AMD EPYC none is clearly faster than the default
COMPILING: dict[str, dict[str, Any]] = {
    "default": {},
    "max-autotune": {"mode": "max-autotune-no-cudagraphs"},
    "freezing": {"options": {"freezing": True}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", nargs="+", default=["compact", "d1024"], choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=4, help="of which medians are taken")
    parser.add_argument("--blocks", type=int, default=4, help="of 16 tokens, of the utterance")
    parser.add_argument(
        "--compile", default="default", choices=list(COMPILING), help="torch.compile's mode"
    )
    parser.add_argument("--out", help="stem of the result: a JSON file and a page")
    args = parser.parse_args()
    made = provenance(sizes={"rounds": args.rounds, "blocks": args.blocks}, seeds={"weights": 0})
    made["versions"]["torch"] = torch.__version__
    torch.set_num_threads(made["cores"])
    compiled = functools.partial(torch.compile, dynamic=False, **COMPILING[args.compile])
    sizes = {}
    for size in args.size:
        config, params, whose = weights(size)
        told = lambda text, size=size: print(f"{size}: {text}", file=sys.stderr, flush=True)
        rows = compare(config, params, compiled, args.blocks, args.rounds, told)
        sizes[f"{size}, {whose} weights"] = rows
        torch.compiler.reset()
    about = {"threads": made["cores"], "compile": args.compile}
    result = {"made": made, "torch": about, "sizes": sizes}
    print(page(result))
    if args.out:
        write_json(Path(f"{args.out}.json"), result)
        write_text(Path(f"{args.out}.md"), page(result))


if __name__ == "__main__":
    main()
