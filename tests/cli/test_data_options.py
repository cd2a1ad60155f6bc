"""Options of `mdmspeech data` that name nothing, and where the tokens of a part come from."""

import argparse
from types import SimpleNamespace

import pytest

from mdmspeech.cli import data
from mdmspeech.data.datasets import corpus
from mdmspeech.errors import UserError
from mdmspeech.nn.matmul_precision import PRECISIONS


def _asked(*argv):
    parser = argparse.ArgumentParser()
    data.add(parser.add_subparsers())
    return parser.parse_args(["data", *argv])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("mine,", ("mine",)),
        (",mine", ("mine",)),
        ("a,,b", ("a", "b")),
        (" a , b ", ("a", "b")),
        ("a,a,b", ("a", "b")),
        ("open,answers", ("open", "answers")),
    ],
)
def test_empty_names_are_no_parts(given, names):
    assert data.parts(_asked("--parts", given)) == names
    assert data.parts(_asked(), ("all",)) == ("all",)


@pytest.mark.parametrize("option", ["--parts", "--manifest"])
@pytest.mark.parametrize("given", ["", " ", "\t"])
def test_an_option_that_names_nothing_is_told_and_builds_no_corpus(option, given, tmp_path):
    with pytest.raises(UserError, match=f"{option} .*(names none|is empty)"):
        data.run(_asked(option, given, "--root", str(tmp_path / "root")))
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("given", [",", ", ,"])
def test_commas_alone_name_no_part(given):
    with pytest.raises(UserError, match="names none"):
        data.check(_asked("--parts", given))


@pytest.mark.parametrize("kind", ["--states", "--tokens"])
@pytest.mark.parametrize(
    "part", ["rare_val", "questions_val", "rare_test", "questions_test", "human"]
)
def test_nothing_is_made_of_what_is_for_judging(kind, part):
    with pytest.raises(UserError, match=f"{part}: .* to choose or to test by"):
        data.check(_asked(kind, "--parts", f"open,{part}"))
    data.check(_asked("--parts", part))  # its recordings are


@pytest.mark.parametrize("part", ["nope", "mine", "open", "digits", "my-voice"])
def test_the_cure_for_missing_tokens_names_the_part(part, tmp_path):
    with pytest.raises(
        UserError,
        match=(
            rf"data --tokens --parts {part} \(own recordings: mdmspeech data --manifest "
            rf"FILE --name {part}\)"
        ),
    ):
        corpus.tokens(tmp_path, (part,), "train")


@pytest.mark.parametrize(
    ("parts", "asked"),
    [
        ([], ("kokoro", "questions")),  # what the shipped ear learnt from
        (["--parts", "questions,rare"], ("kokoro", "rare", "questions")),
        (["--parts", "rare"], ("kokoro", "rare")),
        (
            ["--parts", "questions,sentences,rare"],
            ("kokoro", "rare", "questions", "sentences"),
        ),
    ],
)
def test_states_are_of_the_questions_unless_more_is_asked_for(parts, asked, tmp_path, monkeypatch):
    from mdmspeech.interop import sources
    from mdmspeech.preprocessing import precompute

    given = []
    monkeypatch.setattr(sources, "load_speech_encoder", lambda: SimpleNamespace(config=1, params=2))
    monkeypatch.setattr(
        precompute, "question_states", lambda *arguments: given.append(arguments) or {}
    )
    data.run(_asked("--states", "--root", str(tmp_path), "--hours", "4", *parts))
    assert given == [(str(tmp_path), 1, 2, 4.0, asked)]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_states_are_computed_in_the_precision_asked_for(precision, tmp_path, monkeypatch):
    import jax
    import jax.numpy as jnp

    from mdmspeech.interop import sources
    from mdmspeech.nn.matmul_precision import matmul
    from mdmspeech.preprocessing import precompute

    traced = []

    def states(*_):
        traced.append(str(jax.make_jaxpr(lambda x: matmul(x, x))(jnp.ones((2, 2)))))
        return {}

    monkeypatch.setattr(sources, "load_speech_encoder", lambda: SimpleNamespace(config=1, params=2))
    monkeypatch.setattr(precompute, "question_states", states)
    data.run(_asked("--states", "--root", str(tmp_path), "--matmul-precision", precision))
    assert len(traced) == 1 and ("bf16" in traced[0]) == (precision == "bfloat16")


def test_a_precision_of_what_multiplies_nothing_is_told():
    with pytest.raises(UserError, match="--matmul-precision goes with --states"):
        data.check(_asked("--tokens", "--matmul-precision", "bfloat16"))
