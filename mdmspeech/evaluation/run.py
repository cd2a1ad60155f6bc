"""`mdmspeech eval`: every score of a release in parts that are made once and kept, then one table
with plots.

    <output>/compact.json  compact.md            the figures
    <output>/compact/*.json                      one file a part, with what it was made from, when, and on which machine
    <output>/compact/*.png                       plots
    <data root>/evaluation/compact/              sample WAV files

and, on validation data, `compact-val` in place of `compact`.

A part is made again when the weights it depends on, the number of utterances, the recogniser or
the typed questions change, or when forced.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdmspeech.data.storage.record_store import data_root
from mdmspeech.errors import UserError
from mdmspeech.evaluation import speaking
from mdmspeech.evaluation.codec import score_codec
from mdmspeech.evaluation.hearing import evaluate_hearing, rejudged
from mdmspeech.evaluation.knowledge import digest, evaluate_knowledge, question_sets
from mdmspeech.evaluation.latency import evaluate_latency
from mdmspeech.evaluation.provenance import provenance
from mdmspeech.evaluation.reading import evaluate_reading
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.recognition import evaluate_recognition, written_by
from mdmspeech.evaluation.report import SEEDS, kept, sizes_of, write_json
from mdmspeech.evaluation.tables import write_tables
from mdmspeech.evaluation.testset import QUESTIONS
from mdmspeech.inference.factory import TALKERS, open_assistant
from mdmspeech.interop.release import CONFIG, find_release, load_release
from mdmspeech.interop.sources import load_speech_encoder, load_thinker
from mdmspeech.interop.tensors import read_json

PARTS = ("codec", "hearing", "recognition", "knowledge", "speaking", "reading", "latency")
VALIDATION = ("codec", "recognition", "knowledge")  # parts that have data to choose by
COUNT = 200  # utterances of a set
MOS_COUNT = 50
_LATENCY_QUESTIONS = 7


class Evaluation:
    """One release under test, or, with split "val", under the eyes of who chooses it. Models and the
    recogniser are opened when a part that is not kept needs them.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        root: str | Path | None,
        output: str | os.PathLike,
        *,
        count: int | None = None,
        force: bool = False,
        recogniser: str = "base",
        threads: int = 2,
        beam: int = 1,
        split: str = "test",
    ):
        about = read_json(find_release(model) / CONFIG)
        self.release, self.root, self._split = str(about["name"]), root, split
        self.name = self.release if split == "test" else f"{self.release}-{split}"
        self.output = Path(output)
        self.folder = self.output / self.name
        self.work = data_root(root) / "evaluation" / self.name
        self._model, self._count, self._force = model, count, force
        self._digests = {name: part["sha256"][:16] for name, part in about["parts"].items()}
        prompt = json.dumps([about["system"], about.get("examples")])
        self._digests |= {
            **{
                name: about.get("digests", {}).get(name, about[name])
                for name in ("thinker", "encoder")
            },
            "prompt": hashlib.sha256(prompt.encode()).hexdigest()[:16],
        }
        if update := self._digests.get("thinker_lora"):
            self._digests["thinker"] += f"+{update}"
        self._listener: dict[str, Any] = {"model": recogniser, "threads": threads, "beam": beam}

    @functools.cached_property
    def assistant(self) -> Any:
        """The release, opened."""
        return open_assistant(load_release(self._model), load_thinker, load_speech_encoder)

    @functools.cached_property
    def recogniser(self) -> Recogniser:
        """The independent recogniser."""
        return Recogniser(**self._listener)

    def codec(self) -> dict:
        """Resynthesis against the original."""

        def make() -> dict:
            codec = self.assistant.voice(self.assistant.talkers[0]).codec
            scores = score_codec(
                codec,
                self.root,
                self._size,
                self.work / "codec",
                split=self._split,
                mos_count=MOS_COUNT,
                recogniser=self.recogniser,
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.work / "codec" / "codec.png", self.folder / "codec.png")
            return scores

        return self._kept("codec", ("codec",), make)

    def hearing(self) -> dict:
        """Spoken against typed questions."""
        return self._kept(
            "hearing",
            ("adaptor", "encoder", "thinker", "prompt"),
            lambda: evaluate_hearing(self.assistant, self.root, self._count),
        )

    def recognition(self) -> dict:
        """What is written down, beside the recogniser as it was published."""
        theirs = self._kept(
            "whisper",
            (),
            lambda: written_by(self.recogniser, self.root, self._count, self._split),
        )
        return self._kept(
            "recognition",
            ("adaptor", "encoder"),
            lambda: evaluate_recognition(
                self.assistant, self.recogniser, theirs, self.root, self._count, self._split
            ),
        )

    def knowledge(self) -> dict:
        """Typed questions that no training saw."""
        asked = question_sets(self._split)
        return self._kept(
            "knowledge",
            ("thinker", "prompt"),
            lambda: evaluate_knowledge(self.assistant, asked, self._count),
            asked=digest(asked),
        )

    def speaking(self) -> dict:
        """One row for each Talker, number of steps and set of texts; every row is kept by itself."""
        thinker = ("thinker", "prompt")
        texts = self._kept(
            "answers",
            thinker,
            lambda: {"texts": speaking.answer_texts(self.assistant, self.root, self._size)},
        )["texts"]
        make_set = {
            "answers": functools.cache(lambda: speaking.answer_set(texts, self._rate)),
            "open": functools.cache(lambda: speaking.open_set(self.root, self._size)),
        }
        rows = []
        for talker, steps in speaking.rows(self.assistant):
            for name, texts_of in make_set.items():
                make = functools.partial(self._row, texts_of, talker, steps)
                depends = (
                    TALKERS[talker],
                    "codec",
                    *(thinker if name == "answers" else ()),
                )
                rows.append(self._kept(f"speaking-{name}-{talker}-{steps}", depends, make))
        return {"rows": rows}

    def reading(self) -> dict:
        """Written texts as people read them, against words by hand."""
        return self._kept(
            "reading",
            ("talker", "codec"),
            lambda: evaluate_reading(self.assistant, self.recogniser, self._count),
        )

    def latency(self) -> dict:
        """The wait for the first sound."""
        return self._kept(
            "latency",
            tuple(self._digests),
            lambda: evaluate_latency(self.assistant, self.root, _LATENCY_QUESTIONS),
        )

    @property
    def _size(self) -> int:
        return COUNT if self._count is None else self._count

    @property
    def _rate(self) -> int:
        return self.assistant.voice(self.assistant.talkers[0]).codec.sample_rate

    def _row(self, texts_of, talker: str, steps: int) -> dict:
        return speaking.score_row(
            self.assistant,
            self.recogniser,
            texts_of(),
            talker,
            steps,
            mos_count=MOS_COUNT,
            samples=self.work / "speaking",
        )

    def _kept(self, name: str, depends: Sequence[str], make, **more: str) -> dict:
        made_from = {
            "weights": {part: self._digests.get(part, "none") for part in depends},
            "count": self._count,
            "recogniser": f"{self._listener['model']} beam {self._listener['beam']}",
            **more,
        }

        def announced() -> dict:
            print(f"{self.name}: {name}", file=sys.stderr, flush=True)
            return make()

        return kept(self.folder / f"{name}.json", made_from, announced, self._force)


