"""The Thinker's tokenizer: ids, chat prompts with one place for speech, and text that streams
without broken characters.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mdmspeech.errors import UserError
from mdmspeech.text import thinking
from mdmspeech.text.chat_template import ChatTemplate, find_template

# stands for the speech vectors in a message; never reaches the model
SPEECH = "<|speech-goes-here|>"
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
# token types in GGUF metadata: special tokens, and those that are never cut
_GGUF_CONTROL, _GGUF_USER = 3, 4
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# name of a way to cut a text before BPE -> how: llama.cpp's names, the models' own tokenizer.json
_GGUF_CUTS = {
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    **{
        name: [
            pre_tokenizers.Split(Regex(_WORDS % digits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        for name, digits in (("llama-bpe", "{1,3}"), ("qwen2", ""))
    },
}
BROKEN = "\ufffd"  # what an incomplete character is decoded to
_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # of special tokens that templates use
_SLOW = ("tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")

# {"role": "system" | "user" | "assistant", "content": text, or what `ChatTemplate.render` takes}
Message = Mapping[str, Any]


class ChatTokenizer:
    """A `tokenizers` tokenizer with its model's chat template.

    Attributes:
      tokenizer: the underlying `tokenizers.Tokenizer`. stop_ids: ids that end an answer.
        vocab_size: number of ids.
      thought_tags: ids of `<think>` and `</think>`, where these are tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: str,
        stop_ids: Sequence[int],
        special: Mapping[str, str] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = tuple(sorted(set(stop_ids)))
        self.vocab_size = tokenizer.get_vocab_size()
        self._special = sorted(
            (t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special),
            key=len,
            reverse=True,
        )
        self._template = ChatTemplate(chat_template, special or {})
        ids = {tokenizer.token_to_id(tag): tag for tag in (thinking.OPEN, thinking.CLOSE)}
        self.thought_tags = {i: tag for i, tag in ids.items() if i is not None}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the vocabulary and of how text is cut."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()[:16]

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "ChatTokenizer":
        """From a Hugging Face folder: tokenizer.json, tokenizer_config.json, generation_config.json
        (or config.json); for the template see `find_template`.

        Raises:
          UserError: files that are missing, broken, or hold something else than they should.
        """
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{folder} has no tokenizer.json; {_without_tokenizer(folder)}")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"{folder / 'tokenizer.json'} is broken ({error}); give a complete model folder"
            ) from error
        config = _json(folder / "tokenizer_config.json")
        found = {f"{name}_token": _content(config, f"{name}_token", folder) for name in _NAMES}
        special = {name: token for name, token in found.items() if token is not None}
        ends = [
            *_stop_ids(folder),
            tokenizer.token_to_id(special.get("eos_token", "")),
            *_end_ids(tokenizer),
        ]
        return cls(
            tokenizer, find_template(folder, config), [i for i in ends if i is not None], special
        )

    def check_ends(self) -> None:
        """UserError: it names no end of an answer, so an answer would have none."""
        if not self.stop_ids:
            raise UserError(
                "this Thinker's tokenizer names no end of an answer: set eos_token_id in its "
                "generation_config.json"
            )

    @classmethod
    def of_text(cls, written: str, where: str) -> "ChatTokenizer":
        """From what a tokenizer.json has in it, for plain text: it knows no chat.

        where: it is written, for the UserError if it is broken.
        """
        try:
            return cls(Tokenizer.from_str(written), "", [])
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{where} is broken ({error}); fetch it again") from error

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "ChatTokenizer":
        """From the metadata of a GGUF file with byte-level BPE whose text is cut as SmolLM2's,
        Llama 3's or Qwen's ("smollm", "llama-bpe", "qwen2").

        Raises:
          UserError: another kind of tokenizer, or no chat template.
        """
        kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
        if kind[0] != "gpt2" or not isinstance(kind[1], str) or kind[1] not in _GGUF_CUTS:
            raise UserError(
                f"a GGUF tokenizer of kind {kind} is not known; use the model's "
                "Hugging Face folder instead"
            )
        template = metadata.get("tokenizer.chat_template")
        if not isinstance(template, str):
            raise UserError(
                "this GGUF file has no chat template; take an instruction-tuned (chat) model"
            )
        try:
            tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
            tokenizer = _gguf_tokenizer(
                kind[1], list(zip(tokens, types, strict=True)), metadata["tokenizer.ggml.merges"]
            )
            ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
            special = {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None}
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                "the tokenizer in this GGUF file is broken "
                f"({type(error).__name__}: {error}); fetch it again"
            ) from error
        ends = [] if ids["eos"] is None else [ids["eos"]]
        return cls(tokenizer, template, ends + _end_ids(tokenizer), special)

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
        """Ids before and after the speech vectors of a conversation in which `SPEECH` occurs
        exactly once.

        Raises:
          UserError: the placeholder is missing or occurs more than once.
        """
        if (given := _placeholders(messages)) != 1:
            raise UserError(f"the messages hold {given} speech placeholders, exactly one is needed")
        before, after = self.speech_prompts(messages)
        return before, after

    def speech_prompts(self, messages: Sequence[Message]) -> list[list[int]]:
        """Ids before, between and after the speech vectors of a conversation in which `SPEECH`
        stands once or more often.

        Raises:
          UserError: a chat template that does not write each of them once.
        """
        parts, given = self._render(messages).split(SPEECH), _placeholders(messages)
        if len(parts) != given + 1:
            raise UserError(
                f"the chat template of this Thinker writes what the user says {len(parts) - 1} "
                f"times, {'once' if given == 1 else given} is needed: put the template that "
                "belongs to its weights into its folder (chat_template.jinja), or take another "
                "Thinker"
            )
        return [self._ids(part) for part in parts]

    def stream(self) -> "StreamDecoder":
        """A fresh incremental decoder."""
        return StreamDecoder(self)

    def opens_thought(self, ids: Sequence[int]) -> bool:
        """Whether an answer begins inside a thought after this end of a prompt."""
        return thinking.opens_thought(
            self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
        )

    def closing(self, ids: Sequence[int]) -> list[int]:
        """What closes the thought that this end of a prompt has opened, so that an answer follows
        at once; [] if it has opened none.
        """
        return self.thought_end() if self.opens_thought(ids) else []

    def thought_end(self) -> list[int]:
        """Ids that end a thought wherever it is, and the white space before the answer."""
        return self._ids(thinking.CLOSED_AT_ONCE)

    def _render(self, messages: Sequence[Message]) -> str:
        return self._template.render(
            [{"role": m["role"], "content": self._plain_content(m["content"])} for m in messages]
        )

    def _ids(self, rendered: str) -> list[int]:
        return self.tokenizer.encode(rendered, add_special_tokens=False).ids

    def _plain_content(self, content: Any) -> Any:
        if isinstance(content, str) or content is None:
            return None if content is None else self._plain(content)
        if not isinstance(content, Sequence) or not all(
            isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
        ):
            raise UserError(
                f"a message's content is {content!r:.60}; give a text, or a list of "
                "{'type': 'text', 'text': ...}"
            )
        return [{"type": "text", "text": self._plain(part["text"])} for part in content]

    def _plain(self, text: str) -> str:
        """Breaks up special tokens written by a user, so that a message can never end its own turn."""
        for token in self._special:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text


