"""A prompt is read from what people and files say, or refused in words; two that differ can be told
apart.
"""

import pytest

from mdmspeech.data.pipelines.random_source import byte_tokenizer
from mdmspeech.errors import UserError
from mdmspeech.text.prompts import EXAMPLES, FEW_SHOT, PLAIN, SYSTEM, Prompt, around_question
from mdmspeech.text.tokenizer import SPEECH, ChatTokenizer


def test_the_two_of_this_project():
    assert (PLAIN.system, PLAIN.examples) == (SYSTEM, ()) and (
        FEW_SHOT.system,
        FEW_SHOT.examples,
    ) == (SYSTEM, EXAMPLES)


@pytest.mark.parametrize(
    "given",
    [
        ("Be brief.", ()),
        ("", []),
        ("Be brief.", [["Hi.", "Ho."]]),
        ("Grüß Gott 🙂\n", (("a", "b"), ("c", "d"))),
    ],
)
def test_read_from_a_config_or_from_json(given):
    prompt = Prompt.of({"system": given[0], "examples": given[1]}, "here")
    assert prompt == Prompt(given[0], tuple(map(tuple, given[1])))
    assert hash(prompt) is not None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "here: the prompt's system message is None"),
        ({"system": 3, "examples": ()}, "system message is 3"),
        ({"system": None, "examples": ()}, "system message is None"),
        ({"system": "a"}, "examples are None"),
        ({"system": "a", "examples": "no"}, "examples are 'no'"),
        ({"system": "a", "examples": ("a", "b")}, "give pairs of texts"),
        ({"system": "a", "examples": [["a", "b", "c"]]}, "give pairs of texts"),
        ({"system": "a", "examples": [["a", 1]]}, "give pairs of texts"),
        ({"system": "a", "examples": {"a": "b"}}, "give pairs of texts"),
    ],
)
def test_what_is_no_prompt(given, told):
    with pytest.raises(UserError, match=told):
        Prompt.of(given, "here")


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (PLAIN, FEW_SHOT, "other examples"),
        (Prompt("Be brief."), Prompt("Be grim."), "part at character 4"),
        (Prompt("Be"), Prompt("Be brief."), "part at character 3"),
        (Prompt(""), Prompt("x"), "part at character 1"),
        # alike at both ends, which is what is shown
        (Prompt("a" * 500 + "b" + "a" * 500), Prompt("a" * 1001), "part at character 501"),
    ],
)
def test_how_two_differ(a, b, told):
    assert told in a.unlike(b) == b.unlike(a)
    assert len(str(a)) < 130


def test_the_ids_around_a_question():
    tokenizer = byte_tokenizer()
    before, after = around_question(tokenizer, Prompt("Be brief.", (("Hi.", "Ho."),)))
    turns = ["system\nBe brief.", "user\nHi.", "assistant\nHo."]
    wanted = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>user\n"
    assert tokenizer.tokenizer.decode(before, skip_special_tokens=False) == wanted
    assert (
        tokenizer.tokenizer.decode(after, skip_special_tokens=False)
        == "<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("system", [f"Say {SPEECH}.", f"{SPEECH}{SPEECH}"])
def test_a_prompt_cannot_hold_the_place_of_the_speech(system):
    with pytest.raises(UserError, match="speech placeholders, exactly one is needed"):
        around_question(byte_tokenizer(), Prompt(system))


@pytest.mark.parametrize(
    ("template", "times"),
    [
        ("Hello.", 0),
        ("{% for m in messages %}{{ m['role'] }}\n{% endfor %}", 0),
        ("{{ messages[0]['content'] }}", 0),
        ("{{ messages[-1]['content'] | length }}", 0),
        ("{{ messages[-1]['content'] | wordcount }}", 0),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", 2),
        (
            (
                "{{ messages[-1]['content'] }}{{ messages[-1]['content'] }} {{ "
                "messages[-1]['content'] }}"
            ),
            3,
        ),
    ],
)
def test_a_template_that_does_not_write_the_question_once_is_told(template, times):
    tokenizer = ChatTokenizer(byte_tokenizer().tokenizer, template, [1])
    with pytest.raises(
        UserError, match=f"chat template of this Thinker writes what the user says {times} times"
    ):
        around_question(tokenizer, Prompt("Be brief."))
