"""How good the codec is: held-out recordings of the answer voice through tokens and back (issue 2, section 4).

    from mdmspeech.training.warm_start import load_params
    evaluate_codec(CompactCodecModel(CompactCodecConfig()), load_params(workdir), outdir="codec_eval")

The bar: word errors at most 3 points over the original's, DNSMOS within 0.3.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from mdmspeech.audio.features import pad_waves
from mdmspeech.audio.wave import save_wave
from mdmspeech.codec import fsq
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.data.sources import speech
from mdmspeech.data.store import data_root
from mdmspeech.evaluation import plots
from mdmspeech.evaluation.griffin_lim import from_log_mel
from mdmspeech.evaluation.mos import mean_opinion
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.report import read_json, write_json
from mdmspeech.evaluation.silence import timing

_BUCKET = 32  # lengths in tokens are rounded up to this, so that few shapes are compiled
_BATCH = 8
_SAMPLES = 3  # recordings kept as WAV files
_TIMED = 5  # recordings whose decoding is timed one by one


def evaluate_codec(
    model: CompactCodecModel,
    params: dict,
    root: str | Path | None = None,
    count: int = 200,
    outdir: str | Path = "codec_eval",
    *,
    mos_count: int = 50,
    recogniser: Recogniser | None = None,
    stream: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict:
    """Scores of the original, of the resynthesis and of Griffin-Lim from the true mel, on `count` held-out open sentences.

    The original's and Griffin-Lim's scores do not depend on `params`: they are kept under the data root and made once.

    Args:
      params: the codec's parameters. root: the corpus folder (see `data.store.data_root`).
      outdir: gets codec.json, codec.png and a few WAV files. mos_count: how many of the recordings DNSMOS judges (about a second each).
      recogniser: default `Recogniser("base")`.
      stream: decodes token ids int32 [L] block by block to a wave [L * token_samples]; compared with decoding in one go when given.

    Returns: what codec.json holds.

    Raises:
      UserError: no held-out recordings, or a package that scoring needs is missing.
    """
    outdir = Path(outdir)
    recogniser = recogniser or Recogniser()
    records = held_out(root, count)
    texts = [record["text"] for record in records]
    originals = [np.asarray(record["audio"], np.float32) / 32768 for record in records]
    rate = model.config.sample_rate
    tokens = encode_all(model, params, originals)
    waves = [wave[: len(original)] for wave, original in zip(decode_all(model, params, tokens), originals, strict=True)]

    result = {"count": len(records), "seconds": round(sum(map(len, originals)) / rate, 1), "recogniser": recogniser.name}
    result["codes"] = code_usage(tokens)
    result["decode"] = decode_speed(model, params, tokens)
    if stream is not None:
        result["streamed_difference"] = streamed_difference(model, params, tokens[:_SAMPLES], stream)
    result["mel_l1"] = round(float(np.mean([_mel_distance(model, a, b) for a, b in zip(waves, originals, strict=True)])), 4)
    result["timing"] = timing(waves, originals, rate)
    result["resynthesis"] = _scores(recogniser, waves, texts, rate, mos_count, "resynthesis")
    result |= _reference_scores(model, root, recogniser, records, originals, mos_count)
    result["bar"] = {
        "wer_over_original": round(result["resynthesis"]["wer"] - result["original"]["wer"], 2),
        "dnsmos_under_original": round(result["original"]["mos"]["ovrl"] - result["resynthesis"]["mos"]["ovrl"], 3),
    }
    for record, original, wave in list(zip(records, originals, waves, strict=True))[:_SAMPLES]:
        save_wave(_made(outdir) / f"{record['id']}-original.wav", original, rate)
        save_wave(outdir / f"{record['id']}-resynthesis.wav", wave, rate)
    plots.spectrograms(_made(outdir) / "codec.png", {"original": originals[0], "resynthesis": waves[0]}, rate, texts[0])
    write_json(outdir / "codec.json", result)
    return result


def held_out(root: str | Path | None, count: int, parts: Sequence[str] = ("open",)) -> list[dict]:
    """At most `count` recordings of the answer voice that no training saw, spread evenly over the split."""
    source = speech(root, tuple(parts), "test")
    chosen = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int))
    return [source[int(i)] for i in chosen]


def encode_all(model: CompactCodecModel, params: dict, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Token ids int32 [L] of each wave; the last token is filled up with silence."""
    size = model.config.token_samples
    encode = jax.jit(model.encode)
    lengths = [-(-len(wave) // size) for wave in waves]
    found: list[np.ndarray] = [np.zeros(0, np.int32)] * len(waves)
    for rows, bucket in _batches(lengths):
        audio_BN = pad_waves([waves[i] for i in rows], bucket * size)
        ids_BL = np.asarray(encode(params, audio_BN, _valid([lengths[i] for i in rows], bucket)))
        for row, i in enumerate(rows):
            found[i] = ids_BL[row, : lengths[i]]
    return found


def decode_all(model: CompactCodecModel, params: dict, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Waves float32 [L * token_samples] of token ids."""
    size = model.config.token_samples
    decode = jax.jit(model.decode)
    lengths = [len(ids) for ids in tokens]
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(tokens)
    for rows, bucket in _batches(lengths):
        ids_BL = np.stack([np.pad(tokens[i], (0, bucket - lengths[i])) for i in rows])
        wave_BN = np.asarray(decode(params, ids_BL, _valid([lengths[i] for i in rows], bucket)))
        for row, i in enumerate(rows):
            found[i] = wave_BN[row, : lengths[i] * size]
    return found


def code_usage(tokens: Sequence[np.ndarray]) -> dict[str, float | int]:
    """Codes that occur, entropy of their distribution in bits, and its perplexity. A few thousand tokens can only show a part of 6561 codes."""
    counts = np.bincount(np.concatenate(tokens), minlength=fsq.VOCAB)
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * np.log2(share)).sum())
    return {"tokens": int(counts.sum()), "used": len(share), "entropy_bits": round(entropy, 3), "perplexity": round(2**entropy, 1)}


def decode_speed(model: CompactCodecModel, params: dict, tokens: Sequence[np.ndarray]) -> dict[str, float]:
    """Median real-time factor (seconds of work per second of speech) of decoding one utterance at a time, compiled before."""
    decode = jax.jit(model.decode)
    factors = []
    for ids in tokens[:_TIMED]:
        bucket = -(-len(ids) // _BUCKET) * _BUCKET
        args = (params, np.pad(ids, (0, bucket - len(ids)))[None], _valid([len(ids)], bucket))
        decode(*args).block_until_ready()
        start = time.perf_counter()
        decode(*args).block_until_ready()
        factors.append((time.perf_counter() - start) / (bucket / model.config.token_rate))
    return {"real_time_factor": round(float(np.median(factors)), 4), "timed": len(factors)}


def streamed_difference(model, params, tokens: Sequence[np.ndarray], stream) -> float:
    """Largest difference of a sample between `stream(ids)` and decoding in one go."""
    whole = decode_all(model, params, tokens)
    return float(max(np.abs(np.asarray(stream(ids)) - wave).max() for ids, wave in zip(tokens, whole, strict=True)))


def _reference_scores(model, root, recogniser, records, originals, mos_count) -> dict:
    """Scores of the originals and of Griffin-Lim, from the cache when the same recordings were scored in the same way before."""
    config = model.config
    ids = "|".join(f"{record['id']} {record['text']}" for record in records)
    way = f"{recogniser.name}|{mos_count}|{config.window}|{config.hop}|{config.n_mels}|{ids}"
    file = data_root(root) / "evaluation" / f"codec-reference-{hashlib.sha256(way.encode()).hexdigest()[:12]}.json"
    if not file.is_file():
        basis = model._mel_basis
        mel = jax.jit(model.mel)
        lengths = [len(wave) // config.hop for wave in originals]
        copies = []
        for wave, frames in zip(originals, lengths, strict=True):
            bucket = -(-frames // (_BUCKET * config.frames_per_token)) * _BUCKET * config.frames_per_token
            padded = pad_waves([wave[: frames * config.hop]], bucket * config.hop)
            mel_TM = np.asarray(mel(padded))[0, :frames] * config.mel_std + config.mel_mean
            copies.append(from_log_mel(mel_TM, basis, config.window, config.hop, len(wave)))
        texts, rate = [record["text"] for record in records], config.sample_rate
        scores = {
            "original": _scores(recogniser, originals, texts, rate, mos_count, "original"),
            "griffin_lim": _scores(recogniser, copies, texts, rate, mos_count, "Griffin-Lim"),
        }
        write_json(file, scores)
    return read_json(file)


def _scores(recogniser: Recogniser, waves, texts, rate: int, mos_count: int, label: str) -> dict:
    errors = recogniser.spoken_errors(waves, texts, rate, label=f"{label}: words")
    return errors.report() | {"mos": mean_opinion(waves[:mos_count], rate, label=f"{label}: DNSMOS")}


def _mel_distance(model: CompactCodecModel, wave_N: np.ndarray, original_N: np.ndarray) -> float:
    """Mean |difference| of natural-log mels."""
    size = len(original_N) // model.config.hop * model.config.hop
    mels = [np.asarray(model.mel(np.asarray(x[:size])[None])) for x in (wave_N, original_N)]
    return float(np.abs(mels[0] - mels[1]).mean() * model.config.mel_std)


def _batches(lengths: Sequence[int]):
    """Rows of similar length, at most 8 together, with their common length."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        yield rows, -(-max(lengths[i] for i in rows) // _BUCKET) * _BUCKET


def _valid(lengths: Sequence[int], bucket: int) -> np.ndarray:
    return np.arange(bucket)[None] < np.asarray(lengths)[:, None]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
