"""Where nobody spoke, nothing is answered: descriptions of sounds are no words, and an error names the recording."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_speech import ENCODER, encoder_params, mind, question

from mdmspeech.audio.wave import save_wave
from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.ear import Ear, load_questions, writing_ear
from mdmspeech.inference.no_speech import MOST, no_words, spoken_part
from mdmspeech.models.attention_adaptor import AttentionAdaptor, AttentionConfig
from mdmspeech.text.pieces import shipped_names

NAMES = shipped_names()


@pytest.mark.parametrize(
    "text",
    [
        "[Pause]", "(humming)", "[Music]", "[MUSIC PLAYING]", "(upbeat music)", "[no speech detected]", "(clippers buzzing)", "[B]", "[ Silence ]",
        "♪", "♪♪", "♪ ♪ ♪", "♪ la la la ♪", "♪ la la", "♫ tra la", "*coughs*", "**sighs**", "* *", "*laughs", "{noise}", "(tap tap tap tap tap",
        "[wind howling", "[inaudible] [inaudible]", "(sad music) [Music] ♪", "[a (very) loud noise]", "([nested] and more)", "(chimes).", "[BLANK_AUDIO].",
        "- [door]", ">> (bell)", ".", "...", "!", "?", "-", "", "  ", "[]", "()", "[Music] . . .", ")", "music]".replace("music", ""),
    ],
)  # fmt: skip
def test_no_words_at_all(text):
    assert spoken_part(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Music] What is the capital of France?", "What is the capital of France?"),
        ("What is the capital of France? [Music]", "What is the capital of France?"),
        ("What is (clears throat) the time?", "What is the time?"),
        ("What is the time (cough)?", "What is the time?"),
        ("*coughs* Hello there.", "Hello there."),
        ("(bell) - Who is there?", "Who is there?"),
        ("[door closes]. Stop.", "Stop."),
        ("♪ la la ♪ Sing me a song.", "Sing me a song."),
        ("Sing me a song. ♪ la la", "Sing me a song."),
        ("Tell me (laughs) a joke [laughs] please.", "Tell me a joke please."),
        ("How are you? (wind how", "How are you?"),
        ("One [noise (loud)] two.", "One two."),
    ],
)
def test_the_words_beside_them_are_kept(text, said):
    assert spoken_part(text) == said


@pytest.mark.parametrize(
    "text",
    ["What is 2 * 3 * 4?", "What is 3*4*5?", "Yes.", "No", "I", "7", "...and then?", "- Stop.", "Well -- no.", "It's five o'clock; isn't it?", "Was ist ä?"],
)  # fmt: skip
def test_texts_without_them_stay_as_they_are(text):
    assert spoken_part(text) == text


def test_pieces_that_begin_a_description():
    silent = no_words(NAMES)
    assert silent.shape == (len(NAMES) + 1,) and silent[-1]
    for name, is_one in {"Ġ[": True, "[": True, "Ġ(": True, "Ġ*": True, "ĠThe": False, "Ġ": False, "Ġyou": False, "]": False}.items():
        assert silent[NAMES.index(name)] == is_one, name


@pytest.fixture(scope="module")
def ear_of():
    """An ear whose pieces have the probabilities one wants, whatever it hears."""
    sizes = AttentionConfig(states=32, width=8, layers=1, heads=2, ffn=8, pieces=len(NAMES), positions=40)
    shapes = (jnp.zeros((1, 4, 32)), jnp.ones((1, 4), bool), jnp.zeros((1, 2), jnp.int32))
    params = jax.jit(AttentionAdaptor(sizes).init)(jax.random.key(0), *shapes)["params"]
    encoder = encoder_params()

    def make(**probabilities):
        table = np.full((sizes.vocabulary, 8), -40.0, np.float32)
        for name, share in probabilities.items():
            table[sizes.end if name == "end" else NAMES.index(name)] = np.log(share)
        first = np.eye(8, dtype=np.float32)[0]
        fixed = {**params, "embedding": table, "norm": {"scale": 0 * first, "bias": first}}
        return writing_ear(ENCODER, encoder, sizes, fixed)

    return make


@pytest.mark.parametrize(
    ("probabilities", "heard"),
    [
        ({"Ġyes": 0.9, "Ġ[": 0.1}, True),
        ({"Ġyes": 0.6, "Ġ[": 0.2, "Ġ(": 0.15, "Ġ*": 0.05}, True),
        ({"Ġyes": 0.4, "Ġ[": 0.3, "Ġ(": 0.3}, False),  # a word is the likeliest piece, and yet
        ({"Ġyou": 0.35, "Ġ[": 0.2, "Ġ(": 0.2, "[": 0.1, "(": 0.15}, False),
        ({"Ġyou": 0.4, "Ġ[": 0.3, "end": 0.3}, False),
        ({"Ġ[": 0.9, "Ġyes": 0.1}, False),
        ({"end": 0.9, "Ġyes": 0.1}, False),
        ({"Ġ.": 1.0}, False),
    ],
)
def test_what_the_first_piece_might_have_been_counts(ear_of, probabilities, heard):
    assert 0.3 <= MOST <= 0.5
    text = ear_of(**probabilities).listen(question(1.0)).transcript
    assert text.startswith("yes yes yes") if heard else text == ""


@pytest.fixture(scope="module")
def assistant(codec, assistant):
    """It hears words in recordings of more than a second."""

    def finish(out, valid, row):
        return None, "what is it ?" if valid[row].sum() > 2.2 * 50 else ""  # a second of silence is behind each

    ear = Ear(ENCODER, encoder_params(), lambda params, states, valid: valid, {}, finish)
    return Assistant("small", {"mdm": assistant.voice}, lambda: ear, mind)


LONG, SHORT = question(2.0), question(0.8)


@pytest.mark.parametrize("ask", ["chat", "hear", "transcript"])
def test_an_error_names_the_recording(assistant, ask, tmp_path):
    save_wave(tmp_path / "noise.wav", SHORT, 16_000)
    with pytest.raises(UserError, match=r"no speech heard in .*noise\.wav; speak closer"):
        getattr(assistant, ask)(tmp_path / "noise.wav")
    with pytest.raises(UserError, match=r"^no speech heard in the recording"):
        getattr(assistant, ask)(SHORT)
    assert getattr(assistant, ask)(LONG)


def test_of_many_the_first_without_speech_is_named_or_replaced(assistant):
    waves = [LONG, SHORT, LONG, SHORT]
    for ask in (assistant.hear_many, assistant.transcripts):
        with pytest.raises(UserError, match=r"^recording 2 of 4: no speech heard"):
            ask(waves)
        answers = ask(waves, unheard="?")
        assert answers[1] == answers[3] == "?" and answers[0] == answers[2] == ask([LONG])[0] != "?"
        assert ask([SHORT], unheard="") == [""] and ask([]) == []


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([LONG, "no.wav"], r"^recording 2 of 2: no\.wav does not exist"),
        ([np.zeros(16_000), LONG], "^recording 1 of 2: the wave holds only silence"),
        ([LONG, LONG, None], "^recording 3 of 3: .*None"),
        (["x" * 300], "^x+.*File name too long"),
        ("q.wav", "^many recordings are asked for, str is one; give a list"),
        (3, "int is one"),
        ([LONG, question(31.0)], r"^recording 2 of 2: the wave is too long: 31\.0 s"),
        ([question(0.01), LONG], r"^recording 1 of 2: the wave is too short"),
    ],
)
def test_of_many_the_bad_one_is_named_before_anything_is_opened(sources, message):
    def closed():
        raise AssertionError("opened")

    shut = Assistant("x", {"mdm": closed}, closed, closed)
    for ask in (load_questions, shut.hear_many, shut.transcripts):
        with pytest.raises(UserError, match=message):
            ask(sources)
    if isinstance(sources, list):
        with pytest.raises(UserError):
            shut.stream(sources)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "no question in ''.*What is the capital of France"),
        ("   ", "no question in '   '"),
        ("\n\t", "no question"),
        ("?!", "no question in"),
        ("\u2014 \u2026", "no question in"),
        ("\u200b", "no question in"),
        (None, "a typed question is a str, this is NoneType"),
        (b"What is it?", "this is bytes"),
        (5, "this is int"),
        (["What is it?"], "this is list"),
        (LONG, "this is ndarray; chat.. and hear.. take recordings"),
        ("What is \ud800?", "lone surrogate"),
    ],
)
def test_typed_questions_that_are_none(typed, message, assistant):
    def closed():
        raise AssertionError("opened")

    shut = Assistant("x", {"mdm": closed}, closed, closed)
    with pytest.raises(UserError, match=message):
        shut.answer(typed)
    with pytest.raises(UserError, match=f"^question 2 of 2: .*{message}"):
        assistant.answer_many(["what is it ?", typed])


def test_typed_questions_come_as_a_list(assistant):
    with pytest.raises(UserError, match=r"give a list, or use answer\(\)"):
        assistant.answer_many("what is it ?")
    assert assistant.answer_many([]) == []
    with pytest.raises(UserError, match="^question 2 of 2: the question has .* ask something shorter"):
        assistant.answer_many(["what is it ?", "what " * 600])


def test_options_pass_through(assistant):
    assert len(assistant.chat(LONG, steps=np.int64(2), seed=np.int32(1)).audio)
