"""Chat templates: rendered as transformers renders them, found where a Hugging Face folder keeps
them.

A template is a program of somebody else's making. It runs in jinja's immutable sandbox, with what
transformers documents ("Chat templates", "Writing a chat template"): trimmed blocks, `{% break %}`
and `{% continue %}`, `{% generation %}` (which only marks text for training there), `tojson` with
its arguments, `raise_exception`, `strftime_now`; `tools` and `documents` are none.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mdmspeech.errors import UserError

OTHERS = "additional_chat_templates"  # a folder of further templates beside the tokenizer
_SEPARATE = "chat_template.jinja"
# `enable_thinking`: Qwen3 and its like answer at once. `date_string`: Llama 3's own default, so
# that the prompt is every day the one of training.
_SETTINGS: dict[str, Any] = {
    "tools": None,
    "documents": None,
    "enable_thinking": False,
    "date_string": "26 Jul 2024",
}
_PROBE = "mdmspeech-probe"


class ChatTemplate:
    """One compiled template.

    Args:
      source: jinja. variables: further names it may use, such as bos_token.

    Raises:
      UserError: it is no template.
    """

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self._variables = {**variables, **_SETTINGS}
        try:
            self._template = _environment().from_string(source)
        except Exception as error:  # of jinja, or of the compiler of what jinja makes of it
            raise UserError(
                f"the chat template is broken ({error}); take the model's original tokenizer files"
            ) from error
        self._parts = not self._shows(_PROBE) and self._shows([{"type": "text", "text": _PROBE}])

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt up to where the assistant's next answer begins.

        Args:
          messages: {"role", "content"} each; content is a text, None, or a list of parts {"type":
            "text", "text"}. A template that only knows parts (of a model that also sees) gets texts
            as such.

        Raises:
          UserError: the template refuses them, or fails on them in any way.
        """
        if self._parts:
            messages = [{**m, "content": _as_parts(m["content"])} for m in messages]
        try:
            return self._rendered(messages)
        except Exception as error:  # whatever somebody's program does
            said = (
                str(error)
                if isinstance(error, jinja2.TemplateError)
                else f"{type(error).__name__}: {error}"
            )
            told = (
                "; does this model have no system message, or another order of "
                "roles? If not, take its original tokenizer files"
            )
            raise UserError(f"the chat template refuses these messages: {said}{told}") from error

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return self._template.render(
            messages=messages, add_generation_prompt=True, **self._variables
        )

    def _shows(self, content: Any) -> bool:
        """Whether a user's content appears in the prompt."""
        try:
            return _PROBE in self._rendered([{"role": "user", "content": content}])
        except Exception:  # told when it is used
            return False


def find_template(folder: Path, config: Mapping[str, Any]) -> str:
    """The source of a folder's template for plain conversations.

    chat_template.jinja goes before `chat_template` of tokenizer_config.json (`config`), which is a
    text or a list of named ones; further named ones are in additional_chat_templates/. With
    several, the one called "default" is taken.

    Raises:
      UserError: none, several without a default, or something else in their place.
    """
    named: dict[str, Any] = {}
    found = config.get("chat_template")
    if isinstance(found, str):
        named = {"default": found}
    elif isinstance(found, list):
        if not all(
            isinstance(one, Mapping)
            and isinstance(one.get("name"), str)
            and isinstance(one.get("template"), str)
            for one in found
        ):
            raise UserError(
                f"{folder / 'tokenizer_config.json'}: its list of chat "
                "templates has one without name or template; fetch it again"
            )
        named = {one["name"]: one["template"] for one in found}
    elif found is not None:
        raise UserError(
            f"{folder / 'tokenizer_config.json'}: its chat_template is a "
            f"{type(found).__name__}, not a text; fetch it again"
        )
    files = [*(folder / OTHERS).glob("*.jinja"), folder / _SEPARATE]
    named |= {
        ("default" if path.name == _SEPARATE else path.stem): _read(path)
        for path in files
        if path.is_file()
    }
    if not named:
        raise UserError(
            f"{folder} has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); take an instruction-tuned (chat) model, or copy the file "
            "from the one this was made from"
        )
    if "default" not in named and len(named) > 1:
        listed = ", ".join(sorted(named))
        raise UserError(
            f"{folder} has several chat templates ({listed}), none called default; "
            f"save the right one as {folder / _SEPARATE}"
        )
    return named.get("default") or next(iter(named.values()))


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: its body, in a scope of its own."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        """The body alone."""
        line = next(parser.stream).lineno
        return nodes.Scope(
            parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
        )


def _environment() -> ImmutableSandboxedEnvironment:
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    sandbox.filters["tojson"] = _tojson
    sandbox.globals.update(
        raise_exception=_raise, strftime_now=lambda form: datetime.datetime.now().strftime(form)
    )
    return sandbox


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja's own filter escapes it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error
