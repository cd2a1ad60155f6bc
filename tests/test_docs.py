"""What the pages say of the repository is so: citations, links, names of files, the table of import
arrows, the list of names that changed.

Each check is a function of texts that returns what is wrong, so that it can be given wrong texts,
too.
"""

import io
import posixpath
import re
import sys
import tokenize
from collections.abc import Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_architecture import _GROUND_FLOOR, MAY_IMPORT, PACKAGE

ROOT = Path(__file__).parents[1]
# Pages of others, and pages that a program of ours writes where its user says.
ELSEWHERE = {
    "docs/gguf.md": "ggml's",
    "README_WEIGHTS.md": "DeepSeek-V3's",
    "USE_POLICY.md": "Llama's",
    "STEM.md": "the name that --list is given",
}
_FOLDERS = ("docs", "mdmspeech", "experiments", "launch", "tests")
_SKIPPED = {"__pycache__", "build", "dist"}


def repository(*endings: str) -> dict[str, Path]:
    """Files by their path from the root, of these endings (of any, without)."""
    inside = (path for folder in _FOLDERS for path in (ROOT / folder).rglob("*"))
    files = (
        path
        for path in (*ROOT.iterdir(), *inside)
        if path.is_file() and not _SKIPPED & set(path.parts)
    )
    return {
        str(path.relative_to(ROOT)): path for path in files if not endings or path.suffix in endings
    }


FILES = frozenset(repository())
_WRONG_ON_PURPOSE = {"tests/test_docs.py", "tests/mutants/docs.toml"}
TEXTS = {
    n: p.read_text(encoding="utf-8")
    for n, p in repository(".py", ".md", ".toml").items()
    if n not in _WRONG_ON_PURPOSE
}
PAGES = {name: text for name, text in TEXTS.items() if name.endswith(".md")}
SAID = {name: text for name, text in TEXTS.items() if not name.startswith("tests/")}


# ---- Headings and citations ---------------------------------------------------------------------


