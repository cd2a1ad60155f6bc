"""A preparation without Beam: the same functions in the same order, in this process."""

import random
from collections.abc import Sequence
from typing import Any

from mdmspeech.data.beam import parts, records, sources
from mdmspeech.data.beam.finish import finish
from mdmspeech.data.beam.stages import described


def target(root, stages: Sequence[Any], units: int = 4, **more) -> parts.Target:
    kinds = more.pop("kinds", {"recordings": {}})
    return parts.Target(str(root), "mine", units, kinds, described(stages), **more)


def gather(source: sources.Source, units: int, shuffled: int = 0) -> dict[int, list[records.Entry]]:
    """Entries by unit; shuffled: as they may come from workers."""
    corpus = source.open()
    found = [entry for part in corpus.parts() for entry in sources.entries(corpus, part)]
    random.Random(shuffled).shuffle(found)
    gathered: dict[int, list[records.Entry]] = {number: [] for number in range(units)}
    for entry in found:
        gathered[records.unit_of(entry, units)].append(entry)
    return gathered


def make(where: parts.Target, stages: Sequence[Any], gathered: dict[int, list]) -> list[int]:
    """Makes the units that are not done; gives their numbers."""
    held, made = parts.published(where), []
    loaded = [stage.load() for stage in stages]
    for number, entries in gathered.items():
        unit = parts.begin(where, number, entries, held)
        if not unit.done:
            made.append(number)
            for stage, ready in zip(stages, loaded, strict=True):
                unit.passed(stage.name, stage.run(ready, unit.records))
        parts.write_unit(where, unit)
    return made


def prepare(
    source: sources.Source, where: parts.Target, stages: Sequence[Any], shuffled: int = 0
) -> tuple[list[int], dict[str, Any]]:
    """(numbers of the units that were made, the statistics)."""
    gathered = gather(source, where.units, shuffled)
    made = make(where, stages, gathered)
    count = sum(map(len, gathered.values()))
    return made, finish(where, [stage.name for stage in stages], count)
