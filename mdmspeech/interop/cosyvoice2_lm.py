"""CosyVoice2's language model (`llm.pt`) -> a Talker: an autoregressive one as it is, or a
masked-diffusion one to be trained from it (LLaDA-TTS).

The names are the file format's own; they come from the modules of FunAudioLLM/CosyVoice
(cosyvoice/llm/llm.py, Qwen2LM): a Qwen2-0.5B trunk, its text embeddings, 6564 rows of speech
embeddings and as many logits with a bias, and two further rows, `sos` and `task_id`. It reads [sos,
text, task_id, speech ...] and predicts the next speech token; 6561 ends the speech, 6563 fills a
text that is not yet there (streaming).

Under the label shift (`diffusion.layout.shift_right`) the place that predicts the first token holds
BOS: that is `task_id`. So every row of theirs has its place in ours, every logit is theirs, and
with blocks of one token our Talker *is* their model. Only the mask's embedding is new.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface_rules import llama_layer
from mdmspeech.interop.pytorch import read_pytorch
from mdmspeech.interop.release import Part, Release, save_release
from mdmspeech.interop.rules import TensorRule, import_params
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.speech_format import BOS, CODES, EOS, PAD, SOS, VOCAB
from mdmspeech.text.tokenizer import ChatTokenizer

COSYVOICE2_LM = TalkerConfig(
    dim=896,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    ffn_dim=4864,
    anchors="prefix",
    text_vocab_size=151936,
    structured_codes=False,
    rope_theta=1e6,
    label_shift=True,
    qkv_bias=True,
    qk_norm=False,
    norm_eps=1e-6,
    output_bias=True,
)
SPEECH_ROWS = CODES + 3  # codes, then their end, a row that nothing uses, and the filler
_THEIRS = {EOS: CODES, SOS: CODES + 1, PAD: CODES + 2}  # our id -> their row
_NEVER = -100.0  # bias of ids that they do not have: e^-100 is no chance in float32
# Qwen2's own output layer, tied to its embedding: it writes text
_UNUSED = "llm.model.lm_head.weight"


def read_lm(
    path: str | os.PathLike,
    config: TalkerConfig = COSYVOICE2_LM,
    tokenizer: str | os.PathLike | None = None,
) -> Part:
    """`llm.pt` -> a part of a release (`interop.release`), to decode autoregressively as kind
    "talker_ntp" or to train from, see `lm_params`.

    tokenizer: the folder of its text's; None: `CosyVoice-BlankEN` beside the file, where it was
      published, if that has a tokenizer.json. Without one it does not speak, but training can begin
      from it.
    """
    beside = Path(path).parent / "CosyVoice-BlankEN"
    if tokenizer is None and (beside / "tokenizer.json").is_file():
        tokenizer = beside
    read = None if tokenizer is None else ChatTokenizer.from_folder(tokenizer).tokenizer.to_str()
    params = lm_params(config, read_pytorch(path), str(path))
    return Part("talker_ntp", config, params, tokenizer=read)


def convert_lm(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    tokenizer: str | os.PathLike | None = None,
) -> int:
    """Writes `llm.pt` as a release folder with the part "talker_ntp", for `init_from` of
    experiments/talker_llada_05b.py, or to be put together with a codec; returns its size in bytes.
    tokenizer: see `read_lm`.
    """
    card = (
        "# CosyVoice2's language model\n\nConverted from llm.pt of "
        "FunAudioLLM/CosyVoice2-0.5B (Apache-2.0).\n"
    )
    return save_release(
        folder,
        Release("cosyvoice2_lm", {"talker_ntp": read_lm(path, tokenizer=tokenizer)}),
        card,
        "bfloat16",
    )


def lm_params(
    config: TalkerConfig, tensors: Mapping[str, np.ndarray], source: str, dtype: Any = np.float32
) -> dict[str, Any]:
    """Tensors under their names in llm.pt -> Talker parameters, the mask's embedding the mean of
    the codes' (`talker.with_new_mask`).

    Raises:
      UserError: as `import_params`; an output layer of the text that is not of the size of its
        embedding.
    """
    text = (config.text_vocab_size, config.dim)
    if _UNUSED in tensors and tensors[_UNUSED].shape != text:
        raise UserError(
            f"{source}: {_UNUSED} is {list(tensors[_UNUSED].shape)} instead of "
            f"{list(text)}. Give the weights that belong to the config"
        )
    used = {name: value for name, value in tensors.items() if name != _UNUSED}
    loaded = import_params(used, lm_rules(config), lm_shapes(config), source, dtype)
    speech, special, head = (loaded.pop(name) for name in ("speech", "special", "head"))

    inputs, outputs, bias = (
        np.zeros((VOCAB, config.dim), dtype),
        np.zeros((VOCAB, config.dim), dtype),
        np.full(VOCAB, _NEVER, dtype),
    )
    inputs[:CODES], outputs[:CODES], bias[:CODES] = (
        speech[:CODES],
        head["weight"][:CODES],
        head["bias"][:CODES],
    )
    for ours, theirs in _THEIRS.items():
        inputs[ours], outputs[ours], bias[ours] = (
            speech[theirs],
            head["weight"][theirs],
            head["bias"][theirs],
        )
    inputs[SOS], inputs[BOS] = special
    params = loaded | {
        "inputs": {"table": inputs},
        "outputs": {"table": outputs},
        "output_bias": bias,
    }
    return jax.tree.map(np.asarray, talker.with_new_mask(config, params))


def lm_shapes(config: TalkerConfig) -> Any:
    """What llm.pt holds, as an abstract tree: the Talker's, with their tables "speech", "special"
    (sos, task_id) and "head" instead of its own.
    """
    shapes = dict(jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0)))
    for ours in ("inputs", "outputs", "output_bias"):
        del shapes[ours]
    array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    head = {"weight": array(SPEECH_ROWS, config.dim), "bias": array(SPEECH_ROWS)}
    return shapes | {
        "speech": array(SPEECH_ROWS, config.dim),
        "special": array(2, config.dim),
        "head": head,
    }


def lm_rules(config: TalkerConfig) -> list[TensorRule]:
    """Where each array of `lm_shapes` comes from."""
    rules = [
        TensorRule("anchors/embedding", "llm.model.model.embed_tokens.weight"),
        TensorRule("norm/scale", "llm.model.model.norm.weight"),
        TensorRule("speech", "speech_embedding.weight"),
        TensorRule("special", "llm_embedding.weight"),
        TensorRule("head/weight", "llm_decoder.weight"),
        TensorRule("head/bias", "llm_decoder.bias"),
    ]
    for index in range(config.num_layers):
        ours, theirs = f"layers_{index}/", f"llm.model.model.layers.{index}."
        rules += llama_layer(ours, theirs, qkv_bias=True)
    return rules
