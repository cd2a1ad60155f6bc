"""Chat templates: what transformers' own environment makes of them (expected strings written by
hand from its documentation), and where folders keep them.
"""

import datetime
import json

import pytest

from mdmspeech.errors import UserError
from mdmspeech.text.chat_template import ChatTemplate, find_template

USER = [{"role": "user", "content": "Hi <b> é"}]
# The logic of Qwen3's published template (without tools): the last real question is searched from
# the end, thoughts before it are dropped.
QWEN3 = """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == 'user' and message.content is string %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and thought %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def test_qwen3_answers_at_once_and_forgets_its_thoughts():
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB."},
        {"role": "user", "content": "C?"},
    ]
    assert ChatTemplate(QWEN3, {}).render(messages) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\nB.<|im_end|>\n"
        "<|im_start|>user\nC?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


YEAR = f"{datetime.datetime.now():%Y}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # trimmed blocks
        (
            (
                "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif "
                "%}\n{% endfor %}\n!"
            ),
            "Hi <b> é\n!",
        ),
        # no HTML escapes, no ASCII
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi <b> é"}]'),
        (
            "{{ messages[0] | tojson(indent=2) }}",
            '{\n  "role": "user",\n  "content": "Hi <b> é"\n}',
        ),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":2,"b":1}'),
        (
            "{{ messages[0] | tojson(ensure_ascii=true) }}",
            '{"role": "user", "content": "Hi <b> \\u00e9"}',
        ),
        ("{{ strftime_now('%Y') }}", YEAR),
        (
            "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}",
            "26 Jul 2024",
        ),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}.", "Hi <b> é."),
        # a scope of its own
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "023",
        ),
        ("{{ tools is none }} {{ documents is none }} {{ tools is defined }}", "True True True"),
        (
            "{{ bos_token }}{{ messages[::-1][0]['content'] }}{{ eos_token }}{{ nothing }}",
            "<s>Hi <b> é",
        ),
        ("{{ enable_thinking }} {{ add_generation_prompt }}", "False True"),
        (
            (
                "{% set ns = namespace(a=0) %}{% for m in messages %}{% set ns.a = ns.a "
                "+ 1 %}{% endfor %}{{ ns.a }}"
            ),
            "1",
        ),
        ("{%- macro say(m) %}[{{ m.role }}]{% endmacro -%} {{ say(messages[0]) }}", "[user]"),
        ("{{ messages[0].content | trim | upper | replace('B', '') }}", "HI <> É"),
    ],
)
def test_rendered_as_transformers_does(template, expected):
    assert ChatTemplate(template, {"bos_token": "<s>"}).render(USER) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'a' + messages[0].nothing.more }}", "has no attribute 'nothing'"),
        ("{{ 'a' + none }}", "TypeError"),
        ("{{ messages | tojson(sorted=1) }}", "TypeError"),
        ("{{ messages[0].content | tojson(separators=3) }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ strftime_now(3) }}", "TypeError"),
        ("{{ strftime_now() }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ range(10 ** 9) | list }}", "OverflowError"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable|SecurityError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% include 'other' %}", "loader"),
    ],
)
def test_whatever_goes_wrong_in_a_template_is_one_error(template, said):
    with pytest.raises(UserError, match=f"refuses these messages: .*({said})"):
        ChatTemplate(template, {}).render(USER)


@pytest.mark.parametrize(
    "template",
    ["{% if", "{{ x | no_such_filter }}", "{% unknown %}", "{% generation %}", "{% endfor %}"],
)
def test_what_is_no_template_is_refused_at_once(template):
    with pytest.raises(UserError, match="template is broken"):
        ChatTemplate(template, {})


@pytest.mark.parametrize("content", [None, "", "text", [{"type": "text", "text": "text"}]])
def test_contents_of_every_kind(content):
    text = (
        "{{ messages[0].content }}"
        if isinstance(content, str)
        else "{{ 'none' if messages[0].content is none else messages[0].content[0].text }}"
    )
    assert ChatTemplate(text, {}).render([{"role": "user", "content": content}]) == (
        "none" if content is None else content and "text"
    )
    with pytest.raises(UserError, match="TypeError"):
        ChatTemplate("{{ 'a' + messages[0].content }}", {}).render(
            [{"role": "user", "content": None}]
        )


def test_a_template_that_only_knows_parts_gets_parts():
    template = ChatTemplate(
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}|{% endfor %}{% endfor %}", {}
    )
    assert template.render(USER) == "Hi <b> é|"
    both = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else "
        "%}{{ m.content[0].text }}?{% endif %}{% endfor %}"
    )
    assert ChatTemplate(both, {}).render(USER) == "Hi <b> é"


NAMED = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({"chat_template": "a"}, {}, "a"),
        ({"chat_template": NAMED}, {}, "d"),
        ({"chat_template": NAMED[1:]}, {}, "t"),
        ({"chat_template": "a"}, {"chat_template.jinja": "b"}, "b"),
        ({"chat_template": NAMED}, {"chat_template.jinja": "b"}, "b"),
        ({}, {"chat_template.jinja": "b", "additional_chat_templates/tool_use.jinja": "t"}, "b"),
        ({"chat_template": "a"}, {"additional_chat_templates/rag.jinja": "r"}, "a"),
        ({}, {"additional_chat_templates/only.jinja": "o"}, "o"),
        ({"chat_template": None}, {"chat_template.jinja": "é"}, "é"),
    ],
)
def test_where_a_folder_keeps_its_template(tmp_path, config, files, expected):
    (tmp_path / "additional_chat_templates").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert find_template(tmp_path, config) == expected


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "has no chat template"),
        ([], "has no chat template"),
        (3, "chat_template is a int, not a text"),
        ({"default": "a"}, "chat_template is a dict"),
        ([{"name": "a"}], "one without name or template"),
        ([{"name": 1, "template": "a"}], "one without name or template"),
        (["a"], "one without name or template"),
        (
            [{"name": "rag", "template": "a"}, {"name": "tools", "template": "b"}],
            "several chat templates .rag, tools., none called default",
        ),
    ],
)
def test_what_is_no_template_of_a_folder(tmp_path, found, message):
    with pytest.raises(UserError, match=message):
        find_template(tmp_path, json.loads(json.dumps({"chat_template": found})))


def test_a_template_in_another_encoding_is_named(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes("{{ 'é' }}".encode("utf-16"))
    with pytest.raises(UserError, match=r"chat_template\.jinja cannot be read"):
        find_template(tmp_path, {})