def evaluate(
    model: str | os.PathLike = "compact",
    root: str | Path | None = None,
    output: str | os.PathLike = "experiments/results",
    *,
    parts: Sequence[str] | None = None,
    count: int | None = None,
    force: bool = False,
    split: str = "test",
    **recogniser: Any,
) -> dict:
    """Scores a release and writes <output>/<name>.json and .md with plots; returns what the JSON
    file holds.

    Args:
      model: a shipped release or a release folder. root: the corpus folder (see
        `data.storage.record_store.data_root`).
      parts: some of `PARTS` to bring up to date (None: all). Parts made earlier and not named keep
        their figures in the tables.
      count: utterances of a set (None: 200, and all test questions). force: make the named parts
        again.
      split: "val" scores `VALIDATION` on validation data, by which releases are chosen, and writes
        <name>-val.json.
      **recogniser: `recogniser` ("base", "tiny" or a folder), `threads`, `beam`; see
        `recogniser.Recogniser`.

    Raises:
      UserError: an unknown part or split, a part that the split has no data for, no such release, no
        corpus, or a package that scoring needs is missing.
    """
    if split not in QUESTIONS:
        raise UserError(f"there is no split {split!r}; choose from {', '.join(QUESTIONS)}")
    has = PARTS if split == "test" else VALIDATION
    wanted = tuple(parts or has)
    unknown = [part for part in wanted if part not in has]
    if unknown:
        of = "" if split == "test" else f" of {split}"
        raise UserError(f"there is no part {unknown[0]!r}{of}; choose from {', '.join(has)}")
    run = Evaluation(model, root, output, count=count, force=force, split=split, **recogniser)
    summary = run.output / f"{run.name}.json"
    result = {**(read_json(summary) if summary.is_file() else {}), "name": run.name}
    if split != "test":
        result |= {"split": split, "release": run.release}
    for part in PARTS:
        if part in wanted:
            result[part] = {
                key: value for key, value in getattr(run, part)().items() if key != "items"
            }
            write_json(summary, result)
            # after each part, so that a long run shows what it has
            write_tables(result, run.output)
    return result


def rejudge(
    model: str | os.PathLike = "compact", output: str | os.PathLike = "experiments/results"
) -> dict:
    """Judges the kept answers of a release again, without the release, and writes its tables anew
    with the old counts beside the new.

    Raises:
      UserError: no such release, or no kept answers.
    """
    name = str(read_json(find_release(model) / CONFIG)["name"])
    file, summary = Path(output) / name / "hearing.json", Path(output) / f"{name}.json"
    if not file.is_file() or not summary.is_file():
        raise UserError(
            f"there are no kept answers in {file}; make them: mdmspeech eval "
            f"--model {model} --parts hearing"
        )
    old = read_json(file)
    part = rejudged(old)
    if part is not old:
        part["rejudged"]["by"] = provenance(
            sizes=sizes_of(part), seeds={"the bootstrap": SEEDS["the bootstrap"]}
        )
        write_json(file, part)
    result = read_json(summary)
    result["hearing"] = {key: value for key, value in part.items() if key != "items"}
    write_json(summary, result)
    write_tables(result, Path(output))
    return result
