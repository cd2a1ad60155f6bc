"""Marked-up text -> plain text: HTML and SSML tags, character entities, Markdown; a line, a heading
and an item of a list end with a pause.
"""

import html
import re

from mdmspeech.text.money import SIGNS
from mdmspeech.text.numerals import word_set

_TAGS = word_set(
    "a abbr acronym address amp-img article aside audio b bdi bdo big blockquote body br button "
    "canvas caption center cite code col colgroup data dd del details dfn dialog div dl dt em "
    "embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i "
    "iframe img input ins kbd label legend li link main map mark meta meter nav noscript object ol "
    "optgroup option output p param picture pre progress q rp rt ruby s samp script section select "
    "small source span strike strong style sub summary sup svg table tbody td template textarea "
    "tfoot th thead time title tr track tt u ul var video wbr speak voice prosody emphasis break "
    "say-as phoneme lexicon lexeme w token sentence paragraph bookmark lang desc metadata"
)
_BLOCKS = word_set(
    "address article aside blockquote body br caption dd details div dl dt figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 head header hr html legend li main nav ol option p pre section "
    "summary table tbody td tfoot th thead title tr ul break sentence paragraph speak textarea"
)
_WITHOUT_VALUE = (
    "allowfullscreen|async|autofocus|autoplay|checked|contenteditable|controls|crossorigin|"
    "default|defer|disabled|download|draggable|formnovalidate|hidden|inert|ismap|itemscope|"
    "loop|multiple|muted|nomodule|nowrap|noshade|novalidate|open|playsinline|popover|readonly|"
    r"required|reversed|selected|spellcheck|translate|(?:data|aria|ng|v|x)-[\w-]+"
)
# Bare words are attributes only if HTML knows them as such or another one has a quoted value: "a<b
# and c>d" is no tag.
_ATTRIBUTES = (
    r"(?:\s+(?:[\w:@.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+)"
    rf"|(?:{_WITHOUT_VALUE})(?=[\s/>])"
    r"|(?=[^<>\"']{0,400}=\s*[\"'])[\w:@.-]+(?!\s*=)))*"
)
_NAMED_ATTRIBUTES = r"(?:\s+[\w:@.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))"
_TAG = re.compile(
    (
        rf"<(?P<close>/?)(?P<name>(?:{'|'.join(sorted(map(re.escape, _TAGS), key=len, reverse=True))})(?![\w-])"
        rf"|[a-z]+:[\w-]+|[A-Za-z][\w-]*(?={_NAMED_ATTRIBUTES}"
        rf"|\s*/>))(?P<attributes>{_ATTRIBUTES})\s*/?>|</[A-Za-z][\w:-]*\s*>"
    ),
    re.IGNORECASE,
)
# What a reader of the page does not see begins so; where it ends is looked for by
# `_without_hidden`.
_HIDDEN = re.compile(
    (
        r"(?P<open><(?P<name>script|style|svg|metadata|template)\b[^<>]*>)"
        r"|(?P<comment><!--)|(?P<process><\?)|<![A-Za-z][^<>]*>|<!\[CDATA\[|\]\]>"
    ),
    re.IGNORECASE,
)
_SAID_FOR = re.compile(
    (
        r"<sub\s[^<>]*?\balias\s*=\s*(?:\"([^\"<>]*)\""
        r"|'([^'<>]*)')[^<>]*>(?:(?!<sub\b).)*?</sub\s*>"
    ),
    re.IGNORECASE | re.DOTALL,
)
_PICTURE = re.compile(
    r"<img\s[^<>]*?\balt\s*=\s*(?:\"([^\"<]*)\"|'([^'<]*)')[^<>]*>", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*[\w+#.-]*[ \t]*$", re.MULTILINE)
_LINK = re.compile(
    r"!?\[(?P<text>[^\[\]]*)\](?:\((?:[^()\s]|\([^()]*\))*(?:\s+(?:\"[^\"]*\""
    r"|'[^']*'))?\)|\[[^\[\]]*\])"
)
_DEFINITION = re.compile(
    r"^[ \t]*\[\^?[^\]\n]+\]:[ \t]*(?=\S+(?:[ \t]+[\"'(].*)?$)\S*://\S+.*$", re.MULTILINE
)
_FOOTNOTE = re.compile(r"\[\^[^\[\]\n]+\]:?")
_AUTOLINK = re.compile(r"<((?:https?|ftp|mailto):[^\s<>]+|[\w.+-]+@[\w.-]+)>")
_RULE_LINE = re.compile(
    r"^[ \t]*([=\-*_~#+.])(?:[ \t]*\1){2,}[ \t]*$|^(?=[^-]*(?:-[^-]+)*--)[ \t:|=-]+$"
)
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(?P<text>.*?)[ \t]*#*[ \t]*$")
# after ">", which is "greater than" then
_QUANTITY = rf"(?:US|CA|AU|NZ|HK|C|A)?(?:[{''.join(SIGNS)}.+−-]|[±~≈√]\s?)*[\d½¼¾⅓⅔⅛π∞]"
_QUOTE = re.compile(rf"^[ \t]*(?:>[ \t]?)+(?=(?!{_QUANTITY})[^\s=]|\s*$|\d+\.\s)")
_ITEM = re.compile(r"^[ \t]*(?:[-*+•‣◦▪·○●■□]|–|—)[ \t]+(?=\S)(?:\[[ xX]\][ \t]+)?")
_NUMBERED = re.compile(r"^[ \t]*(?:(?P<n>\d{1,3})[.)]|(?P<letter>[a-z])\))[ \t]+(?=\S)")
_ROW = re.compile(r"^[ \t]*\|(?P<cells>.*)\|[ \t]*$")
_STRONG = [
    (re.compile(r"(?<![\w*\\])\*{1,3}(?=[^\s*])([^*\n]*?[^\s*])\*{1,3}(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_\\./])_{1,3}(?=[^\s_])((?:[^_\n]|(?<=\w)_(?=\w))*?[^\s_])_{1,3}(?![\w_])"), r"\1"),
    (re.compile(r"(?<!\w)~~(?=\S)([^~\n]*?\S)~~(?!\w)"), r"\1"),
    (re.compile(r"(`+)(?=\S)([^`\n]*?)\1"), r"\2"),
]  # fmt: skip
# characters: a line this long without an end mark goes on in the next one that starts small
_WRAPPED = 60
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+.!|>~-])(?=\S)(?<![A-Za-z]:\\.)")


