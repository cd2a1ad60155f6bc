"""Small random chat LLMs as they are published: Hugging Face folders of the Llama, Qwen2 and Qwen3
families, each with its family's special tokens and chat template.
"""

import json
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mdmspeech.interop.huggingface import thinker_config, thinker_shapes
from mdmspeech.interop.huggingface_rules import thinker_rules
from mdmspeech.interop.tensors import INDEX, WHOLE, write_tensors

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
)
TEMPLATES = {
    "llama": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
        "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "qwen2": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}"
    "{% endif %}" + CHATML + "{% endif %}",
    "qwen3": CHATML + "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
}
SPECIAL = {
    "llama": [
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|end_of_text|>",
    ],
    "qwen2": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "qwen3": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
}
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "max_position_embeddings": 1024,
}


def tokenizer_of(kind: str) -> Tokenizer:
    """A token a byte, "</s>" as plain text (as Qwen has it), and the family's special ones."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL[kind]])
    if kind == "qwen3":
        tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    return tokenizer


def write_llm(folder: Path, kind: str, shards: int = 1, dtype: str = "float32", **changes) -> Path:
    """The folder, complete. changes: of config.json."""
    tokenizer = tokenizer_of(kind)
    hf = {"model_type": kind, "vocab_size": tokenizer.get_vocab_size() + 3, **_SIZES, **changes}
    hf.setdefault("tie_word_embeddings", kind != "qwen3")
    config = thinker_config(hf)
    shapes, rng = flatten_dict(thinker_shapes(config), sep="/"), np.random.default_rng(1)
    tensors = {}
    for rule in thinker_rules(config):
        shape = rule.theirs(shapes[rule.path].shape)
        drawn = rng.normal(size=shape).astype(np.float32)
        tensors[rule.name] = 1 + 0.1 * drawn if "norm" in rule.name else 0.3 * drawn
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf))
    tokenizer.save(str(folder / "tokenizer.json"))
    end = SPECIAL[kind][1]
    about = {"chat_template": TEMPLATES[kind], "eos_token": end, "bos_token": SPECIAL[kind][0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.token_to_id(end)})
    )
    names = sorted(tensors)
    if shards == 1:
        write_tensors(folder / WHOLE, tensors, dtype=dtype)
        return folder
    where = {
        n: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, n in enumerate(names)
    }
    for file in sorted(set(where.values())):
        part = {name: tensors[name] for name in names if where[name] == file}
        write_tensors(folder / file, part, dtype=dtype)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    return folder
