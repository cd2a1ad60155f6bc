"""The comparison of fixed and paced anchors reads what runs and scores say, and says what is missing."""

import json

import pytest

from experiments import anchors_curve
from mdmspeech.errors import UserError


def _run(folder, losses, held_out):
    """A run's workdir; {step: loss} of its batches, and one row of held-out losses."""
    rows = [{"step": step, "train/token": loss} for step, loss in losses.items()]
    rows.append({"step": max(losses), **held_out})
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _scores(path, wer, missed, chosen):
    row = {"set": "open", "steps": 4, "count": 50, "wer": wer, "wer_95": [wer - 1, wer + 1]}
    mdm = row | {"talker": "mdm", "eos_missed": missed, "ends_chosen": chosen}
    rows = [mdm, mdm | {"talker": "ntp", "wer": 77.0}]
    path.write_text(json.dumps({"speaking": {"rows": rows}}))


@pytest.fixture
def runs(tmp_path):
    return {
        "paced": _run(
            tmp_path / "p",
            {1: 5.0, 20: 3.0},
            {"eval/held_out/token": 9.0, "eval/held_out/answers/token": 2.5},
        ),
        "fixed": _run(tmp_path / "f", {1: 8.0, 20: 6.0}, {"eval/held_out/token": 5.5}),
    }


def _call(monkeypatch, runs, output):
    options = [word for name, folder in runs.items() for word in (f"--{name}", str(folder))]
    monkeypatch.setattr("sys.argv", ["anchors_curve", *options, "--output", str(output)])
    anchors_curve.main()


def test_both_runs_and_scores_stand_beside_each_other(runs, tmp_path, monkeypatch, capsys):
    _scores(tmp_path / "compact.json", 6.6, 0, 0)
    _scores(tmp_path / "fixed_anchors.json", 91.2, 7, 50)
    _call(monkeypatch, runs, tmp_path)
    result = json.loads((tmp_path / "anchors.json").read_text())
    # of the answers alone, where there are other parts
    assert result["curves"]["paced"]["held_out"] == [[20, 2.5]]
    assert result["curves"]["fixed"] == {"trained": [[1, 8.0], [20, 6.0]], "held_out": [[20, 5.5]]}
    told = (tmp_path / "anchors.md").read_text()
    assert told.strip() == capsys.readouterr().out.strip()
    assert "| open | 4 | fixed | 91.2 (90.2 to 92.2) | 50 | 7 of 50 |" in told
    assert "| open | 4 | paced | 6.6 (5.6 to 7.6) | 50 | none to find |" in told
    assert "77" not in told and (tmp_path / "anchors.png").stat().st_size > 1000


def test_what_is_missing_is_named(runs, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"compact\.json has no scores .* --model RELEASE"):
        _call(monkeypatch, runs, tmp_path)
    (runs["fixed"] / "metrics.jsonl").write_text('{"step": 1, "train/token": 3.0}\n')
    with pytest.raises(UserError, match="no losses of a Talker on held-out speech"):
        _call(monkeypatch, runs, tmp_path)
    assert not (tmp_path / "anchors.json").exists()