def _placeholders(messages: Sequence[Message]) -> int:
    return sum(_texts(message["content"]).count(SPEECH) for message in messages)


def _texts(content: Any) -> str:
    """The text of a message's content, which may be a list of parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())


def _gguf_tokenizer(
    cut: str, tokens: Sequence[tuple[str, int]], merges: Sequence[str]
) -> Tokenizer:
    """Byte-level BPE of (token, type) pairs, one an id."""
    vocabulary, pairs = (
        {token: i for i, (token, _) in enumerate(tokens)},
        [_pair(merge) for merge in merges],
    )
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=cut == "llama-bpe")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_GGUF_CUTS[cut])
    if cut == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t, kind in tokens if kind == _GGUF_CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, kind in tokens if kind == _GGUF_USER]
    )
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    one, other = merge.split(" ")
    return one, other


def end_of_turn(tokenizer: Any) -> int:
    """The id with which the chat template of a `ChatTokenizer` (or something like it) ends an
    assistant's turn.

    Raises:
      UserError: the template writes something else there.
    """
    exchange = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": SPEECH},
        {"role": "user", "content": "Bye."},
    ]
    _, after = tokenizer.speech_prompt(exchange)
    if not after or after[0] not in tokenizer.stop_ids:
        raise UserError(
            "this chat template does not end an answer with one of the model's "
            f"stop ids {tokenizer.stop_ids}; take another model"
        )
    return int(after[0])


class StreamDecoder:
    """Text of a growing list of ids, in pieces: their concatenation is the decoded whole, and no
    piece holds half a character.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # first id of the window that is decoded; some decoders treat the first token specially,
        self._shown_from = 0
        self._shown_to = 0  # so the window keeps the last piece shown as context

    def push(self, token_id: int) -> str:
        """The new text that `token_id` completes ("" while a character is incomplete)."""
        self._ids.append(int(token_id))
        text = self._pending()
        if text.endswith(BROKEN):
            return ""
        self._shown_from, self._shown_to = self._shown_to, len(self._ids)
        return text

    def flush(self) -> str:
        """What is left at the end; an incomplete last character is dropped."""
        text = self._pending().rstrip(BROKEN)
        self._shown_from = self._shown_to = len(self._ids)
        return text

    def _pending(self) -> str:
        shown = self._tokenizer.decode(self._ids[self._shown_from : self._shown_to])
        return self._tokenizer.decode(self._ids[self._shown_from :])[len(shown) :]


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__} instead of an object; fetch it again"
        )
    return value


def _content(config: Mapping[str, Any], name: str, folder: Path) -> str | None:
    """The text of a special token, which may be an object with its text inside; None if the model
    has none.
    """
    token = config.get(name)
    token = token.get("content") if isinstance(token, Mapping) else token
    if token is None or isinstance(token, str):
        return token
    raise UserError(
        f"{folder / 'tokenizer_config.json'} says {token!r:.40} for {name}; a text "
        "is needed: fetch it again"
    )


def _stop_ids(folder: Path) -> list[int]:
    """eos_token_id of generation_config.json, or else of config.json: a number, a list of them, or
    null.
    """
    for path in (folder / "generation_config.json", folder / "config.json"):
        ends = _json(path).get("eos_token_id")
        if ends is None or ends == []:
            continue
        ids = ends if isinstance(ends, list) else [ends]
        if not all(type(i) is int and 0 <= i < 2**31 for i in ids):
            raise UserError(
                f"{path} says {ends!r:.60} for eos_token_id; a token's number or a "
                "list of them is needed: fetch it again"
            )
        return ids
    return []


def _without_tokenizer(folder: Path) -> str:
    """What to do about a folder without tokenizer.json."""
    if slow := [name for name in _SLOW if (folder / name).is_file()]:
        return (
            f"its {slow[0]} is the older form: make one with transformers' "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    return "give a complete model folder, or copy the file from the model's original one"


def _end_ids(tokenizer: Tokenizer) -> list[int]:
    """Of the special ones: Qwen's vocabulary has a "</s>" that is plain text."""
    added = tokenizer.get_added_tokens_decoder().items()
    return [i for i, token in added if token.content in _ENDS and token.special]
