"""Speaks a list of jobs into a folder of shards: several processes, resumable at any moment, with a
progress bar (rate and time left).
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tqdm

from mdmspeech.data.storage import record_store
from mdmspeech.data.synthesis import voices
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.errors import UserError
from mdmspeech.text.pronounce import pronouncer

JOBS_PER_SHARD = 64
PEAK = 0.99


@dataclasses.dataclass
class Outcome:
    """What a run of `synthesise` left behind: utterances and hours in the folder, and one line for
    each text that could not be spoken.
    """

    utterances: int = 0
    hours: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)


def synthesise(
    jobs: Sequence[Job],
    folder: str | os.PathLike,
    *,
    rate: int,
    workers: int = 2,
    title: str = "speech",
) -> Outcome:
    """Speaks every job at `rate` Hz into `folder`; shards that are already there are kept, shards
    of texts no longer asked for are removed.

    Raises `UserError` when an engine is not installed; a single text that fails is recorded, named
    in the outcome and skipped.
    """
    folder = pathlib.Path(folder)
    if len({job.id for job in jobs}) != len(jobs):
        raise UserError(f"{title}: two jobs share one id")
    shards = {_shard_name(n, chunk, rate): chunk for n, chunk in enumerate(_chunks(jobs))}
    for name in set(record_store.shard_names(folder)) - set(shards):
        record_store.remove_shard(folder, name)
    done = set(record_store.shard_names(folder))
    missing = {name: chunk for name, chunk in shards.items() if name not in done}
    kept = len(jobs) - sum(map(len, missing.values()))
    with tqdm.tqdm(
        total=len(jobs), initial=kept, desc=title, unit="utt", smoothing=0.05, mininterval=2.0
    ) as bar:
        seconds = 0.0
        for spoken_seconds, utterances in _run(missing, folder, rate, workers):
            seconds += spoken_seconds
            bar.set_postfix_str(f"{seconds / 3600:.2f} h new", refresh=False)
            bar.update(utterances)
    recordings = record_store.RecordStore(folder)
    failures = [f"{r['id']}: {r['error']} ({r['text'][:60]!r})" for r in recordings.failed]
    return Outcome(len(recordings), recordings.hours(), failures)


def _run(shards: dict[str, Sequence[Job]], folder: pathlib.Path, rate: int, workers: int):
    """Yields (seconds, utterances) as shards finish. One worker means this process, which is easier
    to debug.
    """
    tasks = [(folder, name, chunk, rate) for name, chunk in shards.items()]
    if workers <= 1 or len(tasks) <= 1:
        yield from (_speak_shard(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_speak_shard, *task) for task in tasks]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _speak_shard(
    folder: pathlib.Path, name: str, jobs: Sequence[Job], rate: int
) -> tuple[float, int]:
    recordings = [_speak(job, rate) for job in jobs]
    record_store.write_shard(folder, name, recordings)
    return sum(len(audio) for _, audio in recordings) / rate, len(jobs)


def _speak(job: Job, rate: int) -> tuple[record_store.Record, np.ndarray]:
    fields = {
        "id": job.id,
        "text": job.text,
        "engine": job.engine,
        "voice": job.voice,
        "rate": rate,
        **job.record,
    }
    try:
        rendered = voices.load(job.engine).speak(job)
        if not len(rendered.audio):
            raise ValueError("the voice said nothing")
    except UserError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        return {**fields, "error": f"{type(error).__name__}: {error}"}, np.zeros(0, np.int16)
    return {**fields, **rendered.fields}, to_int16(_at_rate(rendered.audio, rendered.rate, rate))


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Float audio in [-1, 1] -> int16, scaled down only when it would clip."""
    peak = float(np.abs(audio).max(initial=0.0))
    return np.rint(audio * (min(1.0, PEAK / peak) if peak else 1.0) * 32767).astype(np.int16)


def _at_rate(audio: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return audio
    import soxr

    return soxr.resample(audio, rate, wanted)


def _chunks(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    return [jobs[i : i + JOBS_PER_SHARD] for i in range(0, len(jobs), JOBS_PER_SHARD)]


def _shard_name(number: int, jobs: Sequence[Job], rate: int) -> str:
    """The place and a digest of what is heard: the jobs and, where we read the text for the voice,
    its symbols.
    """
    spoken = [_symbols(job.text) for job in jobs if job.engine in voices.READ_BY_US]
    described = json.dumps(
        [rate, [dataclasses.asdict(job) for job in jobs], spoken], sort_keys=True
    )
    return f"{number:05d}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"


@functools.cache
def _symbols(text: str) -> str:
    """How our voices say a text now; a corpus made by earlier rules is spoken anew where that has
    changed (a millisecond a text).
    """
    return pronouncer().phonemes(pronouncer()(text))