def headings(page: str) -> dict[str, str]:
    """Title -> number ("" without) of a page's headings; what stands in code blocks is none."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.M | re.S)
    return {
        title: number.rstrip(".")
        for number, title in re.findall(
            r"^#{1,6} +((?:\d+\.)*\d*\.?)[ \t]*(.+?)[ \t]*$", text, re.M
        )
    }


def flowing(text: str) -> str:
    """The text without line ends: a citation may go on in the next line of a docstring or a comment."""
    return re.sub(r"[ \t]*\n[ \t]*(?:#[ \t]*)?", " ", text)


_CITED = re.compile(
    r"docs/(\w+\.md)((?:,? (?:and )?\\?\"[^\"]+\")+|,? (?:sections? |§ ?)(?:[\d., and]*\d))?"
)


def broken_citations(texts: Mapping[str, str], pages: Mapping[str, str]) -> list[str]:
    """Citations `docs/PAGE.md, "Heading" and "Heading"` or `docs/PAGE.md section 4.1` whose page or
    heading there is not.
    """
    wrong = []
    for name, text in texts.items():
        for page, places in _CITED.findall(flowing(text)):
            if f"docs/{page}" in ELSEWHERE:
                continue
            if f"docs/{page}" not in pages:
                wrong.append(f"{name}: docs/{page} does not exist")
                continue
            known = headings(pages[f"docs/{page}"])
            quoted = re.findall(r"\"([^\"]+?)\\?\"", places)
            numbers = re.findall(r"\d+(?:\.\d+)*", "" if quoted else places)
            wrong += [
                f'{name}: docs/{page} has no heading "{title}"'
                for title in quoted
                if title not in known
            ]
            wrong += [
                f"{name}: docs/{page} has no section {number}"
                for number in numbers
                if number not in known.values()
            ]
    return wrong


def without_page(texts: Mapping[str, str]) -> list[str]:
    """Sections of a page that is not named by its path: a reader cannot open it."""
    found = [
        (name, match[0])
        for name, text in texts.items()
        for match in re.finditer(r"\b\w+\.md,? (?:sections? )?\d\w*", flowing(text))
    ]
    return [
        f"{name}: {what!r}: say docs/PAGE.md and a heading"
        for name, what in found
        if not re.search(r"docs/" + re.escape(what), flowing(texts[name]))
    ]


def old_citations(texts: Mapping[str, str]) -> list[str]:
    """Citations of a list of work that no reader has."""
    return [
        f"{name}: {match[0]}"
        for name, text in texts.items()
        for match in re.finditer(r"(?i)\b(?:issue|acceptance)s?\s+#?\d+", flowing(text))
    ]


# ---- Files that are named -----------------------------------------------------------------------


def remarks(source: str) -> str:
    """The comments of Python source, and the strings that stand alone (docstrings)."""
    kept, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        alone = before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and alone):
            kept.append(token.string)
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    return "\n".join(kept)


def unknown_pages(texts: Mapping[str, str], files: frozenset[str]) -> list[str]:
    """Names of Markdown files that are not in the repository: as a path from the root or from the
    naming file, or as a bare name.
    """
    names = {Path(file).name for file in files}
    wrong = []
    for name, text in texts.items():
        for said in re.findall(r"[\w./-]*\w\.md\b", text):
            near = str((Path(name).parent / said).as_posix())
            if name.endswith(".md"):  # a link of a page
                near = posixpath.normpath(near)
            if (
                said not in ELSEWHERE
                and said not in files
                and near not in files
                and ("/" in said or said not in names)
            ):
                wrong.append(f"{name}: there is no {said}")
    return wrong


_PLACES = ("", "mdmspeech/", "mdmspeech/codec/", "docs/")


def unknown_paths(pages: Mapping[str, str], files: frozenset[str]) -> list[str]:
    """Code spans of pages that name a file or a folder which there is not. CAPITALS stand for
    something of the reader's.
    """
    folders = {f"{parent}/" for file in files for parent in Path(file).parents}
    names = {Path(file).name for file in files}
    wrong = []
    for name, text in pages.items():
        for said in re.findall(r"`([\w./*-]+(?:\.(?:py|md|toml|json)|/))`", text):
            pattern = re.compile(
                "(?:" + "|".join(_PLACES) + ")" + re.escape(said).replace(r"\*", "[^/]*")
            )
            known = said in names or any(pattern.fullmatch(one) for one in (*files, *folders))
            if not known and not re.search(r"\b[A-Z]{2,}\b", said.removesuffix("README.md")):
                wrong.append(f"{name}: there is no {said}")
    return wrong


def slug(title: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def broken_links(
    pages: Mapping[str, str], files: frozenset[str], sources: Mapping[str, str]
) -> list[str]:
    """Relative links of Markdown whose file or heading there is not. sources: texts of the pages
    that are linked to.
    """
    wrong = []
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, fragment = target.partition("#")
            parts: list[str] = []
            for part in (Path(name).parent / path).parts if path else Path(name).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            file = "/".join(parts)
            titles = {
                slug(f"{number}{'.' * (number.isdigit())} {title}".strip())
                for title, number in headings(sources.get(file, "")).items()
            }
            if file not in files:
                wrong.append(f"{name}: {target} leads nowhere")
            elif fragment and fragment not in titles:
                wrong.append(f"{name}: {file} has no heading #{fragment}")
    return wrong


# ---- Tables -------------------------------------------------------------------------------------


def rows_under(page: str, title: str) -> list[list[str]]:
    """Cells of the first table under a heading, without its head."""
    section = re.split(r"^#{1,6} ", page.split(f"{title}\n", 1)[1], flags=re.M)[0]
    lines = re.findall(r"^\|.*\|$", section, re.M)[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def arrows(page: str) -> dict[str, set[str]]:
    """Room -> rooms it may import, as the architecture's table has it."""
    return {
        "".join(re.findall(r"`(.+?)`", room)): set(re.findall(r"`(.+?)`", rooms))
        for room, rooms in rows_under(page, "Import arrows")
    }


def new_names(page: str) -> list[tuple[str, str, str]]:
    """(row, module, name or "") of each new name of the table of docs/upgrading.md: modules are
    dotted, names follow theirs, `.x` is a method of any in the row.
    """
    found = []
    for _, now in rows_under(page, "## Names that changed"):
        module = "inference.assistant"
        for said in re.findall(r"`([\w.()]+)`", now):
            if re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)+", said):
                module = said
                found.append((now, module, ""))
            else:
                found.append((now, module, said.removesuffix("()").rpartition(".")[2]))
    return found


