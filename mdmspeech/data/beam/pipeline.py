"""The preparation as Beam transforms:

    Import -> (a unit's entries are gathered) -> Clean -> Synthesise -> Align -> SpeechTokens ->
    EncoderStates -> WriteShards -> Finish

Only places and texts are shuffled (and audio that lies inside of Parquet or tar shards); a unit is
then decoded, aligned, encoded and written by one worker. What was finished before a kill is known by
its part, see `parts`, and goes through the stages untouched.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mdmspeech.data.beam import parts, records, sources
from mdmspeech.data.beam.finish import finish, read_statistics
from mdmspeech.data.beam.stages import Plan, Stage
from mdmspeech.errors import UserError

_log = logging.getLogger()
_level = _log.level
try:
    _log.setLevel(logging.ERROR)  # of Google's clients, which only Dataflow needs
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.utils.shared import Shared
except ImportError as error:
    raise UserError(
        f'apache-beam is not installed ({error}); pip install "mdmspeech[beam]", best in a virtual '
        "environment of its own, as it asks for other versions of some packages"
    ) from error
finally:
    _log.setLevel(_level)

LOCAL = "DirectRunner"
_USER_ERROR = re.compile(r"(?:mdmspeech\.errors\.)?UserError: (.+)")


def prepare(
    plan: Plan, runner: str = LOCAL, workers: int = 1, arguments: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs it and waits for its end; returns the statistics.

    Args:
      runner: Beam's name of it. workers: processes of the DirectRunner. arguments: further options of
        Beam and of the runner, as on a command line.

    Raises:
      UserError: no corpus, nothing in it that can be used, or an error of that kind in a worker.
    """
    corpus = plan.source.open()
    corpus.parts()
    held = parts.published(plan.target)
    try:
        chosen = options(runner, workers, arguments)
        here = _here(chosen) if runner == LOCAL else None
        with beam.Pipeline(runner=here, options=chosen) as pipeline:
            build(pipeline, plan, held)
    except Exception as error:
        raise _told(error) from error
    return read_statistics(plan.target)


def _told(error: Exception) -> Exception:
    """The UserError that a worker raised, without what Beam adds to it, which may be all of a trace as
    text; any other error as it is.
    """
    text = str(error) if isinstance(error, UserError) else ""
    found = _USER_ERROR.findall(str(error))
    if not text and not found:
        return error
    return UserError((text or found[-1]).partition(" [while running")[0].strip())


def options(runner: str, workers: int, arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options: the DirectRunner in so many processes, any other as its arguments say."""
    known = [f"--runner={runner}", "--default_sdk_harness_log_level=ERROR", *arguments]
    if runner == LOCAL and workers > 1:
        known += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return PipelineOptions(known)


def _here(chosen: PipelineOptions) -> Any:
    """The runner inside of the DirectRunner, which would first look for Prism, a program that it
    fetches.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(chosen.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


def build(pipeline: Any, plan: Plan, held: Mapping[str, str]) -> Any:
    """Puts the transforms into a pipeline; gives the last collection, the statistics."""
    imported = pipeline | "Import" >> Import(plan.source, plan.target.units)
    count = imported | "Count" >> beam.combiners.Count.Globally()
    every = pipeline | "Units" >> beam.Create([(k, None) for k in range(plan.target.units)])
    units = (
        (imported, every)
        | "Together" >> beam.Flatten()
        | "Gather" >> beam.GroupByKey()
        | "Begin" >> beam.ParDo(_Begin(plan.target, held))
    )
    for stage in plan.stages:
        units |= _title(stage.name) >> beam.ParDo(RunStage(stage))
    numbers = units | "WriteShards" >> beam.ParDo(_Write(plan.target))
    return (
        pipeline
        | "Once" >> beam.Create([None])
        | "Finish"
        >> beam.Map(
            _finish,
            plan.target,
            [stage.name for stage in plan.stages],
            beam.pvalue.AsSingleton(count),
            beam.pvalue.AsList(numbers),
        )
    )


class Import(beam.PTransform):
    """Parts of a corpus, shared among the workers -> (number of its unit, entry)."""

    def __init__(self, source: sources.Source, units: int):
        super().__init__()
        self._source, self._units = source, units

    def expand(self, pcoll: Any) -> Any:
        found = [tuple(part) for part in self._source.open().parts()]
        return (
            pcoll
            | "Parts" >> beam.Create(found)
            | "Share" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(self._source, self._units))
        )


class _Read(beam.DoFn):
    def __init__(self, source: sources.Source, units: int):
        self._source, self._units = source, units
        self._corpus: Any = None

    def setup(self) -> None:
        self._corpus = self._source.open()

    def process(self, part: tuple[str, str]) -> Iterator[tuple[int, records.Entry]]:
        for entry in sources.entries(self._corpus, sources.Part(*part)):
            yield records.unit_of(entry, self._units), entry


class _Begin(beam.DoFn):
    """Entries of a unit, in one order whatever brought them -> the unit."""

    def __init__(self, target: parts.Target, held: Mapping[str, str]):
        self._target, self._held = target, dict(held)

    def process(
        self, gathered: tuple[int, Iterable[records.Entry | None]]
    ) -> Iterator[records.Unit]:
        number, found = gathered
        entries = (entry for entry in found if entry is not None)
        yield parts.begin(self._target, number, entries, self._held)


class RunStage(beam.DoFn):
    """A unit through a stage. What the stage loads is loaded once a worker process."""

    def __init__(self, stage: Stage):
        self._stage, self._shared = stage, Shared()
        self._loaded: Any = None

    def setup(self) -> None:
        self._loaded = None

    def process(self, unit: records.Unit) -> Iterator[records.Unit]:
        if unit.done:
            yield unit
            return
        if self._loaded is None:
            self._loaded = self._shared.acquire(self._load)
        yield unit.passed(self._stage.name, self._stage.run(self._loaded.loaded, unit.records))

    def _load(self) -> "_Loaded":
        return _Loaded(self._stage.load())


class _Loaded:
    """`Shared` keeps what can be referred to weakly."""

    def __init__(self, loaded: Any):
        self.loaded = loaded


class _Write(beam.DoFn):
    def __init__(self, target: parts.Target):
        self._target = target

    def process(self, unit: records.Unit) -> Iterator[int]:
        parts.write_unit(self._target, unit)
        yield unit.number


def _finish(
    _: None, target: parts.Target, stages: list[str], imported: int, numbers: list[int]
) -> dict[str, Any]:
    if sorted(numbers) != list(range(target.units)):
        raise UserError(f"{len(numbers)} of {target.units} units were written; run it again")
    return finish(target, stages, imported)


def _title(name: str) -> str:
    return {"tokens": "SpeechTokens", "states": "EncoderStates"}.get(name, name.capitalize())
