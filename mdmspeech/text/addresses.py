"""Web and e-mail addresses and paths of files, spelled: "www.example.com/docs?id=42",
"jo.doe@mail.co.uk", "/usr/bin", "notes.txt".
"""

import re

from mdmspeech.text.numerals import code

_TLDS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|dev|app|ai|co|uk|us|ca|au|de|fr|es|jp|cn|ru|br|eu|"
    "ch|nl|se|nz|tv|ly|xyz|online|tech|me"
)
_FILES = (
    "txt|pdf|docx?|xlsx?|pptx?|csv|tsv|json|jsonl|xml|ya?ml|toml|ini|cfg|md|rst|html?|css|jsx?|"
    "tsx?|py|ipynb|java|cpp|hpp|cc|rs|go|rb|php|sh|bat|exe|dll|so|png|jpe?g|gif|svg|bmp|webp|"
    "mp3|mp4|wav|flac|ogg|m4a|avi|mov|mkv|zip|tar|gz|bz2|xz|7z|rar|log|sql|db|bin|iso|bak|tmp|"
    "safetensors|gguf"
)
_REST = r"[^\s<>\"']*[^\s<>\"'.,;:!?)\]}*_~`]"
_WEB = re.compile(
    (
        r"(?<![\w@])(?P<scheme>(?:https?|ftp|file|wss?|ssh)://"
        rf"|mailto:)?(?P<rest>(?<=://){_REST}|(?<=mailto:){_REST}"
        rf"|www\.[\w-]{_REST})"
    ),
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+@%-])[\w.+%-]*\w@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}(?!\w)")
_DOMAIN = re.compile(
    rf"(?<![\w@./-])(?:[A-Za-z0-9][\w-]*\.)+(?:{_TLDS})(?::\d+)?(?:/(?:{_REST})?)?(?![\w@-]"
    rf"|\.\w)|(?<![\w.])localhost:\d+(?:/(?:{_REST})?)?"
)
_FILE = re.compile(rf"(?<![\w./\\@-])(?:[\w-]+\.)+(?:{_FILES})(?![\w-]|\.\w)")
_PATH = re.compile(
    r"(?<![\w/\\.<])(?:(?:~"
    r"|\.{1,2})?/(?=[\w.@])(?:[\w.@+-]+/)*[\w@+-](?:[\w.@+-]*[\w@+-])?/?"
    rf"|(?<![@+-])(?:[\w.@+-]+/)+[\w-]+(?:\.[\w-]+)*\.(?:{_FILES})"
    r"|[A-Za-z]:\\(?:[^\s\"'<>|?*]*[^\s\"'<>|?*.,;:!)])?)(?![\w/])"
)
_HANDLE = re.compile(r"(?<![\w@.])@(?=[A-Za-z_])([\w]+)")
_SIGNS = {
    ".": "dot", "/": "slash", "\\": "backslash", ":": "colon", "-": "dash", "_": "underscore",
    "?": "question mark", "=": "equals", "&": "and",
    "#": "hash", "@": "at", "~": "tilde", "%": "percent", "+": "plus", ",": "comma",
    ";": "semicolon", "!": "exclamation mark", "*": "star",
    "$": "dollar", "(": "open parenthesis", ")": "close parenthesis", "[": "open bracket",
    "]": "close bracket", "{": "open brace", "}": "close brace",
    "^": "caret", "|": "pipe", "'": "apostrophe", "`": "backtick",
}  # fmt: skip
_TOKEN = re.compile(r"\d+|[^\W\d_]+|[^\w\s]|_")


def read_addresses(text: str) -> str:
    """Every address and path of `text` in words."""
    text = _WEB.sub(lambda m: spell(m["rest"]), text)
    for pattern in (_EMAIL, _PATH, _DOMAIN, _FILE):
        text = pattern.sub(lambda m: spell(m[0]), text)
    return _HANDLE.sub(lambda m: f"at {spell(m[1])}", text)


def spell(address: str) -> str:
    """An address in words, every sign of it: "a.com/x?id=4" -> "A dot com slash X question mark id
    equals four".
    """
    tokens, said = _TOKEN.findall(address), []
    for n, token in enumerate(tokens):
        if token.isdecimal():
            said.append(code(token))
        elif token in _SIGNS:
            said.append(_SIGNS[token])
        elif token.lower() == "www":
            said.append("W W W")
        elif (
            len(token) == 1
            or (len(token) < 6 and not re.search("[aeiouy]", token, re.IGNORECASE))
            or (len(token) == 2 and n == len(tokens) - 1 and tokens[n - 1] == ".")
        ):
            said.append(" ".join(token.upper()))
        else:
            said.append(token)
    return " ".join(said)
