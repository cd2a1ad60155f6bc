"""What a kind of part says of itself: what it was made for, and whether its codec knows silence."""

import dataclasses

import pytest

from mdmspeech.cli.release import silence_codes
from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.errors import UserError
from mdmspeech.interop.assembly import check_parts
from mdmspeech.interop.parts import KINDS, StackConfig
from mdmspeech.interop.release import Part
from mdmspeech.models.ctc_adaptor import CTCConfig
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig
from mdmspeech.models.talker import TalkerConfig

THINKER, ENCODER = 24, 16  # widths
FIXED = TalkerConfig(anchors="fixed", text_dim=2 * THINKER)
MADE_FOR_THEM = {
    "talker_mdm": FIXED,
    "talker_ntp": FIXED,
    "talker_mtp": dataclasses.replace(FIXED, mtp_modules=5),
    "stack_adaptor": StackConfig(ENCODER, THINKER),
    "attention_adaptor": Seq2SeqConfig(encoder_dim=ENCODER),
    "spelling_adaptor": CTCConfig(encoder_dim=ENCODER),
}


@pytest.mark.parametrize("kind", MADE_FOR_THEM)
def test_a_part_that_was_made_for_them_is_taken(kind):
    check_parts({"part": Part(kind, MADE_FOR_THEM[kind], {})}, THINKER, ENCODER)


@pytest.mark.parametrize(
    ("kind", "thinker", "encoder", "told"),
    [
        ("talker_mdm", 20, ENCODER, "reads .* of width 48; this Thinker makes 40"),
        ("talker_ntp", 48, ENCODER, "reads .* of width 48; this Thinker makes 96"),
        ("talker_mtp", 20, ENCODER, "reads .* of width 48; this Thinker makes 40"),
        ("stack_adaptor", 20, ENCODER, "makes vectors of width 24; this Thinker reads 20"),
        ("stack_adaptor", THINKER, 32, "reads states of width 16; this encoder makes 32"),
        ("stack_adaptor", 20, 32, "reads states of width 16; this encoder makes 32"),
        ("attention_adaptor", THINKER, 32, "reads states of width 16; this encoder makes 32"),
        ("spelling_adaptor", THINKER, 8, "reads states of width 16; this encoder makes 8"),
    ],
)
def test_a_part_that_was_made_for_others_is_named(kind, thinker, encoder, told):
    with pytest.raises(UserError, match=f"^the mine {told}$"):
        check_parts({"mine": Part(kind, MADE_FOR_THEM[kind], {})}, thinker, encoder)


@pytest.mark.parametrize("anchors", ["paced", "prefix"])
def test_a_talker_that_reads_no_thinker_suits_any(anchors):
    check_parts({"talker": Part("talker_mdm", TalkerConfig(anchors=anchors), {})}, 7, 5)


@pytest.mark.parametrize("kind", ["attention_adaptor", "spelling_adaptor"])
def test_an_adaptor_that_writes_suits_any_thinker(kind):
    check_parts({"adaptor": Part(kind, MADE_FOR_THEM[kind], {})}, 7, ENCODER)


def test_a_codec_that_needs_a_voice_has_no_codes_of_silence():
    assert silence_codes(Part("cosyvoice2_codec", CosyVoice2Config(), {})) == ()


def test_only_talkers_of_the_next_tokens_cannot_teach():
    assert {kind for kind, about in KINDS.items() if about.autoregressive} == {
        "talker_ntp",
        "talker_mtp",
    }
