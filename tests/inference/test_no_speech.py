"""Where nobody spoke, nothing is answered: descriptions of sounds are no words, and an error names
the recording.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_speech import ENCODER, encoder_params, question, words_if_long

from mdmspeech.audio.writer import save_wave
from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.no_speech import MOST, no_words, spoken_part
from mdmspeech.inference.speech_frontend import SpeechFrontend, load_waves, seq2seq_frontend
from mdmspeech.models.seq2seq_adaptor import Seq2SeqAdaptor, Seq2SeqConfig
from mdmspeech.text.pieces import shipped_names

NAMES = shipped_names()


@pytest.mark.parametrize(
    "text",
    [
        "[Pause]", "(humming)", "[Music]", "[MUSIC PLAYING]", "(upbeat music)",
        "[no speech detected]", "(clippers buzzing)", "[B]", "[ Silence ]",
        "♪", "♪♪", "♪ ♪ ♪", "♪ la la la ♪", "♪ la la", "♫ tra la", "*coughs*", "**sighs**", "* *",
        "*laughs", "{noise}", "(tap tap tap tap tap",
        "[wind howling", "[inaudible] [inaudible]", "(sad music) [Music] ♪",
        "[a (very) loud noise]", "([nested] and more)", "(chimes).", "[BLANK_AUDIO].",
        "- [door]", ">> (bell)", ".", "...", "!", "?", "-", "", "  ", "[]", "()", "[Music] . . .",
        ")", "music]".replace("music", ""),
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
    ["What is 2 * 3 * 4?", "What is 3*4*5?", "Yes.", "No", "I", "7", "...and then?", "- Stop.",
        "Well -- no.", "It's five o'clock; isn't it?", "Was ist ä?"],
)  # fmt: skip
def test_texts_without_them_stay_as_they_are(text):
    assert spoken_part(text) == text


def test_pieces_that_begin_a_description():
    silent = no_words(NAMES)
    assert silent.shape == (len(NAMES) + 1,) and silent[-1]
    for name, is_one in {
        "Ġ[": True,
        "[": True,
        "Ġ(": True,
        "Ġ*": True,
        "ĠThe": False,
        "Ġ": False,
        "Ġyou": False,
        "]": False,
    }.items():
        assert silent[NAMES.index(name)] == is_one, name


def ear_with(names):
    """A front end whose pieces, of a shipped list, have the probabilities one wants, whatever it
    hears.
    """
    sizes = Seq2SeqConfig(
        encoder_dim=32, dim=8, num_layers=1, num_heads=2, ffn_dim=8, pieces=len(names), positions=40
    )
    shapes = (jnp.zeros((1, 4, 32)), jnp.ones((1, 4), bool), jnp.zeros((1, 2), jnp.int32))
    params = jax.jit(Seq2SeqAdaptor(sizes).init)(jax.random.key(0), *shapes)["params"]
    encoder = encoder_params()
    frontend = seq2seq_frontend(ENCODER, encoder, sizes, params)

    def make(**probabilities):
        table = np.full((sizes.vocab_size, 8), -40.0, np.float32)
        for name, share in probabilities.items():
            table[sizes.end if name == "end" else names.index(name)] = np.log(share)
        first = np.eye(8, dtype=np.float32)[0]
        fixed = {**params, "embedding": table, "norm": {"scale": 0 * first, "bias": first}}
        frontend._params = jax.tree.map(jnp.asarray, (encoder, fixed))  # what is compiled stays
        return frontend

    return make


@pytest.fixture(scope="module")
def ear_of():
    return ear_with(NAMES)


def test_an_adaptor_writes_the_pieces_of_its_own_list():
    """Of the first release, too."""
    make = ear_with(shipped_names(23_793))
    assert make(Ġyes=1.0).encode(question(1.0)).transcript == "yes"
    assert make(**{"Ġyes": 0.7, "Ġ[": 0.3}).encode(question(1.0)).transcript == ""


@pytest.mark.parametrize(
    ("probabilities", "heard"),
    [
        ({"Ġyes": 0.9, "Ġ[": 0.1}, True),
        ({"Ġyes": 0.85, "Ġ[": 0.05, "Ġ(": 0.05, "ĠYes": 0.05}, True),
        ({"Ġyes": 0.7, "Ġ[": 0.15, "Ġ(": 0.15}, False),  # a word is the likeliest piece, and yet
        ({"Ġyou": 0.35, "Ġ[": 0.2, "Ġ(": 0.2, "[": 0.1, "(": 0.15}, False),
        ({"Ġyou": 0.4, "Ġ[": 0.3, "end": 0.3}, False),
        ({"Ġ[": 0.9, "Ġyes": 0.1}, False),
        ({"end": 0.9, "Ġyes": 0.1}, False),
        ({"Ġ.": 1.0}, False),
    ],
)
def test_what_the_first_piece_might_have_been_counts(ear_of, probabilities, heard):
    assert 0.1 < MOST < 0.3
    text = ear_of(**probabilities).encode(question(1.0)).transcript
    assert text == ("yes" if heard else "")  # it never ends, and once is enough


def closed():
    raise AssertionError("opened")


LONG, SHORT = question(2.0), question(0.8)


@pytest.fixture(scope="module")
def listener():
    """An assistant that hears words in recordings of more than a second, and which has nothing else."""
    frontend = SpeechFrontend(
        ENCODER, encoder_params(), lambda params, states, valid: valid, {}, words_if_long
    )
    return Assistant("small", {"mdm": closed}, lambda: frontend, closed)


def test_an_error_names_the_recording(listener, tmp_path):
    save_wave(tmp_path / "noise.wav", SHORT, 16_000)
    for source, name in (
        (tmp_path / "noise.wav", r".*noise\.wav"),
        (SHORT, "the recording"),
        ((16_000, SHORT), "the recording"),
    ):
        for ask in (listener.transcript, listener.hear):
            with pytest.raises(UserError, match=f"^no speech heard in {name}; speak closer"):
                ask(source)
    assert listener.transcript(LONG) == "what is it ?"


def test_of_many_the_first_without_speech_is_named_or_replaced(listener):
    waves = [LONG, SHORT, LONG, SHORT]
    for ask in (listener.hear_many, listener.transcripts):
        with pytest.raises(UserError, match=r"^recording 2 of 4: no speech heard"):
            ask(waves)
    assert listener.transcripts(waves, unheard="?") == ["what is it ?", "?"] * 2
    assert listener.transcripts([]) == []


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
    shut = Assistant("x", {"mdm": closed}, closed, closed)
    for ask in (load_waves, shut.hear_many, shut.transcripts):
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
def test_typed_questions_that_are_none(typed, message):
    shut = Assistant("x", {"mdm": closed}, closed, closed)
    with pytest.raises(UserError, match=message):
        shut.answer(typed)
    with pytest.raises(UserError, match=f"^question 1 of 2: .*{message}"):
        shut.answer_many([typed, typed])


def test_typed_questions_come_as_a_list():
    with pytest.raises(UserError, match=r"give a list, or use answer\(\)"):
        Assistant("x", {}, closed, closed).answer_many("what is it ?")
