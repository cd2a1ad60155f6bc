"""The samples' page: every way of every answer is a sound that the page leads to."""

import re
import sys

import numpy as np
import pytest
import soundfile

import mdmspeech
from experiments import samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that the command writes, of the shipped model and one question."""
    out = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["samples", "-o", str(out), "--count", "1"])
        samples.main()
    return out


@pytest.mark.slow
def test_every_way_is_heard(made):
    page = (made / samples.PAGE).read_text()
    model = mdmspeech.load("compact")
    answer = model.answer(samples.QUESTIONS[0]).text
    assert f"| {samples.QUESTIONS[0]} | {answer} |" in page
    files = re.findall(r"\(\.\./\.\./docs/site/samples/([^)]+)\)", page)
    assert files == re.findall(r'src="\.\./\.\./samples/([^"]+)"', page)
    assert len(files) == 2 + len(samples.STEPS) + len(set(model.talkers) - {"mdm"})
    assert {file.name for file in (made / samples.SOUNDS).iterdir()} == set(files)
    sounds = {}
    for file in files:
        audio, rate = soundfile.read(made / samples.SOUNDS / file)
        assert rate == model.sample_rate and np.abs(audio).max() > 0.1
        sounds[file] = audio
    lengths = [len(audio) for audio in sounds.values()]
    assert max(lengths) < 1.3 * min(lengths)
    assert len({audio[: min(lengths)].tobytes() for audio in sounds.values()}) == len(files)


def test_a_page_of_several_questions():
    rows = [
        {"question": f"q{n}", "answer": f"a{n}", "files": {"original": f"{n}-o.mp3", "S=1": f"{n}-1.mp3"}}
        for n in (1, 2)
    ]  # fmt: skip
    made = {"date": "today", "commit": "0123456789abcdef", "command": "python -m that --model x"}
    text = samples.page(rows, made, "there")
    assert "Made by `python -m that --model x`." in text
    assert "| question | answer | original | S=1 |" in text and "commit 0123456789" in text
    assert re.findall(r"\(there/([^)]+)\)", text) == ["1-o.mp3", "1-1.mp3", "2-o.mp3", "2-1.mp3"]


def test_the_page_in_the_repository_leads_to_its_sounds():
    page = samples.ROOT / samples.PAGE
    files = re.findall(r"\]\((\.\./\.\./docs/site/samples/[^)]+)\)", page.read_text())
    assert len(files) >= 5 * len(samples.QUESTIONS)
    assert all((page.parent / file).is_file() for file in files)