def lacking(names: list[tuple[str, str, str]]) -> list[str]:
    """New names that no module of their row defines."""
    wrong = []
    for row, module, name in names:
        path = PACKAGE / (module.replace(".", "/") + ".py")
        rows = [PACKAGE / (m.replace(".", "/") + ".py") for r, m, _ in names if r == row]
        sources = [p.read_text(encoding="utf-8") for p in rows if p.is_file()]
        if not path.is_file():
            wrong.append(f"there is no mdmspeech.{module}")
        elif name and not any(
            re.search(rf"\b(?:def|class) {name}\b|^{name}(?::[^=\n]*)? =", source, re.M)
            for source in sources
        ):
            wrong.append(f"mdmspeech.{module} has no {name}")
    return wrong


# ---- The repository -----------------------------------------------------------------------------


def test_every_citation_names_a_heading_that_exists():
    assert not broken_citations(TEXTS, PAGES)
    assert not without_page(SAID)
    assert (
        sum(
            len(_CITED.findall(flowing(text)))
            for name, text in SAID.items()
            if name.endswith(".py")
        )
        > 25
    )


def test_no_citation_of_a_list_of_work_is_left():
    assert not old_citations(
        {name: text for name, text in SAID.items() if not name.endswith(".json")}
    )


def test_every_page_that_is_named_exists():
    in_tests = {
        name: remarks(text)
        for name, text in TEXTS.items()
        if name.startswith("tests/") and name.endswith(".py")
    }
    assert not unknown_pages(SAID | in_tests, FILES)


def test_every_relative_link_leads_somewhere():
    assert not broken_links(PAGES, FILES, PAGES)


def test_the_files_that_the_pages_speak_of_exist():
    assert not unknown_paths(
        {
            name: PAGES[name]
            for name in ("docs/method.md", "docs/architecture.md", "docs/glossary.md")
        },
        FILES,
    )


def test_the_table_of_arrows_is_what_the_tests_hold():
    cell = lambda names: ", ".join(f"`{name}`" for name in sorted(names)) or "nothing of ours"
    rows = "\n".join(
        f"| {cell([room]) if room else '(package root)'} | {cell(rooms)} |"
        for room, rooms in MAY_IMPORT.items()
    )
    assert arrows(PAGES["docs/architecture.md"]) == MAY_IMPORT, f"the rows are\n{rows}"


def test_the_tables_of_rooms_and_letters_have_every_room():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    told = {cells[0].strip("`") for cells in rows_under(PAGES["docs/architecture.md"], "Rooms")}
    assert rooms <= told == set(MAY_IMPORT) - {""}
    assert {
        cells[0].strip("`") for cells in rows_under(PAGES["docs/architecture.md"], "Ground floor")
    } == _GROUND_FLOOR
    lettered = {
        cells[0].strip("`").split("/")[0]
        for cells in rows_under(PAGES["docs/glossary.md"], "Letters by room")
    }
    assert lettered <= rooms
    assert {
        name.split("/")[1]
        for name, text in SAID.items()
        if re.search(r"\b[a-z]+_B[A-Z]+\b", text) and name.startswith("mdmspeech/")
    } <= lettered


def test_the_names_that_changed_have_the_new_ones():
    names = new_names(PAGES["docs/upgrading.md"])
    assert len(names) > 40
    assert not lacking(names)


# ---- The checks themselves see what is wrong ----------------------------------------------------

PAGE = (
    "# The page\n\n## 3. Two words\n\n### 3.1 Three more words\n\n```\n# no "
    "heading\n```\n\n[up](#3-two-words)\n"
)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('docs/page.md, "Two words" and "Three more words"', 0),
        ('"""As in docs/page.md, "Three\n    more words"."""', 0),
        ('# docs/page.md, "Three more\n# words"', 0),
        ("docs/page.md section 3.1", 0),
        ("docs/page.md sections 3 and 3.1", 0),
        ("see docs/page.md for more", 0),
        ('docs/page.md, "Two"', 1),
        ('docs/page.md, "two words"', 1),
        ('docs/page.md, "Two words" and "Four"', 1),
        ('docs/page.md, "no heading"', 1),
        ("docs/page.md section 4", 1),
        ("docs/page.md sections 3 and 3.2", 1),
        ('docs/other.md, "Two words"', 1),
        ("docs/other.md", 1),
    ],
)
def test_citations_seen(text, wrong):
    assert len(broken_citations({"x.py": text}, {"docs/page.md": PAGE})) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("(page.md section 4)", 1),
        ("page.md sections\n    4 and 4b", 1),
        ("page.md 10", 1),
        ("docs/page.md section 4", 0),
        ("page.md holds 3", 0),
        ("(issue 2, section 4)", 1),
        ("Acceptance 3 and 4", 1),
        ("what issue\n# 12 asks", 1),
        ("issues #7", 1),
        ("an issue of 2 parts", 0),
        ("a known issue", 0),
    ],
)
def test_pages_without_a_path_and_lists_of_work_seen(text, wrong):
    assert len(without_page({"x.py": text}) + old_citations({"x.py": text})) == wrong


