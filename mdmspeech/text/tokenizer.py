"""The Thinker's tokenizer: ids, chat prompts with one place for speech, and text that streams without broken characters."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mdmspeech.errors import UserError

SPEECH = "<|speech-goes-here|>"  # stands for the speech vectors in a message; never reaches the model
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
_GGUF_CONTROL, _GGUF_USER = 3, 4  # token types in GGUF metadata: special tokens, and those that are never cut
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GGUF_CUTS = {  # name of a way to cut a text before BPE -> how: llama.cpp's names, the models' own tokenizer.json
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    **{
        name: [pre_tokenizers.Split(Regex(_WORDS % digits), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        for name, digits in (("llama-bpe", "{1,3}"), ("qwen2", ""))
    },
}
_BROKEN = "\ufffd"

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


class ChatTokenizer:
    """A `tokenizers` tokenizer with its model's chat template.

    Attributes:
      tokenizer: the underlying `tokenizers.Tokenizer`. stop_ids: ids that end an answer. vocab_size: number of ids.
    """

    def __init__(self, tokenizer: Tokenizer, chat_template: str, stop_ids: Sequence[int], special: Mapping[str, str] | None = None) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = tuple(sorted(set(stop_ids)))
        self.vocab_size = tokenizer.get_vocab_size()
        self._variables = dict(special or {})
        self._special = sorted((t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special), key=len, reverse=True)
        sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        sandbox.globals["raise_exception"] = _raise_template_error
        try:
            self._template = sandbox.from_string(chat_template)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template is broken ({error}); take the model's original tokenizer files") from error

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "ChatTokenizer":
        """From a Hugging Face folder: tokenizer.json, tokenizer_config.json (or chat_template.jinja), generation_config.json."""
        folder = Path(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{folder / 'tokenizer.json'} is missing or broken ({error}); give a complete model folder") from error
        config, generation = _json(folder / "tokenizer_config.json"), _json(folder / "generation_config.json")
        separate = folder / "chat_template.jinja"
        template = separate.read_text(encoding="utf-8") if separate.exists() else config.get("chat_template")
        if not isinstance(template, str):
            raise UserError(f"{folder} has no chat template; take an instruction-tuned (chat) model")
        ends = generation.get("eos_token_id", [])
        stop_ids = [ends] if isinstance(ends, int) else list(ends)
        special = {name: _content(config[name]) for name in ("bos_token", "eos_token") if config.get(name)}
        return cls(tokenizer, template, stop_ids + _end_ids(tokenizer), special)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "ChatTokenizer":
        """From the metadata of a GGUF file with byte-level BPE whose text is cut as SmolLM2's, Llama 3's or Qwen's ("smollm", "llama-bpe", "qwen2").

        Raises:
          UserError: another kind of tokenizer, or no chat template.
        """
        kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
        if kind[0] != "gpt2" or kind[1] not in _GGUF_CUTS:
            raise UserError(f"a GGUF tokenizer of kind {kind} is not known; use the model's Hugging Face folder instead")
        if "tokenizer.chat_template" not in metadata:
            raise UserError("this GGUF file has no chat template; take an instruction-tuned (chat) model")
        tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
        merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
        bpe = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, ignore_merges=kind[1] == "llama-bpe")
        tokenizer = Tokenizer(bpe)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_GGUF_CUTS[kind[1]])
        if kind[1] == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, types, strict=True) if k == _GGUF_CONTROL])
        tokenizer.add_tokens([AddedToken(t, normalized=False) for t, k in zip(tokens, types, strict=True) if k == _GGUF_USER])
        ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
        special = {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None}
        ends = [] if ids["eos"] is None else [ids["eos"]]
        return cls(tokenizer, metadata["tokenizer.chat_template"], ends + _end_ids(tokenizer), special)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing is added, and special tokens written in it stay plain text."""
        return self.tokenizer.encode(self._plain(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, up to where the assistant's next answer begins."""
        return self._ids(self._render(messages))

    def speech_prompt(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Ids before and after the speech vectors of a conversation in which `SPEECH` occurs exactly once.

        Raises:
          UserError: the placeholder is missing or occurs more than once.
        """
        parts = self._render(messages).split(SPEECH)
        if len(parts) != 2:
            raise UserError(f"the messages hold {len(parts) - 1} speech placeholders, exactly one is needed")
        return self._ids(parts[0]), self._ids(parts[1])

    def stream(self) -> "StreamDecoder":
        """A fresh incremental decoder."""
        return StreamDecoder(self)

    def _render(self, messages: Sequence[Message]) -> str:
        messages = [{"role": m["role"], "content": self._plain(m["content"])} for m in messages]
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._variables)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template refuses these messages: {error}") from error

    def _ids(self, rendered: str) -> list[int]:
        return self.tokenizer.encode(rendered, add_special_tokens=False).ids

    def _plain(self, text: str) -> str:
        """Breaks up special tokens written by a user, so that a message can never end its own turn."""
        for token in self._special:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text


def end_of_turn(tokenizer: Any) -> int:
    """The id with which the chat template of a `ChatTokenizer` (or something like it) ends an assistant's turn.

    Raises:
      UserError: the template writes something else there.
    """
    exchange = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": SPEECH}, {"role": "user", "content": "Bye."}]
    _, after = tokenizer.speech_prompt(exchange)
    if not after or after[0] not in tokenizer.stop_ids:
        raise UserError(
            f"this chat template does not end an answer with one of the model's stop ids {tokenizer.stop_ids}; take another model"
        )
    return int(after[0])


class StreamDecoder:
    """Text of a growing list of ids, in pieces: their concatenation is the decoded whole, and no piece holds half a character."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown_from = 0  # first id of the window that is decoded; some decoders treat the first token specially,
        self._shown_to = 0  # so the window keeps the last piece shown as context

    def push(self, token_id: int) -> str:
        """The new text that `token_id` completes ("" while a character is incomplete)."""
        self._ids.append(int(token_id))
        text = self._pending()
        if text.endswith(_BROKEN):
            return ""
        self._shown_from, self._shown_to = self._shown_to, len(self._ids)
        return text

    def flush(self) -> str:
        """What is left at the end; an incomplete last character is dropped."""
        text = self._pending().rstrip(_BROKEN)
        self._shown_from = self._shown_to = len(self._ids)
        return text

    def _pending(self) -> str:
        shown = self._tokenizer.decode(self._ids[self._shown_from : self._shown_to])
        return self._tokenizer.decode(self._ids[self._shown_from :])[len(shown) :]


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch it again") from error


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else token["content"]


def _end_ids(tokenizer: Tokenizer) -> list[int]:
    ids = [tokenizer.token_to_id(token) for token in _ENDS]
    return [i for i in ids if i is not None]


def _raise_template_error(message: str) -> None:
    raise jinja2.TemplateError(message)
