"""What a part of a release may be: one entry a kind. Files keep the kinds' names; how a part is
opened to be used is `inference.factory`'s table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.codec.cosyvoice2.config import CosyVoice2Config
from mdmspeech.codec.cosyvoice2.voice import VoiceConfig, voice_shapes
from mdmspeech.config_names import renamed_fields, upgrade
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2 import cosyvoice2_shapes
from mdmspeech.interop.traced_once import traced_once
from mdmspeech.interop.whisper_decoder import seq2seq_shapes
from mdmspeech.models import lora, talker
from mdmspeech.models.ctc_adaptor import CTCAdaptor, CTCConfig
from mdmspeech.models.phone_classifier import PhoneClassifier, PhoneClassifierConfig
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig
from mdmspeech.models.stack_adaptor import StackAdaptor
from mdmspeech.models.thinker import Thinker, ThinkerConfig

# Sizes that older releases lack: they are the defaults there.
_LATER = {
    "label_shift",
    "num_kv_heads",
    "qkv_bias",
    "qk_norm",
    "norm_eps",
    "output_bias",
    "text_vocab_size",
    "mtp_modules",
    "base_dim",
    "base_head_dim",
    "semantic",
    "semantic_dim",
}


@renamed_fields
@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Sizes of the paper's adaptor; `encoder_dim` is the speech encoder's width, `out_dim` the Thinker's."""

    encoder_dim: int = 512
    out_dim: int = 576
    stack: int = 5
    hidden_dim: int = 2048


Config = (
    CompactCodecConfig
    | CosyVoice2Config
    | VoiceConfig
    | talker.TalkerConfig
    | Seq2SeqConfig
    | CTCConfig
    | StackConfig
    | PhoneClassifierConfig
    | ThinkerConfig
)


class PartKind(NamedTuple):
    """One kind of part.

    Attributes:
      config: its sizes, a dataclass. shapes: (its sizes) -> the abstract tree of its parameters.
      reads_prompt: (its sizes) -> whether it works with a Thinker's states, which are what they are
        after one prompt.
      misfit: (its sizes, width of a Thinker, width of a speech encoder) -> in words what of these it
        was not made for, or "".
      autoregressive: it predicts the next token or tokens only, and cannot fill masks.
      reads_text: (its sizes) -> whether it reads ids of a text, and so belongs to one tokenizer.
      imported: other people's weights may be in it, equal to a reference, and are to stay so.
      has_silence: a codec whose codes of silence are known without a voice.
    """

    config: type
    shapes: Callable[[Any], Any]
    reads_prompt: Callable[[Any], bool] = lambda sizes: False
    misfit: Callable[[Any, int, int], str] = lambda sizes, thinker, encoder: ""
    autoregressive: bool = False
    imported: bool = False
    has_silence: bool = False
    reads_text: Callable[[Any], bool] = lambda sizes: False


def reads_prompt(kind: str, sizes: Any) -> bool:
    """Whether a part of that kind and these sizes was trained after a prompt: the adaptor of stage
    1, a Talker with fixed anchors. (One that writes down what it hears, or reads symbols, was not.)
    """
    return KINDS[kind].reads_prompt(sizes)


@traced_once
def _codec_shapes(config: CompactCodecConfig):
    return jax.eval_shape(CompactCodecModel(config).init, jax.random.key(0))


@traced_once
def _talker_shapes(config: talker.TalkerConfig):
    return jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))


@traced_once
def _spelling_shapes(config: CTCConfig):
    states = jnp.zeros((1, 2 * config.stack, config.encoder_dim))
    return jax.eval_shape(
        CTCAdaptor(config).init, jax.random.key(0), states, jnp.ones(states.shape[:2], bool)
    )["params"]


@traced_once
def _stack_shapes(config: StackConfig):
    module = StackAdaptor(config.out_dim, config.stack, config.hidden_dim)
    return jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, config.stack, config.encoder_dim))
    )["params"]


