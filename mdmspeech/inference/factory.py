"""From a release (trained parts and the names of the pretrained ones) to an `Assistant`.

Reading files is `interop`'s business, which this room does not import: the caller hands over an `interop.release.Release` and the two loaders.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from mdmspeech.codec.base import Codec
from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.cosyvoice2.codec import CosyVoice2Codec
from mdmspeech.codec.cosyvoice2.voice import voice_prompt
from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.fixed_anchor_synthesizer import FixedAnchorSynthesizer
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.speech_frontend import SpeechFrontend, ctc_frontend, seq2seq_frontend, stack_frontend
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.text.pronounce import pronouncer

_TALKERS = {"mdm": "talker", "ntp": "talker_ntp"}  # name for users -> part of a release


def open_assistant(release: Any, load_thinker: Callable, load_encoder: Callable) -> Assistant:
    """An assistant whose parts are opened when first needed.

    Args:
      release: an `interop.release.Release`.
      load_thinker, load_encoder: `interop.sources.load_thinker` and `load_speech_encoder`, or functions like them; called with the release's
        `thinker` and `encoder`.
    """
    codec = cache(partial(open_codec, release))

    @cache
    def thinker() -> ThinkerRunner:
        thinker = load_thinker(release.thinker)
        return ThinkerRunner(thinker.config, thinker.params, thinker.tokenizer, release.prompt)

    voices = {name: partial(_voice, release, part, codec, thinker) for name, part in _TALKERS.items() if part in release.parts}
    return Assistant(release.name, voices, partial(_ear, release, load_encoder), thinker)


def open_codec(release: Any) -> Codec:
    """The codec of a release, with its voice if it needs one."""
    part = release.part("codec")
    if part.kind == "compact_codec":
        return CompactCodec(part.config, part.params)
    if part.kind == "cosyvoice2_codec":
        if "voice" not in release.parts:
            raise UserError(
                f"release {release.name!r} has no voice to speak in: make one with `mdmspeech voice recording.wav`, and give it"
            )
        return CosyVoice2Codec(part.config, part.params, voice_prompt(release.part("voice").params))
    raise UserError(f"release {release.name!r} has a codec of kind {part.kind!r}, which this program cannot open; update mdmspeech")


def _voice(
    release: Any, name: str, codec: Callable[[], Codec], thinker: Callable[[], ThinkerRunner]
) -> PacedSynthesizer | FixedAnchorSynthesizer:
    part = release.part(name)
    mode = part.kind.removeprefix("talker_")
    if part.config.anchors == "prefix":
        raise UserError(f"{name} reads whole texts in front of its speech and cannot follow an answer being written; see inference.prefix")
    if part.config.anchors == "fixed":
        return FixedAnchorSynthesizer(part.config, part.params, codec(), thinker(), mode=mode, silence=release.silence)
    known = pronouncer().vocabulary_size
    if part.config.symbols < known:
        raise UserError(
            f"{name} knows {part.config.symbols} symbols, the pronouncer has {known}: install the hibari-tts it was trained with"
        )
    return PacedSynthesizer(part.config, part.params, codec(), mode=mode, silence=release.silence)


def _ear(release: Any, load_encoder: Callable) -> SpeechFrontend:
    encoder, part = load_encoder(release.encoder), release.part("adaptor")
    if part.config.states != encoder.config.dim:
        raise UserError(
            f"the adaptor reads states of width {part.config.states}, {release.encoder} makes {encoder.config.dim}: use its encoder"
        )
    if part.kind == "attention_adaptor":
        return seq2seq_frontend(encoder.config, encoder.params, part.config, part.params)
    if part.kind == "spelling_adaptor":
        return ctc_frontend(encoder.config, encoder.params, part.config, part.params)
    if part.kind == "stack_adaptor":
        module = StackAdaptor(part.config.out_dim, part.config.stack, part.config.hidden_dim)
        return stack_frontend(encoder.config, encoder.params, module, part.params)
    raise UserError(f"release {release.name!r} has an adaptor of kind {part.kind!r}, which this program cannot open; update mdmspeech")
