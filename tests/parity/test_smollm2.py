"""SmolLM2-135M's real weights in ours and in `transformers`' Llama: logits, greedy answers,
tokenizer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from measured import close, note, same
from reference import llama_of
from transformers import AutoTokenizer, LlamaForCausalLM

from mdmspeech.interop import sources
from mdmspeech.interop.huggingface_rules import thinker_rules
from mdmspeech.interop.rules import export_params
from mdmspeech.models.generation import empty_state, jit_extend, jit_generate
from mdmspeech.models.thinker import Thinker

pytestmark = [pytest.mark.parity, pytest.mark.torch]

GGUF = sources._package_file(*sources._SMOLLM2_FILE, sources.SMOLLM2, sources._SMOLLM2_CURE)
NEW = 40  # tokens an answer
NEAR_TIE = 1e-3  # between the two best logits: float32 may decide either way
QUESTIONS = [
    "What is the capital of France?",
    "What is the largest planet in our solar system?",
    "Repeat after me: The train leaves at seven.",
    "What is 12 plus 7?",
    "Who wrote Romeo and Juliet?",
    "Name a fruit.",
    "What color is the sky?",
    "How many days are in a week?",
    "Say hello.",
    "What is the opposite of hot?",
    "Tell me a short story about a lighthouse keeper and a whale.",
    "Explain to a child why the sea is salty.",
    "Write a Python function that reverses a list.",
    "List three things to pack for a walk in the mountains in November.",
    "Translate 'good morning' into Spanish.",
    "Why do cats purr?",
    "Give me a recipe for pancakes with 2 eggs, 250 ml of milk and 125 g of flour.",
    "Summarise: The committee met on Tuesday, argued for three hours, and decided nothing.",
    "Is 91 a prime number?",
    "Write a haiku about rain on a tin roof.",
]


@pytest.fixture(scope="module")
def ours():
    return sources.load_thinker(official=False)


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    return llama_of(ours, tmp_path_factory.mktemp("smollm2") / "exported")


@pytest.fixture(scope="module")
def prompts(ours):
    return [
        ours.tokenizer.chat_prompt([{"role": "user", "content": question}])
        for question in QUESTIONS
    ]


@pytest.fixture(scope="module")
def answers(theirs, prompts):
    """Of each prompt: greedy tokens [N], and the logits that chose them [N, V]; in one batch,
    padded on the left.
    """
    longest = max(map(len, prompts))
    ids, mask = (np.zeros((len(prompts), longest), np.int64) for _ in range(2))
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = prompt, 1
    how = dict(
        do_sample=False,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        return_dict_in_generate=True,
        output_logits=True,
    )
    with torch.inference_mode():
        out = theirs.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), **how)
    return list(
        zip(out.sequences[:, longest:].numpy(), torch.stack(out.logits, 1).numpy(), strict=True)
    )


def test_greedy_answers(ours, prompts, answers):
    """Ours padded on the right."""
    model, ids = Thinker(ours.config), np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
    x = jax.jit(lambda params, ids: model.apply({"params": params}, ids, method="embed"))(
        ours.params, ids
    )
    state = jit_extend(
        model,
        ours.params,
        empty_state(model, len(ids), ids.shape[1] + NEW),
        x,
        jnp.array([len(p) for p in prompts]),
    )[1]
    close(
        "SmolLM2: logits after 20 prompts",
        state.logits_BV,
        np.stack([logits[0] for _, logits in answers]),
        atol=1e-3,
    )
    out = jit_generate(
        model,
        ours.params,
        state,
        jax.random.split(jax.random.key(0), len(ids)),
        stop_ids=(-1,),
        max_new=NEW,
    )
    margins, upto = [], []
    for _, logits in answers:
        best = np.partition(logits, -2, axis=-1)
        margins.append(best[:, -1] - best[:, -2])
        upto.append(int(np.argmax(np.append(margins[-1] < NEAR_TIE, True))))
    found, expected = np.asarray(out.tokens_BN), np.stack([tokens for tokens, _ in answers])
    sure_BN = np.arange(NEW) < np.array(upto)[:, None]
    same(f"SmolLM2: greedy tokens of 20 prompts, {NEW} each", found[sure_BN], expected[sure_BN])
    ties = (
        f"{sum(n < NEW for n in upto)} of 20 answers come to a near tie (below "
        f"{NEAR_TIE:g}), from where on they may differ:"
    )
    note(
        "SmolLM2: margin between the two best logits",
        f"smallest {np.min(margins):.1e}; {ties} {(found != expected).sum()} tokens do",
    )


def test_logits_of_whole_answers(ours, theirs, prompts, answers):
    """Prompt and answer read at once, without a cache."""
    model = Thinker(ours.config)
    forward = jax.jit(lambda params, ids: model.apply({"params": params}, ids))
    for row in (3, 16):
        ids = np.concatenate([prompts[row], answers[row][0]])[None]
        with torch.inference_mode():
            expected = theirs(torch.tensor(ids)).logits
        close(
            "SmolLM2: logits of whole conversations", forward(ours.params, ids), expected, atol=1e-3
        )


def test_dequantised_weights(ours):
    """`transformers` reads the 4-bit file by itself: the same numbers, bit for bit."""
    theirs = LlamaForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    ).state_dict()
    tensors = export_params(ours.params, thinker_rules(ours.config))
    # tied
    assert theirs.keys() - tensors.keys() == {"lm_head.weight"} and tensors.keys() <= theirs.keys()
    for name, value in tensors.items():
        same(
            "SmolLM2: weights out of the 4-bit file, against transformers' reader",
            value,
            theirs[name],
        )


def test_tokenizer(ours):
    """So with the tokenizer and the chat template, on texts of many kinds.

    None with signs like ½: the file's pre-tokenizer, "smollm", puts spaces apart from every
    numeral, which transformers' reader leaves out.
    """
    theirs = AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        same("SmolLM2: ids of 50 texts", ours.tokenizer.encode(text), ids)
        same(
            "SmolLM2: texts of ids",
            ours.tokenizer.decode(ids),
            theirs.decode(ids, skip_special_tokens=True),
        )
    for text in TEXTS[:10]:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        for some in (
            messages,
            messages[1:],
            [*messages, {"role": "assistant", "content": "No."}, messages[1]],
        ):
            rendered = theirs.apply_chat_template(some, add_generation_prompt=True, tokenize=False)
            prompt = theirs(rendered, add_special_tokens=False)["input_ids"]
            same("SmolLM2: ids of chat prompts", ours.tokenizer.chat_prompt(some), prompt)


WORDS = [
    "naïve café, Zoë's piñata",
    "Straße, Größe, Übermut",
    "日本語の文章です。",
    "Привет, мир!",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "안녕하세요 세계",
    "🎈🎉 👩‍👩‍👧‍👦 🇩🇰",
    "3.14159 and 1,000,000 and 0x1F",
    "def f(x):\n\treturn x  # two  spaces",
    "  leading and trailing  ",
    "\n\n\nlines\r\nof\ttext\n",
    "don't can't we'll I'M THEY'RE",
    "e\u0301 against é; \u200bzero width; \u00a0no break",
    "https://example.org/a?b=c&d=%20e#f",
    "αβγ ∑∫√ ≤≥",
]
TEXTS = [
    *WORDS,
    *(f"{text} {question}" for text, question in zip(WORDS, QUESTIONS, strict=False)),
    *QUESTIONS[:16],
]
