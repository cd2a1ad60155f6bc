"""Chat LLMs of other families at work: answers follow the model's own template, a conversation keeps
what was read, and no more is read than the model was made for.
"""

import jax
import numpy as np
import pytest
from chat_llm import write_llm

from mdmspeech.errors import UserError
from mdmspeech.inference.conversation import Conversation
from mdmspeech.inference.thinker_runner import PROMPTS, ThinkerRunner
from mdmspeech.interop.any_thinker import open_any_thinker
from mdmspeech.models.thinker import Thinker
from mdmspeech.text.prompts import Prompt, conversation

pytestmark = pytest.mark.usefixtures("quick_compilation")
NEW = 12
KINDS = {"llama": {"tie_word_embeddings": False}, "qwen2": {"shards": 2}, "qwen3": {}}


@pytest.fixture(scope="module")
def llms(tmp_path_factory):
    root = tmp_path_factory.mktemp("llms")
    folders = {kind: write_llm(root / kind, kind, **how) for kind, how in KINDS.items()}
    return {kind: open_any_thinker(folder, "compact").load() for kind, folder in folders.items()}


@pytest.fixture(scope="module", params=KINDS)
def loaded(request, llms):
    return llms[request.param]


@pytest.fixture(scope="module")
def qwen(llms):
    return llms["qwen3"]


@pytest.fixture(scope="module")
def runner(loaded):
    return ThinkerRunner(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        Prompt("Be brief."),
        max_new=NEW,
        context=loaded.context,
    )


def best_after(loaded, messages, answer):
    """The best token behind the model's prompt, and behind each of the answer's: read in one go."""
    ids = loaded.tokenizer.chat_prompt(messages)
    logits = jax.jit(Thinker(loaded.config).apply)(
        {"params": loaded.params}, np.array([[*ids, *answer]])
    )
    return np.asarray(logits[0, len(ids) - 1 :].argmax(-1)).tolist()


@pytest.mark.slow
def test_an_answer_and_a_second_one_follow_the_models_template(loaded, runner):
    talk, asked = Conversation(runner, 512), ["What is it?", "And </s> that, <|im_end|> now?"]
    messages = conversation(asked[0], Prompt("Be brief."))
    for turn, question in enumerate(asked):
        answer = talk.ask(question)
        text = "".join(piece.text for piece in answer)
        ids = answer.read
        assert len(ids) >= 1
        assert best_after(loaded, messages, ids)[: len(ids)] == ids
        # what was read before stays, up to where the template writes a past answer otherwise
        assert turn == 0 or talk._mark > len(runner.before)
        talk.settle(text)
        said = [{"role": "assistant", "content": text.strip()}] if text.strip() else []
        messages += [*said, {"role": "user", "content": asked[-1]}]


def limited(loaded, context, system="Be"):
    how = (loaded.config, loaded.params, loaded.tokenizer, Prompt(system), NEW)
    return ThinkerRunner(*how, context=context)


def test_a_context_without_room_for_an_answer_is_refused(qwen):
    needed = len(limited(qwen, None).before) + PROMPTS[0] + NEW
    assert limited(qwen, needed).context == needed
    for context in (1, 32, needed - 1):
        with pytest.raises(UserError, match=rf"for {context} tokens, .* need {needed}; take one"):
            limited(qwen, context)
    with pytest.raises(UserError, match=f"need {needed + 10}; take one"):
        limited(qwen, needed + 8, "Be brief now")


def test_no_question_goes_beyond_the_context(llms):
    context = 128
    one = limited(llms["llama"], context)
    room = context - len(one.before) - NEW
    longest = "x" * (room - len(one.question("")))
    assert len(one.before) + len(one.question(longest)) + NEW == context
    with pytest.raises(UserError, match=f"has {room + 1} tokens, the limit is {room}"):
        one.question(longest + "x")
    talk = Conversation(one, 1024)
    assert talk._columns == context
    with pytest.raises(UserError, match=r"of 128 with its answer; ask something shorter$"):
        talk.ask("x" * context)
    list(talk.ask("Hm?"))
    long = limited(llms["llama"], 448)
    assert list(Conversation(long, 1024).ask("x" * 300))  # padded, it would be more than the cache
    with pytest.raises(UserError, match=r"of 64 with its answer; .* or give a larger context"):
        Conversation(one, 64).ask("x" * context)
