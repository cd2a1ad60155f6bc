"""Kept answers are judged again without the model: new counts, the old beside them, and tables that
show both.
"""

import pytest
from provenance_problems import FIELDS

from mdmspeech.errors import UserError
from mdmspeech.evaluation import provenance, report, run, tables
from mdmspeech.evaluation.speaking import endings

# family, question, expected, typed, spoken; and what was counted as right before, typed and spoken
ITEMS = [
    (
        "arithmetic",
        "Work out two times one for me?",
        "Two times one is two.",
        "Work out two times one?",
        "It is two.",
        True,
        False,
    ),
    (
        "capitals",
        "The capital of France?",
        "The capital of France is Paris.",
        "Paris.",
        "Rome.",
        True,
        True,
    ),
    (
        "capitals",
        "The capital of Peru?",
        "The capital of Peru is Lima.",
        "It is Lima.",
        "It is Lima.",
        False,
        True,
    ),
    (
        "repeat",
        "Say after me: Good ships sail far.",
        "Good ships sail far.",
        "Good ships sail far.",
        "Good ships sail.",
        True,
        False,
    ),
    (
        "human repeat",
        "Now repeat what I say: Press one.",
        "Press one.",
        "Press one.",
        "Press one.",
        True,
        True,
    ),
]


@pytest.fixture
def output(tmp_path):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "config.json").write_text('{"name": "small"}')
    names = ("family", "question", "expected", "typed", "spoken", "typed_right", "spoken_right")
    made = provenance.provenance(sizes={"questions": 4}, seeds={})
    hearing = {
        "questions": 4,
        "items": [dict(zip(names, item, strict=True)) for item in ITEMS],
        "made": made,
        "made_from": {"recogniser": "base"},
    }
    report.write_json(tmp_path / "small" / "hearing.json", hearing)
    report.write_json(tmp_path / "small.json", {"name": "small"})
    return tmp_path


def test_counts_are_made_anew_and_the_old_stay_beside_them(output):
    hearing = run.rejudge(output / "release", output)["hearing"]
    facts = hearing["facts"]
    assert (
        facts["questions"],
        facts["typed_right"],
        facts["spoken_right"],
        facts["both_right"],
    ) == (3, 2, 2, 1)
    assert facts["share"] == 0.5
    assert hearing["all"]["questions"] == 4  # people's clips are no questions
    before = hearing["rejudged"]["facts"]
    assert before["typed_right"] == {"before": 2, "stand": 1, "found": 1}
    assert before["spoken_right"] == {"before": 2, "stand": 1, "found": 1}
    assert set(FIELDS) <= set(hearing["rejudged"]["by"])
    assert "| typed | 2 | 1 | 1 | 1 | 2 |" in (output / "small.md").read_text()
    kept = (output / "small" / "hearing.json").read_text()
    run.rejudge(output / "release", output)
    # the old counts are not overwritten by the new
    assert (output / "small" / "hearing.json").read_text() == kept


def test_without_kept_answers_the_cure_is_named(output):
    (output / "small" / "hearing.json").unlink()
    with pytest.raises(UserError, match=r"mdmspeech eval --model .* --parts hearing"):
        run.rejudge(output / "release", output)


def test_a_part_made_anew_holds_the_figures_it_took_the_place_of(tmp_path):
    path = tmp_path / "p.json"
    report.kept(path, {"weights": 1}, lambda: {"wer": 7.0, "facts": {"typed_right": 4}, "count": 3})
    assert "before" not in report.kept(path, {"weights": 1}, lambda: {"wer": 0.0})
    part = report.kept(
        path, {"weights": 2}, lambda: {"wer": 6.0, "facts": {"typed_right": 4}, "count": 3}
    )
    assert part["before"]["figures"] == {"wer": 7.0, "facts typed_right": 4}
    assert set(part["before"]["made"]) == {"date", "commit"} and "before" not in part["before"]
    third = report.kept(path, {"weights": 3}, lambda: {"wer": 5.0})
    assert third["before"]["figures"]["wer"] == part["wer"]
    assert third["before"]["before"] == part["before"]  # the first is not forgotten
    assert part["made"]["sizes"] == {"utterances": 3}
    shown = tables._before(part)
    assert "| wer | 7.0 | 6.0 |" in shown and "typed_right" not in shown


def test_the_figures_of_a_table_by_steps_are_kept_and_a_rows_number_of_steps_is_none():
    by_steps = {"steps": {"1": {"first_audio_ms": 349, "stages_ms": {"codec": 16.4}}}}
    assert report.figures(by_steps) == {
        "steps 1 first_audio_ms": 349,
        "steps 1 stages_ms codec": 16.4,
    }
    assert report.figures({"steps": 4, "wer": 7.0}) == {"wer": 7.0}


def test_ends_are_missed_only_where_they_are_chosen():
    paced, fixed = endings(["length"] * 5), endings(["eos", "eos", "text", "budget", "eos"])
    assert (paced["eos_missed"], paced["ends_chosen"]) == (0, 0)
    assert (fixed["eos_missed"], fixed["ends_chosen"]) == (2, 5)
    row = {
        "talker": "mdm",
        "steps": 1,
        "set": "open",
        "wer": 1.0,
        "wer_95": [0.5, 1.5],
        "cer": 1.0,
        "mos": {"ovrl": 3.0, "clips": 2},
    }
    row |= {"speed": {"timed": 2, "tokens_per_s": 9.0, "real_time_factor": 0.1}}
    assert "| 2 of 5 |" in tables._speaking(
        {"rows": [row | fixed]}
    ) and "construction" not in tables._speaking({"rows": [row | fixed]})
    assert "| none to find |" in tables._speaking(
        {"rows": [row | paced]}
    ) and "construction" in tables._speaking({"rows": [row | paced]})
    assert "DNSMOS (2 clips)" in tables._speaking(
        {"rows": [row | paced]}
    ) and "tokens/s (2 texts)" in tables._speaking({"rows": [row | paced]})