@traced_once
def _reader_shapes(config: PhoneClassifierConfig):
    return jax.eval_shape(
        PhoneClassifier(config).init, jax.random.key(0), jnp.zeros((1, 4, config.encoder_dim))
    )["params"]


@traced_once
def _lora_shapes(config: ThinkerConfig):
    if not config.lora_rank:
        raise ValueError("lora_rank is 0")
    module = Thinker(config)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    return lora.split(shapes["params"])[1]


def _has_fixed_anchors(config: talker.TalkerConfig) -> bool:
    return config.anchors == "fixed"


def _talker_misfit(sizes: talker.TalkerConfig, thinker: int, encoder: int) -> str:
    if not _has_fixed_anchors(sizes) or sizes.text_dim == 2 * thinker:
        return ""
    return f"reads [Emb(y); h] of width {sizes.text_dim}; this Thinker makes {2 * thinker}"


def _writer_misfit(
    sizes: Seq2SeqConfig | CTCConfig | StackConfig, thinker: int, encoder: int
) -> str:
    if sizes.encoder_dim == encoder:
        return ""
    return f"reads states of width {sizes.encoder_dim}; this encoder makes {encoder}"


def _stack_misfit(sizes: StackConfig, thinker: int, encoder: int) -> str:
    if (told := _writer_misfit(sizes, thinker, encoder)) or sizes.out_dim == thinker:
        return told
    return f"makes vectors of width {sizes.out_dim}; this Thinker reads {thinker}"


def _lora_misfit(sizes: ThinkerConfig, thinker: int, encoder: int) -> str:
    return (
        ""
        if sizes.dim == thinker
        else f"was trained on a Thinker of width {sizes.dim}, not {thinker}"
    )


_TALKER = PartKind(
    talker.TalkerConfig,
    _talker_shapes,
    _has_fixed_anchors,
    _talker_misfit,
    reads_text=lambda sizes: sizes.anchors == "prefix",
)
KINDS: dict[str, PartKind] = {
    "compact_codec": PartKind(CompactCodecConfig, _codec_shapes, imported=True, has_silence=True),
    "cosyvoice2_codec": PartKind(CosyVoice2Config, traced_once(cosyvoice2_shapes), imported=True),
    "cosyvoice2_voice": PartKind(VoiceConfig, voice_shapes, imported=True),
    "talker_mdm": _TALKER,
    "talker_ntp": _TALKER._replace(autoregressive=True),
    "talker_mtp": _TALKER._replace(autoregressive=True),
    "attention_adaptor": PartKind(
        Seq2SeqConfig, traced_once(seq2seq_shapes), misfit=_writer_misfit
    ),
    "spelling_adaptor": PartKind(CTCConfig, _spelling_shapes, misfit=_writer_misfit),
    "stack_adaptor": PartKind(StackConfig, _stack_shapes, lambda sizes: True, _stack_misfit),
    "thinker_lora": PartKind(ThinkerConfig, _lora_shapes, misfit=_lora_misfit),
    "phone_reader": PartKind(PhoneClassifierConfig, _reader_shapes),
}


def config_from(kind: str, sizes: Mapping[str, Any], where: str) -> Config:
    """A part's sizes from a JSON object; a UserError lists what is missing or unknown."""
    if kind not in KINDS:
        raise UserError(f"{where} is of unknown kind {kind!r}; known: {', '.join(KINDS)}")
    return _sizes(KINDS[kind].config, sizes, where)


def _sizes(cls: type, sizes: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a JSON object, the dataclasses among its fields from the objects inside."""
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    sizes = upgrade(cls.__name__, sizes, where)
    missing, unknown = sorted(fields.keys() - sizes - _LATER), sorted(sizes.keys() - fields)
    if missing or unknown:
        told = [
            f"{what} {', '.join(names)}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise UserError(
            f"{where}: its sizes are those of another model ({'; '.join(told)}); "
            "fetch the release again"
        )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()
    }
    parts = {
        key: kind
        for key, kind in fields.items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    return cls(
        **values
        | {key: _sizes(kind, values[key], f"{where}: {key}") for key, kind in parts.items()}
    )
