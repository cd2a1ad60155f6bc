"""A ladder from its command to its lines, on random data, and what a voice that can speak scores."""

from pathlib import Path

import pytest
from provenance_problems import problems

from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.scaling.results import read_rows, runs_of
from mdmspeech.scaling.speaking import word_errors

LADDER = Path(__file__).parents[2] / "experiments" / "ladder.py"
pytestmark = [pytest.mark.full, pytest.mark.usefixtures("quick_compilation")]


def test_two_rungs_are_trained_and_measured(tmp_path, capsys):
    settings = ["--set", "optim.warmup=2", "--set", "talker.symbol_lookahead=2"]
    command = ["ladder", "run", "--config", f"{LADDER}:batch=8,part=random",
               "--widths", "64", "--layers", "1", "--budgets", "12e3,24e3",
               "--workdir", str(tmp_path), *settings]  # fmt: skip
    assert main(command) == 0
    rows = read_rows(tmp_path / "ladder.jsonl")
    assert [row["rung"] for row in rows] == ["w64-l1/12000", "w64-l1/24000"]
    assert not [wrong for row in rows for wrong in problems(row["made"])]
    assert rows[1]["flops"] == 2 * rows[0]["flops"] and rows[1]["steps"] == 12
    small, large = (row["tokens"]["seen"] for row in rows)
    assert 0.8 * 6 * 2048 < small < 6 * 2048 < large < 12 * 2048
    assert all(8.0 < run.loss < 10.0 for run in runs_of(rows))
    assert set(rows[0]["nats"]) == {"0.25", "0.5", "0.75", "1", "mean"}
    before = (tmp_path / "ladder.jsonl").read_bytes()
    assert main(command) == 0 and (tmp_path / "ladder.jsonl").read_bytes() == before
    assert "w64-l1/24000: N " in capsys.readouterr().out


def test_the_shipped_voice_is_understood():
    import dataclasses

    from ml_collections import ConfigDict

    from mdmspeech.cli.release import open_codec
    from mdmspeech.evaluation.recogniser import Recogniser
    from mdmspeech.interop.release import load_release

    codec, _ = open_codec("compact")
    part = load_release("compact").part("talker")
    config = ConfigDict({"talker": dataclasses.asdict(part.config)})
    texts = ["The capital of France is Paris.", "A train leaves at seven in the morning."]
    found = word_errors(texts, codec, Recogniser("base"), (4,))(config, part.params)
    assert found["wer"]["4"]["wer"] < 30 and found["wer"]["4"]["words"] > 10
    with pytest.raises(UserError, match="no texts to speak"):
        word_errors([], codec, Recogniser("base"))
