"""The metadata of cards are what the Hub takes, say what is known and nothing else, and leave what a
card says itself.
"""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import hub_server, point_at, problems_of
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

import mdmspeech
from mdmspeech.errors import UserError
from mdmspeech.interop import card as cards
from mdmspeech.interop.release import Release

ROOT = Path(mdmspeech.__file__).parents[1]
SHIPPED = Path(mdmspeech.__file__).parent / "assets" / "compact" / "README.md"
SHIPS = ["HuggingFaceTB/SmolLM2-135M-Instruct", "openai/whisper-base"]
SCORES = json.loads((ROOT / "experiments" / "results" / "compact.json").read_text())


def release(*parts, **how):
    """One with parts of these names, or "name: kind"."""
    pairs = [name.partition(": ")[::2] for name in parts]
    kinds = {
        name: SimpleNamespace(kind=kind or name, params={}, prompt=None) for name, kind in pairs
    }
    return dataclasses.replace(Release("some", kinds), **how)


def away(*parts, thinker="/x", encoder="/y"):
    """Its Thinker and encoder are somewhere else."""
    return release(*parts, thinker=thinker, encoder=encoder)


def test_the_shipped_card_is_what_the_hub_takes(tmp_path, monkeypatch):
    card = ModelCard.load(SHIPPED)
    with hub_server() as server:
        point_at(server.url, tmp_path, monkeypatch)
        card.validate()  # the library's own, which asks its Hub
        assert server.requests == ["POST /api/validate-yaml"]
        with pytest.raises(ValueError, match="license"):
            ModelCard("---\nlicense: my own\n---\n").validate()
    assert not problems_of(SHIPPED.read_text())
    data = card.data.to_dict()
    assert (data["license"], data["language"], data["library_name"]) == (
        "apache-2.0",
        ["en"],
        "mdmspeech",
    )
    assert data["pipeline_tag"] == "audio-to-audio" and len(data["tags"]) > 3
    assert data["base_model"] == SHIPS


def test_the_shipped_card_has_the_scores_that_were_measured():
    _, said = model_index_to_eval_results(ModelCard.load(SHIPPED).data.to_dict()["model-index"])
    parts = json.loads(SHIPPED.with_name("config.json").read_text())["parts"]
    _, found = model_index_to_eval_results(cards.model_index("compact", SCORES, parts))
    assert [vars(each) for each in said] == [vars(each) for each in found] and len(said) == 11


@pytest.mark.parametrize(
    ("made", "task", "bases"),
    [
        (release("codec", "talker", "adaptor"), "audio-to-audio", SHIPS),
        (release("codec", "talker_ntp"), "text-to-speech", None),
        (release("aligner: phone_reader"), None, SHIPS[1:]),
        (release("codec"), None, None),
        (away("talker", "codec: cosyvoice2_codec"), "text-to-speech", ["FunAudioLLM/CosyVoice2-0.5B"]),
        (
            away("talker", "adaptor", thinker="/c/hub/models--Qwen--Qwen3-0.6B/snapshots/01"),
            "audio-to-audio",
            ["Qwen/Qwen3-0.6B"],
        ),
        (
            away("adaptor", thinker="/c/models--o-1--a.b/snapshots/0/thinker"),
            None,
            ["o-1/a.b"],
        ),
        (away("talker", "adaptor"), "audio-to-audio", None),
    ],
)  # fmt: skip
def test_what_a_release_says_of_itself(made, task, bases):
    known = cards.metadata(made)
    assert (known.get("pipeline_tag"), known.get("base_model")) == (task, bases)
    card = cards.complete(cards.default_card(made), known)
    assert not problems_of(card) and card.count("\n---\n") == 1
    assert known["license"] == "unknown" and known["library_name"] == "mdmspeech"


@pytest.mark.parametrize(
    "card",
    [
        "# A card\n",
        "",
        "no title",
        "# A rule\n\n---\n\nbelow\n",
        "---\nlicense: mit\n---\n# Own\n",
        "---\nlicense: mit\ntags:\n- mine\n- ours\npipeline_tag: text-to-speech\n---\n\ntext\n",
        "---\n---\n# Empty\n",
        "---\nthumbnail: a.png\nwidget:\n- text: hello\n---\n# More keys\n",
    ],
)
def test_what_a_card_says_itself_stays(card):
    known = cards.metadata(release("codec", "talker", "adaptor"))
    whole = cards.complete(card, known)
    before, after = (ModelCard(text) for text in (card, whole))
    assert after.text.strip() == before.text.strip()
    own = before.data.to_dict()
    assert {key: after.data.to_dict()[key] for key in own} == own
    assert set(known) <= set(after.data.to_dict()) and not problems_of(whole)
    assert cards.complete(whole, known) == whole


@pytest.mark.parametrize("block", ["- a\n- list", "license: [mit", "just words", "a: b: c"])
def test_metadata_that_are_none_are_told(block):
    with pytest.raises(UserError, match="are not what the Hugging Face Hub takes"):
        cards.complete(f"---\n{block}\n---\n# x\n", {"license": "mit"})


@pytest.mark.parametrize("scores", [{}, {"speaking": {"rows": []}}, {"hearing": {"questions": 3}}])
def test_no_scores_are_told(scores):
    with pytest.raises(UserError, match="no scores of this release"):
        cards.model_index("some", scores, {"talker"})


def test_talkers_that_are_not_inside_are_not_scored():
    rows = [SCORES["speaking"]["rows"][0] | {"talker": name} for name in ("mdm", "ntp")]
    told = json.dumps(cards.model_index("some", {"speaking": {"rows": rows}}, {"talker_ntp"}))
    assert "talker ntp" in told and "talker mdm" not in told
