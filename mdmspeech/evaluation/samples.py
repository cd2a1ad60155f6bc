"""What a training run shows at each evaluation: something to hear, something to see, something to
read.

`show(config, workdir, root)` gives the function that `mdmspeech train` hangs on its task.
Everything lands in <workdir>/eval/<step>/.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mdmspeech.audio.writer import save_wave
from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.config_names import upgrade_run
from mdmspeech.data.datasets.corpus import speech
from mdmspeech.data.datasets.corpus import states as corpus_states
from mdmspeech.errors import UserError
from mdmspeech.evaluation import plots
from mdmspeech.evaluation.testset import spread, wave_of
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.plots import save_plot
from mdmspeech.interop.tensors import read_json
from mdmspeech.models import ctc_adaptor, seq2seq_adaptor, talker
from mdmspeech.padding import stack
from mdmspeech.text.pieces import shipped
from mdmspeech.training.stages.build import stage_of
from mdmspeech.training.warm_start import load_params

Show = Callable[[Any, int, Path], dict[str, float]]
Write = Callable[[Any, np.ndarray, np.ndarray], list[str]]  # (params, states, valid) -> texts

SENTENCES = (
    "The capital of France is Paris.",
    "A masked block is uncovered step by step, the surest token first.",
    "Good morning! How are you?",
)
STEPS = 4  # forwards a block, for masked diffusion
_CODEC_RUNS = ("codec", "compact_codec_wave", "compact_codec")  # beside the run, the best first
_UTTERANCES, _TRANSCRIPTS = 3, 16


def show(config: ConfigDict, workdir: Path, root: str | Path | None) -> Show | None:
    """The function (params, step, outdir) -> scores of an experiment's stage: its own
    (`Stage.show`), or that of `_SHOWS`; None where there is nothing to show, as of random data.
    """
    if tuple(config.get("data", {}).get("parts", ())) == ("random",):
        return None
    make = stage_of(config.stage).show or _SHOWS.get(config.stage)
    return make(config, workdir, root) if make else None


def _codec(config: ConfigDict, workdir: Path, root: str | Path | None) -> Show:
    """Validation recordings and what is left of them: WAV files and spectrograms."""
    source = speech(root, tuple(config.data.parts), "val")
    records = [source[i] for i in spread(len(source), _UTTERANCES)]

    def run(params, step: int, outdir: Path) -> dict[str, float]:
        codec = CompactCodec(CompactCodecConfig(**config.codec), params)
        waves = [wave_of(record) for record in records]
        tokens = (
            [np.asarray(record["tokens"]) for record in records]
            if "tokens" in records[0]
            else codec.encode(waves)
        )
        for number, (record, wave, again) in enumerate(
            zip(records, waves, codec.decode(tokens), strict=True)
        ):
            save_wave(outdir / f"{number}_original.wav", wave, codec.sample_rate)
            save_wave(outdir / f"{number}_resynthesis.wav", again, codec.sample_rate)
            plots.spectrograms(
                outdir / f"{number}.png",
                {"original": wave, "resynthesis": again},
                codec.sample_rate,
                record["text"],
            )
        return {"codes_used": float(len(np.unique(np.concatenate(tokens))))}

    return run


def _talker(config: ConfigDict, workdir: Path, root: str | Path | None) -> Show | None:
    """The sentences above, spoken: WAV files and pictures. Needs a trained codec beside the run."""
    folder = next(
        (
            workdir.parent / name
            for name in _CODEC_RUNS
            if (workdir.parent / name / "checkpoints").is_dir()
        ),
        None,
    )
    if folder is None or config.talker.get("anchors", "paced") != "paced":
        return None
    about = folder / "config.json"
    stored = upgrade_run(read_json(about), str(about))["codec"]  # what differs from the defaults
    sizes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
    }
    codec = CompactCodec(CompactCodecConfig(**sizes), load_params(folder))
    mode = config.mode if config.mode in ("ntp", "mtp") else "mdm"

    def run(params, step: int, outdir: Path) -> dict[str, float]:
        voice = PacedSynthesizer(
            talker.TalkerConfig(**config.talker), jax.device_get(params), codec, mode=mode
        )
        ended = 0
        for number, spoken in enumerate(voice.say_many(SENTENCES, steps=STEPS)):
            ended += spoken.stop_reason != "budget"
            try:
                save_wave(outdir / f"{number}.wav", spoken.audio, spoken.sample_rate)
                save_plot(outdir / f"{number}.png", spoken, SENTENCES[number])
            except UserError:  # nothing was spoken: an untrained Talker may end at once
                continue
        return {"sentences_ended": ended / len(SENTENCES)}

    return run


def _hearing(config: ConfigDict, workdir: Path, root: str | Path | None) -> Show:
    """Validation questions as they were read and as they are written down: a text file, and the
    share of right words.
    """
    store = corpus_states(root, "questions", "val")
    rows = [store[i] for i in spread(len(store), _TRANSCRIPTS)]
    length = max(len(row["states"]) for row in rows)
    states, valid = stack([row["states"] for row in rows], length, len(rows), np.float32)
    write = _WRITERS[config.mode](config)

    def run(params, step: int, outdir: Path) -> dict[str, float]:
        written = write(params, states, valid)
        lines = [f"{row['text']}\n    {text}" for row, text in zip(rows, written, strict=True)]
        (outdir / "transcripts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {
            "transcripts_exact": sum(
                row["text"] == text for row, text in zip(rows, written, strict=True)
            )
            / len(rows)
        }

    return run


def _ctc_writer(config: ConfigDict) -> Write:
    module = ctc_adaptor.CTCAdaptor(ctc_adaptor.CTCConfig(**config.adaptor))
    logits = jax.jit(lambda params, states, valid: module.apply({"params": params}, states, valid))
    return lambda params, states, valid: ctc_adaptor.ctc_greedy_decode(
        logits(params, states, valid), valid
    )


def _attention_writer(config: ConfigDict) -> Write:
    sizes, pieces = seq2seq_adaptor.Seq2SeqConfig(**config.adaptor), shipped()
    write = jax.jit(
        lambda params, states, valid: (
            seq2seq_adaptor.greedy_decode(sizes, params, states, valid).ids_BN
        )
    )
    return lambda params, states, valid: [
        pieces.decode(ids) for ids in np.asarray(write(params, states, valid))
    ]


_WRITERS = {"ctc": _ctc_writer, "attention": _attention_writer}  # by config.mode
# What the stages of this package show, by name:
# it needs voices and recognisers, which `training` may not import.
_SHOWS: dict[str, Callable[[ConfigDict, Path, str | Path | None], Show | None]] = {
    "codec": _codec,
    "talker": _talker,
    "hearing": _hearing,
}
