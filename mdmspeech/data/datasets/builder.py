"""What the two TFDS builders share: they take any `ExampleSource`, and deal with its bad records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds

from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError


class ExampleSource(Protocol):
    """Where a builder gets its examples: the raw store, a user's manifest, VocalNet's JSON."""

    def splits(self) -> Mapping[str, Sequence[int]]:
        """Split -> numbers of its examples."""
        ...

    def example(self, number: int) -> dict[str, Any]:
        """One record with audio int16 [N] at `rate` Hz. Raises `BadRecord`."""
        ...


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base class. Subclasses define `features_dict`, and `defaults` for fields that a source leaves
    out.

    After `download_and_prepare`, `problems` has one line for every bad record (skipped, or under
    `strict` the end of the run).
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = None
    features_dict: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}

    def __init__(self, *, source: ExampleSource | None = None, strict: bool = False, **kwargs):
        self.source, self.strict = source, strict
        self.problems: list[str] = []
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(dict(self.features_dict))
        )

    def _split_generators(self, dl_manager):
        if self.source is None:
            raise UserError(
                f"{self.name} has not been prepared in {self.data_dir}; make it "
                "with: mdmspeech data"
            )
        return {
            split: self._generate_examples(self.source, numbers)
            for split, numbers in self.source.splits().items()
            if len(numbers)
        }

    def _generate_examples(
        self, source: ExampleSource, numbers: Sequence[int]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        seen = set()
        for number in numbers:
            try:
                record = {**self.defaults, **source.example(number)}
                if record["id"] in seen:
                    raise BadRecord(f"{record['id']}: this id was used before")
            except BadRecord as problem:
                if self.strict:
                    raise UserError(
                        f"bad record {problem}; repair it or run without strict"
                    ) from problem
                self.problems.append(str(problem))
                continue
            seen.add(record["id"])
            yield record["id"], {name: record[name] for name in self.features_dict}
