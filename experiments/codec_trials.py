"""What a semantic auxiliary loss is worth to the compact codec: the same short run of phase 1 without
it and with several weights, judged by words that a recogniser understands.

Command:  mdmspeech data --hours 2 --parts open --root DIR
          mdmspeech data --states --parts open --root DIR
          python -m experiments.codec_trials --data DIR
Writes:   experiments/results/codec_trials.*: figures, page, curves. It resumes by itself;
          --workdir keeps the runs.

All runs have the same data, seed, steps and schedule. Validation recordings are encoded to tokens,
decoded to mels by the run's decoder, and made sound by Griffin-Lim, which needs no training: phase
1 leaves the wave head as it was drawn. Beside them stand the recordings themselves and Griffin-Lim
from their true mels, which is the best that this way of listening allows.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from experiments import compact_codec
from mdmspeech.audio.mel import mel_filters
from mdmspeech.cli.experiment import make_task
from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.data.datasets.corpus import speech
from mdmspeech.evaluation.codec import code_usage
from mdmspeech.evaluation.griffin_lim import from_log_mel
from mdmspeech.evaluation.provenance import line, provenance
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.testset import spread, wave_of
from mdmspeech.padding import stack
from mdmspeech.training import loop
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.warm_start import load_params

RESULTS, NAME = Path(__file__).parent / "results", "codec_trials"
CURVES = ("mel", "phone_accuracy", "semantic")
_TOGETHER = 8  # recordings decoded at once


def name_of(weight: float) -> str:
    """Of a run."""
    return f"semantic-{weight:g}" if weight else "baseline"


def config_of(weight: float, args: argparse.Namespace):
    """The experiment of one run."""
    config = compact_codec.get_config()
    config.codec.semantic = weight
    config.data.update(parts=("open",), batch=args.batch, tokens=args.tokens)
    config.train.update(
        steps=args.steps, log_every=10, eval_every=args.every, save_every=50, keep=1
    )
    config.optim.warmup = args.steps // 10
    return config


def train(weight: float, args: argparse.Namespace) -> None:
    """Trains one run, or what is left of it."""
    folder, config = args.workdir / name_of(weight), config_of(weight, args)
    loop.train(config, make_task(config, folder, args.data), folder)


def true_mels(codec: CompactCodec, waves: list[np.ndarray]) -> list[np.ndarray]:
    """Natural-log mels [T, M] of whole tokens."""
    c, mel = codec.model.config, jax.jit(codec.model.mel)
    found = []
    for first in range(0, len(waves), _TOGETHER):
        rows = waves[first : first + _TOGETHER]
        width = -(-max(map(len, rows)) // (32 * c.token_samples)) * 32 * c.token_samples
        padded, _ = stack(rows, width, _TOGETHER, np.float32)
        made = np.asarray(mel(padded)) * c.mel_std + c.mel_mean
        found += [made[b, : -(-len(row) // c.hop)] for b, row in enumerate(rows)]
    return found


def decoded_mels(codec: CompactCodec, params, tokens: list[np.ndarray]) -> list[np.ndarray]:
    """Natural-log mels [4L, M] of what the decoder makes of tokens [L]."""
    c, decode = codec.model.config, jax.jit(codec.model.acoustics)
    found = []
    for first in range(0, len(tokens), _TOGETHER):
        rows = tokens[first : first + _TOGETHER]
        width = -(-max(map(len, rows)) // 32) * 32
        ids, valid = stack(rows, width, _TOGETHER, np.int32)
        made = np.asarray(decode(params, ids, valid).mel_BTM) * c.mel_std + c.mel_mean
        found += [made[b, : c.frames_per_token * len(row)] for b, row in enumerate(rows)]
    return found


def heard(codec: CompactCodec, mels: list[np.ndarray], records: list[dict], recogniser) -> dict:
    """Word errors of mels that Griffin-Lim makes sound."""
    c = codec.model.config
    basis = mel_filters(c.sample_rate, c.window, c.num_mels)
    waves = [
        from_log_mel(mel, basis, c.window, c.hop, len(record["audio"]))
        for mel, record in zip(mels, records, strict=True)
    ]
    return words(waves, records, recogniser)


def words(waves: list[np.ndarray], records: list[dict], recogniser) -> dict:
    """Word errors of waves."""
    texts = [record["text"] for record in records]
    return recogniser.spoken_errors(waves, texts, CompactCodecConfig().sample_rate).report()


def score(args: argparse.Namespace) -> dict:
    """Curves, and the scores of the last parameters of every run, and of the references."""
    source = speech(args.clips_from or args.data, ("open",), "val")
    records = [source[i] for i in spread(len(source), args.clips)]
    waves, recogniser = [wave_of(record) for record in records], Recogniser()
    result: dict = {
        "clips": len(records),
        "recogniser": recogniser.name,
        "steps": args.steps,
        "batch": args.batch,
        "tokens": args.tokens,
        "runs": {},
    }
    result["original"] = words(waves, records, recogniser)
    for weight in args.weights:
        folder, config = args.workdir / name_of(weight), config_of(weight, args)
        params = load_params(folder)
        codec = CompactCodec(CompactCodecConfig(**config.codec), params)
        true = true_mels(codec, waves)
        if "griffin_lim" not in result:
            result["griffin_lim"] = heard(codec, true, records, recogniser)
        tokens = codec.encode(waves)
        made = decoded_mels(codec, params, tokens)
        distances = [
            np.abs(a[: len(b)] - b[: len(a)]).mean() for a, b in zip(made, true, strict=True)
        ]
        rows = read_metrics(folder / "metrics.jsonl")
        result["runs"][name_of(weight)] = {
            "weight": weight,
            "words": heard(codec, made, records, recogniser),
            "mel_l1": round(float(np.mean(distances)), 4),
            "codes": code_usage(tokens),
            "curves": {
                name: [
                    [row["step"], round(row[f"eval/held_out/{name}"], 5)]
                    for row in rows
                    if f"eval/held_out/{name}" in row
                ]
                for name in CURVES
            },
        }
    return result


def report(result: dict) -> str:
    """Markdown."""
    lines = [
        "# A semantic auxiliary loss for the compact codec, tried small",
        "",
        "Made by `python -m experiments.codec_trials`. Do not edit.",
        "",
        f"Phase 1 from scratch, {result['steps']} steps of {result['batch']} crops of "
        f"{result['tokens']} tokens, one seed, the same batches in every run. Words: errors of "
        f"{result['recogniser']} on {result['clips']} validation recordings, from tokens through "
        "the run's decoder to mels, made sound by Griffin-Lim. Mel: mean distance of the natural "
        "logarithms, of the same recordings. Phones: share of half tokens whose phone the "
        "phonetic head tells, of held-out crops; semantic: squared error of the whitened states, "
        "1 for one that knows nothing.",
        "",
        "| run | word errors | mel | phones | semantic | codes used |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| the recordings | {_wer(result['original'])} | | | | |",
        f"| Griffin-Lim from their mels | {_wer(result['griffin_lim'])} | 0 | | | |",
    ]
    for name, run in result["runs"].items():
        last = {key: f"{curve[-1][1]:.3f}" if curve else "" for key, curve in run["curves"].items()}
        lines.append(
            f"| {name} | {_wer(run['words'])} | {run['mel_l1']:.3f} | {last['phone_accuracy']} | "
            f"{last['semantic']} | {run['codes']['used']} |"
        )
    lines += ["", f"![curves]({NAME}.png)", "", line(result["made"]), ""]
    return "\n".join(lines)


def _wer(score: dict) -> str:
    low, high = score["wer_95"]
    return f"{score['wer']:.1f} % ({low:.1f} to {high:.1f})"


def draw(result: dict, path: Path) -> None:
    """The curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), CURVES[:2], strict=True):
        for run, found in result["runs"].items():
            axis.plot(*zip(*found["curves"][name], strict=True), marker=".", label=run)
        axis.set(xlabel="updates", title=f"held-out {name}")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", default=[0.0, 0.3, 1.0], help="of the semantic loss"
    )
    parser.add_argument("--steps", type=int, default=400, help="updates of each run")
    parser.add_argument("--every", type=int, default=50, help="updates between two evaluations")
    parser.add_argument("--batch", type=int, default=12, help="crops of an update")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a crop")
    parser.add_argument("--clips", type=int, default=120, help="recordings that are scored")
    parser.add_argument("--data", metavar="DIR", help="corpus folder of the runs")
    parser.add_argument("--clips-from", metavar="DIR", help="corpus of what is scored (--data)")
    parser.add_argument(
        "--workdir", type=Path, default=Path("~/.cache/mdmspeech/runs/codec_trials").expanduser()
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    for weight in args.weights:
        train(weight, args)
    result = score(args)
    sizes = {"runs": len(args.weights), "steps a run": args.steps, "clips": result["clips"]}
    result["made"] = provenance(sizes=sizes, seeds={"weights and batches": 0})
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"{NAME}.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.output / f"{NAME}.md").write_text(report(result), encoding="utf-8")
    draw(result, args.output / f"{NAME}.png")
    print(report(result))


if __name__ == "__main__":
    main()
