"""The example of docs/sessions.md runs as it stands."""

import re
import shutil
from importlib import resources
from pathlib import Path

import pytest
import small_session

import mdmspeech

PAGE = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_holds_a_conversation(talkative, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mdmspeech, "load", lambda release: talkative)
    monkeypatch.chdir(tmp_path)
    shutil.copy(str(resources.files("mdmspeech") / "assets" / "question.wav"), "question.wav")
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(compile(example, "docs/sessions.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("understood: ") and "samples to play" in said
    assert said.splitlines()[-1].startswith("completed ")
    assert len(talkative.sessions) <= 1  # it was closed


def test_the_page_names_every_method_and_event():
    from mdmspeech.inference import session_events

    public = [n for n, f in vars(small_session.Session).items() if callable(f) and n[0] != "_"]
    assert [
        name
        for name in public
        if f"`{name}(" not in PAGE and name not in ("work", "work_ahead", "speaking")
    ] == []
    events = [
        name for name in vars(session_events) if re.match("(Session|Speech|Resp|Turns|Tran)", name)
    ]
    unions = {"ResponseEvent", "SessionEvent"}
    assert [name for name in events if f"`{name}" not in PAGE and name not in unions] == []
