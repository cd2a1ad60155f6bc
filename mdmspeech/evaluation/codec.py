"""How good the codec is: held-out recordings of the answer voice through tokens and back.

    from mdmspeech.training.warm_start import load_params
    score_codec(CompactCodec(CompactCodecConfig(), load_params(workdir)), outdir="codec_eval")

The bar: word errors at most 3 points over the original's, DNSMOS within 0.3.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mdmspeech.audio.features import pad_waves
from mdmspeech.audio.mel import mel_filters
from mdmspeech.audio.writer import save_wave
from mdmspeech.codec.base import Codec
from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.data.storage.record_store import data_root
from mdmspeech.errors import UserError
from mdmspeech.evaluation import plots
from mdmspeech.evaluation.griffin_lim import from_log_mel
from mdmspeech.evaluation.mos import mean_opinion
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.report import read_json, write_json
from mdmspeech.evaluation.silence import timing
from mdmspeech.evaluation.testset import held_out, wave_of
from mdmspeech.speech_format import CODES

# lengths in frames are rounded up to this for the mel, so that few shapes are compiled
_FRAMES = 128
_SAMPLES = 3  # recordings kept as WAV files
_TIMED = 5  # recordings whose decoding is timed one by one


def score_codec(
    codec: Codec,
    root: str | Path | None = None,
    count: int = 200,
    outdir: str | Path = "codec_eval",
    *,
    split: str = "test",
    mos_count: int = 50,
    recogniser: Recogniser | None = None,
) -> dict:
    """Scores of the original, of the resynthesis and of Griffin-Lim from the true mel, on `count`
    open sentences held out from training, of `split`.

    The original's and Griffin-Lim's scores do not depend on the parameters: they are kept under the
    data root and made once.

    Args:
      root: the corpus folder (see `data.storage.record_store.data_root`).
      outdir: gets codec.json, codec.png and a few WAV files. mos_count: how many of the recordings
        DNSMOS judges (about a second each).
      recogniser: default `Recogniser("base")`.

    Returns: what codec.json holds.

    Raises:
      UserError: no held-out recordings, or a package that scoring needs is missing.
    """
    outdir = Path(outdir)
    recogniser = recogniser or Recogniser()
    records = held_out(root, count, split=split)
    texts = [record["text"] for record in records]
    originals = [wave_of(record) for record in records]
    model, rate = _analysis(codec), codec.sample_rate
    tokens = codec.encode(originals)
    waves = [
        wave[: len(original)]
        for wave, original in zip(codec.decode(tokens), originals, strict=True)
    ]

    result: dict[str, Any] = {
        "count": len(records),
        "seconds": round(sum(map(len, originals)) / rate, 1),
        "recogniser": recogniser.name,
    }
    result["codes"] = code_usage(tokens)
    result["decode"] = decode_speed(codec, tokens)
    result["streamed_difference"] = streamed_difference(codec, tokens[:_SAMPLES], waves[:_SAMPLES])
    result["level_db"] = round(
        float(np.mean([_level(a) - _level(b) for a, b in zip(waves, originals, strict=True)])), 2
    )
    pairs = zip(_mels(model, waves), _mels(model, originals), strict=True)
    result["mel_l1"] = round(float(np.mean([np.abs(a - b).mean() for a, b in pairs])), 4)
    result["timing"] = timing(waves, originals, rate)
    result["resynthesis"] = _scores(recogniser, waves, texts, rate, mos_count, "resynthesis")
    result |= _reference_scores(model, root, recogniser, records, originals, mos_count)
    result["bar"] = {
        "wer_over_original": round(result["resynthesis"]["wer"] - result["original"]["wer"], 2),
        "dnsmos_under_original": round(
            result["original"]["mos"]["ovrl"] - result["resynthesis"]["mos"]["ovrl"], 3
        ),
    }
    for record, original, wave in list(zip(records, originals, waves, strict=True))[:_SAMPLES]:
        save_wave(_made(outdir) / f"{record['id']}-original.wav", original, rate)
        save_wave(outdir / f"{record['id']}-resynthesis.wav", wave, rate)
    plots.spectrograms(
        _made(outdir) / "codec.png",
        {"original": originals[0], "resynthesis": waves[0]},
        rate,
        texts[0],
    )
    write_json(outdir / "codec.json", result)
    return result


def code_usage(tokens: Sequence[np.ndarray]) -> dict[str, float | int]:
    """Codes that occur, entropy of their distribution in bits, and its perplexity. A few thousand
    tokens can only show a part of 6561 codes.
    """
    counts = np.bincount(np.concatenate(tokens), minlength=CODES)
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * np.log2(share)).sum())
    return {
        "tokens": int(counts.sum()),
        "used": len(share),
        "entropy_bits": round(entropy, 3),
        "perplexity": round(2**entropy, 1),
    }


def decode_speed(codec: Codec, tokens: Sequence[np.ndarray]) -> dict[str, float]:
    """Median real-time factor (seconds of work per second of speech) of decoding one utterance at a
    time, compiled before.
    """
    factors = []
    for ids in tokens[:_TIMED]:
        codec.decode([ids])
        start = time.perf_counter()
        (wave,) = codec.decode([ids])
        factors.append((time.perf_counter() - start) * codec.sample_rate / len(wave))
    return {"real_time_factor": round(float(np.median(factors)), 4), "timed": len(factors)}


def streamed_difference(
    codec: Codec, tokens: Sequence[np.ndarray], waves: Sequence[np.ndarray]
) -> float:
    """Largest difference of a sample between decoding `tokens` block by block and `waves`, decoded
    in one go.
    """
    worst = 0.0
    for ids, wave in zip(tokens, waves, strict=True):
        stream = codec.stream()
        streamed = np.concatenate([stream.push(ids), stream.finish()])
        if len(streamed) < len(wave):
            raise UserError(f"the streamed wave is cut: {len(streamed)} of {len(wave)} samples")
        worst = max(worst, float(np.abs(streamed[: len(wave)] - wave).max()))
    return worst


def _analysis(codec: Codec) -> CompactCodecModel:
    """Whose mel both waves are compared by: the compact codec's own, for other families that of the
    shipped sizes.
    """
    return (
        codec.model if isinstance(codec, CompactCodec) else CompactCodecModel(CompactCodecConfig())
    )


def _reference_scores(model, root, recogniser, records, originals, mos_count) -> dict:
    """Scores of the originals and of Griffin-Lim, from the cache when the same recordings were
    scored in the same way before.
    """
    config = model.config
    ids = "|".join(f"{record['id']} {record['text']}" for record in records)
    way = f"{recogniser.name}|{mos_count}|{config.window}|{config.hop}|{config.num_mels}|{ids}"
    file = (
        data_root(root)
        / "evaluation"
        / f"codec-reference-{hashlib.sha256(way.encode()).hexdigest()[:12]}.json"
    )
    if not file.is_file():
        basis = mel_filters(config.sample_rate, config.window, config.num_mels)
        copies = [
            from_log_mel(mel_TM, basis, config.window, config.hop, len(w))
            for mel_TM, w in zip(_mels(model, originals), originals, strict=True)
        ]
        texts, rate = [record["text"] for record in records], config.sample_rate
        scores = {
            "original": _scores(recogniser, originals, texts, rate, mos_count, "original"),
            "griffin_lim": _scores(recogniser, copies, texts, rate, mos_count, "Griffin-Lim"),
        }
        write_json(file, scores)
    return read_json(file)


def _scores(recogniser: Recogniser, waves, texts, rate: int, mos_count: int, label: str) -> dict:
    errors = recogniser.spoken_errors(waves, texts, rate, label=f"{label}: words")
    return errors.report() | {
        "mos": mean_opinion(waves[:mos_count], rate, label=f"{label}: DNSMOS")
    }


def _mels(model: CompactCodecModel, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Natural-log mels [T, M] of waves, of their whole hops."""
    c, mel, found = model.config, jax.jit(model.mel), []
    for wave in waves:
        frames = len(wave) // c.hop
        padded = pad_waves([wave[: frames * c.hop]], -(-frames // _FRAMES) * _FRAMES * c.hop)
        found.append(np.asarray(mel(padded))[0, :frames] * c.mel_std + c.mel_mean)
    return found


def _level(wave_N: np.ndarray) -> float:
    """RMS in dB."""
    return float(10 * np.log10(np.mean(np.square(wave_N)) + 1e-12))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
