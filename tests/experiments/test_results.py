"""Every result says what made it, and README and model card quote nothing that no result holds."""

import json
import shutil
from pathlib import Path

import pytest
from provenance_problems import problems

from experiments import quote
from mdmspeech.evaluation.scoring import wilson

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def records(path):
    """(where, record of what made it) of each result in a file."""
    if path.suffix == ".jsonl":
        return [
            (f"{path.name}, line {n}", json.loads(line).get("made", {}))
            for n, line in enumerate(path.read_text().splitlines(), 1)
        ]
    found = json.loads(path.read_text(encoding="utf-8"))
    if "made" in found:
        return [(path.name, found["made"])]
    parts = {name: part for name, part in found.items() if isinstance(part, dict)}
    rows = [
        (f"{path.name}, {name} {n}", row)
        for name, part in parts.items()
        for n, row in enumerate(part.get("rows", [part] if "made" in part or len(part) > 1 else []))
    ]
    return [(where, row.get("made", {})) for where, row in rows] or [(path.name, {})]


def test_every_result_says_what_made_it():
    files = sorted([*RESULTS.rglob("*.json"), *RESULTS.rglob("*.jsonl")])
    assert len(files) > 15
    found = [(where, problems(made)) for path in files for where, made in records(path)]
    assert [(where, wrong) for where, wrong in found if wrong] == []
    assert len(found) > 100


def test_every_page_names_a_commit():
    for page in RESULTS.glob("*.md"):
        assert "commit " in page.read_text(encoding="utf-8"), page.name


@pytest.mark.parametrize(
    "field", ["commit", "command", "versions", "sizes", "seeds", "date", "cpu", "clean"]
)
def test_a_result_that_does_not_say_so_is_found(tmp_path, field):
    made = json.loads((RESULTS / "compact" / "latency.json").read_text())["made"]
    del made[field]
    made.pop("recorded", None)
    (tmp_path / "new.json").write_text(json.dumps({"wer": 3, "made": made}))
    ((_, record),) = records(tmp_path / "new.json")
    assert problems(record)


def test_the_texts_quote_the_results():
    assert [wrong for section in quote.sections() for wrong in quote.compare(section)[0]] == []


@pytest.fixture
def place(tmp_path):
    """A text, a result and a table of what the one quotes of the other."""
    (tmp_path / "r.json").write_text(json.dumps({"wer": 7.25, "n": 200, "rows": [{"ms": 349}]}))
    (tmp_path / "t.md").write_text(
        "# A\n\nWER 7.3 % of\n200 clips, S=1; 349 ms.\n\n# B\n\n17 here is nobody's business.\n"
    )
    table = ["[[section]]", 'file = "t.md"', 'start = "# A"', 'end = "# B"']
    table += [
        'quotes = ["WER {r:wer:.1f} % of {r:n:d} clips", "{r:rows.0.ms:d} ms"]',
        'plain = ["S=1"]',
    ]
    (tmp_path / "quotes.toml").write_text("\n".join(table))
    quote._result.cache_clear()
    return tmp_path


def wrong_in(place):
    (section,) = quote.sections(place / "quotes.toml", place)
    return quote.compare(section, place)


def test_a_key_may_hold_a_point(tmp_path):
    (tmp_path / "points.json").write_text('{"wait=0.06": {"ms": [1, 2]}}')
    assert quote.value("points", r"wait=0\.06.ms.1", tmp_path) == 2
    with pytest.raises(KeyError, match="in points"):
        quote.value("points", "wait=0.06.ms.1", tmp_path)


def test_a_true_quote_passes(place):
    assert wrong_in(place)[0] == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("7.3 %", "7.1 %", "7.1 instead of 7.3"),
        ("200 clips", "250 clips", "250 instead of 200"),
        ("349 ms", "349 ms of 12", "12 is tied to no result"),
        ("S=1;", "S=2;", "2 is tied to no result"),
        ("349 ms", "fast", "stands 0 times"),
        ("# B", "It is 3 %.\n\n# B", "3 is tied to no result"),
        ("349 ms", "349 ms and 349 ms", "stands 2 times"),
    ],
)
def test_a_false_or_loose_number_is_named(place, old, new, told):
    text = (place / "t.md").read_text()
    (place / "t.md").write_text(text.replace(old, new))
    assert any(told in one for one in wrong_in(place)[0]), wrong_in(place)[0]


def test_a_figure_that_no_result_holds_is_named(place):
    table = place / "quotes.toml"
    table.write_text(table.read_text().replace("r:wer:", "r:cer:"))
    assert any("quoted from nowhere" in one for one in wrong_in(place)[0])


def test_the_text_is_written_anew(place):
    shutil.copy(place / "t.md", place / "was.md")
    (place / "r.json").write_text(json.dumps({"wer": 6.5, "n": 1, "rows": [{"ms": 1200}]}))
    quote._result.cache_clear()
    text = wrong_in(place)[1]
    assert "WER 6.5 % of\n1 clips, S=1; 1200 ms." in text and "17 here" in text


def test_wilsons_interval():
    assert wilson(42, 58) == pytest.approx((0.598, 0.822), abs=5e-4)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)
