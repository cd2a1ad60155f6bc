"""From a release (trained parts and the names of the pretrained ones) to an `Assistant`.

Reading files is `interop`'s business, which this room does not import: the caller hands over an
`interop.release.Release` and the two loaders.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from mdmspeech.codec.base import Codec
from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.cosyvoice2.codec import CosyVoice2Codec
from mdmspeech.codec.cosyvoice2.voice import voice_prompt
from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.fixed_anchor_synthesizer import FixedAnchorSynthesizer
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.prefix_synthesizer import COSYVOICE2_SAMPLING, PrefixSynthesizer
from mdmspeech.inference.speech_frontend import (
    SpeechFrontend,
    ctc_frontend,
    seq2seq_frontend,
    stack_frontend,
)
from mdmspeech.inference.synthesizer import Synthesizer
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.text.pronounce import pronouncer
from mdmspeech.text.tokenizer import ChatTokenizer

_THINKER_UPDATE = "thinker_lora"  # part of a release
# name for users (`talker=`) -> part of a release
TALKERS = {
    "mdm": "talker",
    "ntp": "talker_ntp",
    "mtp": "talker_mtp",
    "mtp_verified": "talker_mtp",
}


def open_assistant(
    release: Any, load_thinker: Callable, load_encoder: Callable, kind: type[Assistant] = Assistant
) -> Assistant:
    """An assistant whose parts are opened when first needed.

    Args:
      release: an `interop.release.Release`.
      load_thinker, load_encoder: `interop.sources.load_thinker` and `load_speech_encoder`, or
        functions like them; called with the release's `thinker` (and to_run=True, and the `update`
        that the release brings) and `encoder`.
      kind: of the assistant.
    """
    codec = _once(partial(open_codec, release))

    @_once
    def thinker() -> ThinkerRunner:
        update = release.parts.get(_THINKER_UPDATE)
        brought = {} if update is None else {"update": (update.config, update.params)}
        loaded = load_thinker(release.thinker, to_run=True, **brought)
        return ThinkerRunner(
            loaded.config,
            loaded.params,
            loaded.tokenizer,
            release.prompt,
            keep=loaded.keep,
            context=loaded.context,
        )

    voices = {
        name: partial(_synthesizer, release, name, codec, thinker)
        for name, part in TALKERS.items()
        if part in release.parts
    }
    return kind(release.name, voices, partial(_frontend, release, load_encoder), thinker)


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """`make`, called once, whichever thread needs it first."""
    lock, made = threading.Lock(), []

    def made_once() -> Any:
        with lock:
            if not made:
                made.append(make())
        return made[0]

    return made_once


def open_codec(release: Any) -> Codec:
    """The codec of a release, with its voice if it needs one."""
    part = release.part("codec")
    return _opener(release, "codec", part.kind)(release, part)


def _opener(release: Any, role: str, kind: str) -> Any:
    if (role, kind) not in _OPENERS:
        article = "an" if role == "adaptor" else "a"
        raise UserError(
            f"release {release.name!r} has {article} {role} of kind {kind!r}, which "
            "this program cannot open; update mdmspeech"
        )
    return _OPENERS[role, kind]


def _cosyvoice2(release: Any, part: Any) -> Codec:
    if "voice" not in release.parts:
        raise UserError(
            f"release {release.name!r} has no voice to speak in: make one with "
            "`mdmspeech voice recording.wav`, and give it"
        )
    return CosyVoice2Codec(part.config, part.params, voice_prompt(release.part("voice").params))


def _synthesizer(
    release: Any, talker: str, codec: Callable[[], Codec], thinker: Callable[[], ThinkerRunner]
) -> Synthesizer:
    name = TALKERS[talker]
    part = release.part(name)
    mode = _opener(release, "talker", part.kind)
    if talker == "mtp_verified":  # the same part, read in another way
        mode = talker
    settings = dict(mode=mode, silence=release.silence)
    return _SYNTHESIZERS[part.config.anchors](name, part, codec, thinker, settings)


def _paced(
    name: str, part: Any, codec: Callable, thinker: Callable, settings: dict[str, Any]
) -> PacedSynthesizer:
    known = pronouncer().vocabulary_size
    if part.config.symbols < known:
        raise UserError(
            f"{name} knows {part.config.symbols} symbols, the pronouncer has "
            f"{known}: install the hibari-tts it was trained with"
        )
    return PacedSynthesizer(part.config, part.params, codec(), **settings)


def _fixed(
    name: str, part: Any, codec: Callable, thinker: Callable, settings: dict[str, Any]
) -> FixedAnchorSynthesizer:
    return FixedAnchorSynthesizer(part.config, part.params, codec(), thinker(), **settings)


def _prefix(
    name: str, part: Any, codec: Callable, thinker: Callable, settings: dict[str, Any]
) -> PrefixSynthesizer:
    if part.tokenizer is None:
        raise UserError(
            f"{name} reads the ids of a text, and its release does not say of which tokenizer: make "
            "it again with `mdmspeech release` from the run that trained it, or from CosyVoice2's "
            "llm.pt with convert_lm(..., tokenizer=FOLDER)"
        )
    tokenizer = ChatTokenizer.of_text(part.tokenizer, f"the tokenizer of {name}")
    if settings["mode"] == "ntp":
        settings |= COSYVOICE2_SAMPLING
    return PrefixSynthesizer(part.config, part.params, codec(), tokenizer, **settings)


def _frontend(release: Any, load_encoder: Callable) -> SpeechFrontend:
    part = release.part("adaptor")
    opener = _opener(release, "adaptor", part.kind)
    encoder = load_encoder(release.encoder)
    if part.config.encoder_dim != encoder.config.dim:
        raise UserError(
            f"the adaptor reads states of width {part.config.encoder_dim}, "
            f"{release.encoder} makes {encoder.config.dim}: use its encoder"
        )
    return opener(encoder.config, encoder.params, part.config, part.params)


def _stacked(encoder_config: Any, encoder: Any, config: Any, params: Any) -> SpeechFrontend:
    return stack_frontend(
        encoder_config,
        encoder,
        StackAdaptor(config.out_dim, config.stack, config.hidden_dim),
        params,
    )


# by a Talker's anchors
_SYNTHESIZERS: dict[str, Callable] = {"paced": _paced, "fixed": _fixed, "prefix": _prefix}
# (role in a release, kind of part) -> codec: (release, part) -> it; talker: its mode of decoding;
# adaptor: (sizes and parameters of encoder and adaptor) -> frontend
_OPENERS: dict[tuple[str, str], Any] = {
    ("codec", "compact_codec"): lambda release, part: CompactCodec(part.config, part.params),
    ("codec", "cosyvoice2_codec"): _cosyvoice2,
    ("talker", "talker_mdm"): "mdm",
    ("talker", "talker_ntp"): "ntp",
    ("talker", "talker_mtp"): "mtp",
    ("adaptor", "attention_adaptor"): seq2seq_frontend,
    ("adaptor", "spelling_adaptor"): ctc_frontend,
    ("adaptor", "stack_adaptor"): _stacked,
}