def test_a_page_may_link_to_one_above_it():
    files = frozenset({"docs/page.md", "launch/README.md"})
    assert not unknown_pages({"docs/page.md": "[a](../launch/README.md)"}, files)
    assert unknown_pages({"docs/page.md": "[a](../launch/page.md)"}, files)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("docs/page.md", 0),
        ("page.md", 0),
        ("README.md", 0),
        ("ggml's docs/gguf.md", 0),
        ("method.md", 1),
        ("docs/README.md", 1),
        ("field.md, traps", 1),
        ("../docs/page.md", 1),  # from x/y.py it is docs/page.md, but nobody reads it so
    ],
)
def test_pages_that_do_not_exist_seen(said, wrong):
    assert (
        len(
            unknown_pages(
                {"x/y.py": f"# {said}"}, frozenset({"docs/page.md", "README.md", "x/y.py"})
            )
        )
        == wrong
    )


def test_remarks_are_comments_and_docstrings():
    source = (
        '"""first.md"""\nx = "second.md"  # third.md\n\n\ndef f():\n    # fourth.md\n '
        '   """fifth.md"""\n    return g("sixth.md")\n'
    )
    assert re.findall(r"\w+(?=\.md)", remarks(source)) == ["first", "third", "fourth", "fifth"]


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("[a](page.md)", 0),
        ("[a](page.md#31-three-more-words)", 0),
        ("[a](../README.md)", 0),
        ("[a](https://example.org/no.md)", 0),
        ("`[a](no.md)`", 0),
        ("![a](no.png)", 1),
        ("[a](README.md)", 1),
        ("[a](page.md#three-more-words)", 1),
        ("[a](#nothing)", 1),
    ],
)
def test_links_seen(link, wrong):
    files, pages = (
        frozenset({"docs/page.md", "docs/this.md", "README.md"}),
        {"docs/page.md": PAGE, "docs/this.md": link},
    )
    assert len(broken_links({"docs/this.md": link}, files, pages)) == wrong


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("`diffusion/layout.py`", 0),
        ("`layout.py`", 0),
        ("`mdmspeech/diffusion/`", 0),
        ("`diffusion/*.py`", 0),
        ("`experiments/NAME.py`", 0),
        ("`diffusion/layouts.py`", 1),
        ("`mdmspeech/decoding/`", 1),
        ("`reveal.py`", 1),
        ("`experiments/*.py`", 1),
    ],
)
def test_paths_seen(said, wrong):
    files = frozenset({"mdmspeech/diffusion/layout.py", "docs/page.md"})
    assert len(unknown_paths({"docs/page.md": said}, files)) == wrong


def test_tables_are_read():
    page = (
        "## 2. Import arrows\n\n| room | may import |\n|---|---|\n| `a` | nothing "
        "of ours |\n| (package root) | `a`, `b` |\n\n## 3. X\n\n| `c` | `d` |\n"
    )
    assert arrows(page) == {"a": set(), "": {"a", "b"}}
    row = "## Names that changed\n\n| before | now |\n|---|---|\n| `x` | {} |\n"
    good = "`diffusion.layout`: `mask_mod`, `MaskCoords`; `inference.text_synthesizer`; `.push_delta()`"
    assert not lacking(new_names(row.format(good) + "| `y` | `Assistant.frontend` |\n"))
    for wrong in (
        "`diffusion.places`",
        "`diffusion.layout`: `allow`",
        "`inference.text_synthesizer`; `.follow()`",
        "`Assistant.ear`",
    ):
        assert len(lacking(new_names(row.format(wrong)))) == 1, wrong
