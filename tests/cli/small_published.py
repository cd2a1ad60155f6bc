"""Published checkpoints in small: folders as they would be downloaded, and systems assembled of
them. Session-wide, so that all tests share them.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
from random_params import random_params
from small_speech import CODEC, TALKER, talker_params

from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.data.pipelines.random_source import CHAT_TEMPLATE, byte_tokenizer
from mdmspeech.interop.export import How, export_encoder, export_thinker
from mdmspeech.interop.release import Part, Release, save_release
from mdmspeech.models.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.text.pronounce import pronouncer

THINKER = ThinkerConfig(
    vocab_size=259,
    dim=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    ffn_dim=64,
    qk_norm=True,
)
ENCODER = SpeechEncoderConfig(
    num_mels=80, dim=32, num_layers=1, num_heads=2, ffn_dim=32, max_positions=1500
)
SIZES = ["--talker-sizes", "dim=64,num_layers=1,num_heads=2,ffn_dim=64", "--dtype", "float32"]


def publish(root):
    """A text model, a Whisper, a release with a codec, and one that says any text."""
    chat = byte_tokenizer()
    files = {
        "tokenizer.json": chat.tokenizer.to_str(),
        "tokenizer_config.json": json.dumps({"chat_template": CHAT_TEMPLATE}),
        "generation_config.json": json.dumps({"eos_token_id": list(chat.stop_ids)}),
    }
    ids, key = jnp.zeros((1, 2), jnp.int32), jax.random.key
    thinker = random_params(Thinker(THINKER).init, key(1), ids)["params"]
    export_thinker(root / "thinker", THINKER, jax.tree.map(np.asarray, thinker), How(files=files))
    mel = jnp.zeros((1, 8, 80))
    encoder = random_params(SpeechEncoder(ENCODER).init, key(2), mel)["params"]
    export_encoder(root / "whisper", ENCODER, jax.tree.map(np.asarray, encoder))
    codec = Part("compact_codec", CODEC, random_params(CompactCodecModel(CODEC).init, key(0)))
    save_release(
        root / "release",
        Release("tiny", {"codec": codec, "talker": Part("talker_mdm", TALKER, talker_params())}),
        "card",
    )
    speaks = dataclasses.replace(TALKER, symbols=pronouncer().vocabulary_size)
    save_release(
        root / "speaks",
        Release(
            "speaks", {"codec": codec, "talker": Part("talker_mdm", speaks, talker_params(speaks))}
        ),
        "card",
    )
    return root


def arguments(published, folder, **changes):
    given = {
        "thinker": published / "thinker",
        "encoder": published / "whisper",
        "codec": published / "release",
        **changes,
    }
    return [
        "assemble",
        "-o",
        str(folder),
        *SIZES,
        *(text for name, value in given.items() for text in (f"--{name}", str(value))),
    ]
