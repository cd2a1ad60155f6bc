"""How fast other Thinkers write, and what memory they need, on this machine: real quantised files,
and published shapes with weights of no meaning.

Command: python -m experiments.bench_thinker --thinker qwen2.5-coder-0.5b-instruct-q4_k_m.gguf

Writes bench_thinker.json and a page beside it into experiments/results; let nothing else run. Every
row runs in a process of its own: the Thinker alone, its greedy answers token by token, without a
voice beside it. The first answer compiles and is not counted; "second start" is from opening it to
the end of the first token where its converted copy and its programs are kept. `read` is what a
token reads: all weights, of an embedding that is not the output layer too one row only.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "How do plants make their food?",
    "Tell me about the moon.",
)
SHAPES = ("LLAMA32_1B",)
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEW = {"float32": 32, "bfloat16": 8}  # tokens of an answer, at most


def runner(what: str, dtype: str):
    """(the Thinker at work, its config, name)."""
    import dataclasses

    import jax
    import numpy as np

    from mdmspeech.data.pipelines.random_source import byte_tokenizer
    from mdmspeech.inference.thinker_runner import ThinkerRunner
    from mdmspeech.interop import sources
    from mdmspeech.interop.any_thinker import open_any_thinker
    from mdmspeech.interop.huggingface import thinker_shapes
    from mdmspeech.models import thinker
    from mdmspeech.models.prepared_thinker import prepared
    from mdmspeech.text.prompts import PLAIN

    how = {"max_new": NEW[dtype], "stop_repetition": what not in SHAPES}
    if what in SHAPES:
        config = dataclasses.replace(getattr(thinker, what), scan_layers=False)
        shapes = jax.eval_shape(prepared, thinker_shapes(config))
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, dtype), shapes)
        chat = byte_tokenizer()
        chat.stop_ids = (1,)  # it writes the first token only
        return ThinkerRunner(config, params, chat, PLAIN, **how), config
    path = sources._package_file(*sources._SMOLLM2_FILE, "", "") if what == SMOLLM2 else what
    loaded = open_any_thinker(path, "compact", dtype).load(to_run=True)
    return ThinkerRunner(
        loaded.config, loaded.params, loaded.tokenizer, PLAIN, keep=loaded.keep, **how
    ), loaded.config


def measure(what: str, dtype: str) -> dict:
    """One row, in this process."""
    import math

    import jax

    from mdmspeech.cli.compiled import keep_programs
    from mdmspeech.hardware import peak_memory
    from mdmspeech.interop.huggingface import thinker_shapes

    keep_programs()
    began = time.perf_counter()
    one, config = runner(what, dtype)
    one.warm_up()
    started = time.perf_counter() - began
    rates, answers = [], []
    for question in QUESTIONS:
        pieces = one.answer(one.read([one.question(question)]))
        text, count = next(pieces).text, 0
        start = time.perf_counter()
        for piece in pieces:
            text, count = text + piece.text, piece.count
        if count > 1:
            rates.append((count - 1) / (time.perf_counter() - start))
        answers.append(text.strip())
    size = {"float32": 4, "bfloat16": 2}[dtype]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(thinker_shapes(config)))
    unread = 0 if config.tie_embeddings else config.vocab_size * config.dim
    return {
        "thinker": Path(what).name,
        "dtype": dtype,
        "parameters": count,
        "weights_gb": round(count * size / 1e9, 2),
        "tokens_per_s": round(statistics.median(rates), 2),
        "read_gb_per_s": round(statistics.median(rates) * (count - unread) * size / 1e9, 1),
        "peak_gb": round(peak_memory() / 1e9, 2),
        "start_s": round(started, 1),
        "answers": answers if what not in SHAPES else [],
    }


def page(result: dict) -> str:
    """Markdown."""
    from mdmspeech.evaluation.provenance import line

    lines = [
        "# How fast other Thinkers write\n",
        line(result["made"]),
        "\n| Thinker | computes in | parameters, M | weights, GB | peak memory, GB | tokens/s | read, GB/s |"
        " second start, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        name = f"{row['thinker']} (shape alone)" if row["thinker"] in SHAPES else row["thinker"]
        lines.append(
            f"| {name} | {row['dtype']} | {row['parameters'] / 1e6:.0f} | {row['weights_gb']:.2f} | "
            f"{row['peak_gb']:.2f} | {row['tokens_per_s']:.1f} | {row['read_gb_per_s']:.1f} | "
            f"{row['start_s'] or ''} |"
        )
    lines.append("\nAnswers, of 32 tokens at most:\n")
    for row in result["rows"]:
        if row["answers"] and row["dtype"] == "float32":
            lines += [f"- {row['thinker']}: " + " | ".join(row["answers"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--thinker", nargs="*", default=[], metavar="FILE", help="more real ones, .gguf or folders"
    )
    parser.add_argument("--row", nargs=2, metavar=("WHAT", "DTYPE"), help="only this, printed")
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(*args.row)))
        return
    from mdmspeech.evaluation.provenance import provenance

    cases = [(what, "float32") for what in (SMOLLM2, *args.thinker, *SHAPES)]
    cases += [(what, "bfloat16") for what in (SMOLLM2, *args.thinker)]
    rows = []
    for what, dtype in cases:
        command = [sys.executable, "-m", "experiments.bench_thinker", "--row", what, dtype]
        starts = 2 if dtype == "float32" and what not in SHAPES else 1
        for _ in range(starts):
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        rows[-1]["start_s"] = rows[-1]["start_s"] if starts == 2 else None
        print(rows[-1], flush=True)
    made = provenance(sizes={"questions": len(QUESTIONS), "tokens": NEW["float32"]}, seeds={})
    result = {"made": made, "rows": rows}
    out = RESULTS / "bench_thinker.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(result))


if __name__ == "__main__":
    main()