def strip_tags(text: str) -> str:
    """`text` without HTML and SSML tags, comments and scripts, entities as their characters. Tags
    that make a block become line ends.
    """
    if "<" in text:
        text = _AUTOLINK.sub(r"\1", text)
        text = _without_hidden(text)
        text = _SAID_FOR.sub(lambda m: m[1] or m[2] or "", text)
        text = _PICTURE.sub(lambda m: f" {m[1] or m[2] or ''} ", text)
        text = _TAG.sub(_tag, text)
    return _ENTITY.sub(lambda m: html.unescape(m[0]), text) if "&" in text else text


def strip_links(text: str) -> str:
    """`text` with the words of its Markdown links and pictures instead of their addresses, and
    without fences of code.
    """
    text = _FENCE.sub("", text)
    if "[" in text:
        text = _DEFINITION.sub("", text)
        text = _LINK.sub(lambda m: m["text"], text)
        text = _FOOTNOTE.sub("", text)
    return text


def join_lines(text: str) -> str:
    """`text` in one line: without the marks of headings, lists, quotations, tables, rules and
    emphasis, and with a pause after every line.
    """
    lines = []
    for line in text.split("\n"):
        if _RULE_LINE.match(line) and line.strip() != "...":
            lines.append(("", True))
        else:
            lines.append(_line(line))
    parts: list[str] = []
    for n, (line, marked) in enumerate(lines):
        before = lines[n - 1][0] if n else ""
        goes_on = (
            line
            and not marked
            and len(before) >= _WRAPPED
            and not before.endswith((".", "!", "?", ":"))
        )
        if parts and not (goes_on and (line[0].islower() or before.endswith(","))):
            parts[-1] = _closed(parts[-1])
        if line:
            parts.append(line)
    joined = " ".join(parts)
    for pattern, kept in _STRONG:
        joined = pattern.sub(kept, pattern.sub(kept, joined))
    return _ESCAPED.sub(r"\1", joined)


def _tag(match: re.Match) -> str:
    return "\n" if (match["name"] or match[0].strip("</> ")).lower() in _BLOCKS else ""


def _line(line: str) -> tuple[str, bool]:
    """One line without its marks, and whether it had one that starts a new block (a heading, an item)."""
    line = _QUOTE.sub("", line)
    if heading := _HEADING.match(line):
        return heading["text"].strip(), True
    if row := _ROW.match(line):
        return ", ".join(cell.strip() for cell in row["cells"].split("|") if cell.strip()), True
    plain = _ITEM.sub("", line)
    marked = plain != line
    if not marked and (item := _NUMBERED.match(line)):
        return f"{item['n'] or item['letter']}, {line[item.end() :].strip()}", True
    return re.sub(r"(?<=\S)[ ]*\t+[ ]*(?=\S)", ", ", plain).strip(), marked


def _closed(text: str) -> str:
    """`text` with a pause at its end."""
    text = text.rstrip()
    return text if text.rstrip("\"'*_)]").endswith(tuple(".!?:;,…")) else text + "."


def _without_hidden(text: str) -> str:
    """`text` with a space for its comments, scripts and instructions. An end that was looked for
    once in vain is not looked for again, which keeps it linear.
    """
    kept, done, endless = [], 0, set()
    for match in _HIDDEN.finditer(text):
        if match.start() < done:
            continue
        end = (
            rf"</{match['name'].lower()}\s*>"
            if match["name"]
            else {"comment": "-->", "process": r"\?>"}.get(match.lastgroup or "")
        )
        closed = (
            None
            if end is None or end in endless
            else re.compile(end, re.IGNORECASE).search(text, match.end())
        )
        if end is not None and closed is None:
            endless.add(end)
            continue
        kept.append(text[done : match.start()])
        done = closed.end() if closed else match.end()
    return " ".join([*kept, text[done:]])
