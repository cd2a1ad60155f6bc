"""The commands that the documents show: every block of README, of all pages and of the cards, every
command in running text, every experiment's docstring, the text of every notebook.
"""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARKDOWN = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
            "launch/README.md", "mdmspeech/assets/compact/README.md",
    "mdmspeech/assets/aligner/README.md", "experiments/compact_card.md",
            "experiments/aligner_card.md", "experiments/results/compact.md",
            "experiments/results/plan.md", "experiments/results/llada.md")  # fmt: skip
FORMULAS = ("docs/method.md",)  # what their blocks hold, besides commands
_PROGRAMS = r"(?:\.venv/bin/)?mdmspeech |make |python |pip |hf |\$M |M="


def blocks(text: str) -> list[str]:
    """Indented and fenced blocks of a Markdown text, without their indentation."""
    text = re.sub(r"^```\{.*?^```", "", text, flags=re.M | re.S)  # what Sphinx makes a page of
    found = list(re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S))
    indented = re.findall(
        r"(?:^|\n)\n((?:    [^\n]*\n|\n(?=    ))+)",
        re.sub(r"^```.*?^```", "", text, flags=re.M | re.S) + "\n",
    )
    return found + [re.sub(r"^    ", "", block, flags=re.M).strip("\n") for block in indented]


def lines_of(block: str) -> list[str]:
    """Its commands, one a line, without remarks."""
    joined = re.sub(r"\s*\\\n\s*", " ", block)
    return [
        line
        for line in (re.sub(r"\s+#\s.*$", "", raw).strip() for raw in joined.splitlines())
        if line
    ]


def markdown_commands(path: str) -> dict[str, list[str]]:
    """{"block": lines of the blocks, "python": whole blocks of Python, "inline": commands in
    running text}.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {"block": [], "python": [], "inline": []}
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for block in blocks(text):
        if block in fenced or re.search(r"^(import|from) ", block, re.M):
            found["python"].append(block)
        else:
            found["block"] += lines_of(block)
    if path in FORMULAS:
        found["block"] = [line for line in found["block"] if re.match(_PROGRAMS, line + " ")]
    prose = re.sub(r"^```\w*$", "", text, flags=re.M)
    for block in blocks(text):
        for line in block.splitlines():
            prose = prose.replace(line, "", 1)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
    found["inline"] = [span for span in spans if re.match(_PROGRAMS, span + " ")]
    return found


def notebook_commands(path: Path) -> list[str]:
    """Commands in the running text of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    spans = (" ".join(span.split()) for text in texts for span in re.findall(r"`([^`]+)`", text))
    return [span for span in spans if re.match(_PROGRAMS, span + " ")]


def notebooks() -> list[Path]:
    return sorted((ROOT / "experiments" / "colab").glob("*.ipynb"))


def docstring_commands(path: Path) -> list[str]:
    """Commands of an experiment's docstring: what follows "Command:", a remark "In small ...:
    --config X" being one too.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=True) or ""
    match = re.search(r"^Command:\s*(.*?)(?=^\w[\w ]*:|^\s*$|\Z)", text, re.M | re.S)
    found: list[str] = []
    for raw in re.sub(r"\\\n", " ", match[1]).splitlines() if match else []:
        for line in (
            re.split(r";\s+|\s{3,}after: ", raw.strip())
            if "convert_lm" not in raw
            else [raw.strip()]
        ):
            small = re.match(r"(?:In|The same in) small, .*?: (--config .*)", line)
            if line.startswith("--set"):
                found[-1] += f" {line}"
            elif small or re.match(_PROGRAMS, line) or not found:  # other lines go on with a remark
                found.append(
                    f"mdmspeech train {small[1]}"
                    if small
                    else re.sub(r" \(.*\)\.?.*$|\. .*$", "", line)
                )
    return [re.sub(r"\s+", " ", line) for line in found]


def experiments() -> list[Path]:
    return sorted(
        path
        for path in (ROOT / "experiments").glob("*.py")
        if path.stem not in ("__init__", "large", "local")
    )
