"""The pages as a site: what `make docs` builds, where Sphinx is; and that there is a way to all."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OF_MAKE = ROOT / ".venv-docs" / "bin" / "python"
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


def python_with_sphinx():
    if importlib.util.find_spec("sphinx") and importlib.util.find_spec("myst_nb"):
        return sys.executable
    return str(OF_MAKE) if OF_MAKE.is_file() else None


needs_sphinx = pytest.mark.skipif(
    python_with_sphinx() is None, reason="no Sphinx here: make docs, which fetches it"
)


def build(source, out, *more):
    """The process of the Makefile's command, with other folders."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^docs: .*\n\t\$\(DOCS_VENV\)/bin/python (.*)$", makefile, re.M)[1]
    assert recipe.endswith("-c docs . build/docs")
    options = recipe.removesuffix("-c docs . build/docs").split()
    command = [python_with_sphinx(), *options, *more, "-c", "docs", ".", str(out)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


@needs_sphinx
def test_the_site_is_built_without_a_warning(tmp_path):
    done = build(ROOT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.stem for path in (tmp_path / "docs").glob("*.html")} == set(PAGES)
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / re.search(r"url=([^\"]+)", first)[1]).is_file()
    api = (tmp_path / "docs" / "api.html").read_text(encoding="utf-8")
    for name in ("mdmspeech.load", "PretrainedAssistant.chat", "PretrainedAssistant.push_to_hub",
                 "session.Session.push_audio", "session_config.SessionConfig",
                 "generation_config.GenerationConfig", "reply.Reply.save"):  # fmt: skip
        assert re.search(rf'id="(?:[\w.]+\.)?{re.escape(name)}"', api), name
    assert "Whole numbers may be of any integer type" in api  # the docstring is there
    for page in (tmp_path / "docs").glob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not loaded, f"{page.name} fetches {loaded[0]}"


@needs_sphinx
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# A\n\n[to](nowhere.md)\n", "nowhere.md"),
        ("# A\n\n[to](index.md#no-such-heading)\n", "no-such-heading"),
        ("# A\n\n```{eval-rst}\n.. autofunction:: mdmspeech.lode\n```\n", "lode"),
        ("# A\n", "isn't included in any toctree"),
        ("# A\n\n[to](index.md)\n", None),
    ],
)
def test_what_is_wrong_fails_the_build(tmp_path, text, told):
    source = tmp_path / "source"
    (source / "docs" / "site").mkdir(parents=True)
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    (source / "docs" / "conf.py").write_text(conf)
    listed = "" if told == "isn't included in any toctree" else "a\n"
    (source / "docs" / "index.md").write_text(f"# I\n\n```{{toctree}}\n{listed}```\n")
    (source / "docs" / "a.md").write_text(text)
    done = build(source, tmp_path / "out")
    assert (done.returncode == 0) == (told is None)
    assert told is None or told in done.stderr


def test_every_page_is_in_the_list_of_pages():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^[\w./]+$", "\n".join(re.findall(r"^```\{toctree\}\n(.*?)```", text, re.M | re.S)), re.M
    )
    assert sorted(listed) == sorted([*(set(PAGES) - {"index"}), "../launch/README"])
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        linked = set(re.findall(r"\]\((?:docs/)?(\w+)\.md\)", page.read_text(encoding="utf-8")))
        assert set(PAGES) - {"index", "results"} <= linked, page.name


def test_the_readme_is_short_and_has_one_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(re.findall(r"!\[", text)) == 1


def test_make_cleans_and_git_ignores_every_environment():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = re.findall(r"^(\w*VENV) \?= (\S+)$", makefile, re.M)
    assert len(names) == 5
    clean = re.search(r"^clean:.*\n\t(.*)$", makefile, re.M)[1]
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for name, value in names:
        assert f"$({name})" in clean
        assert value.replace("$(VENV)", ".venv") + "/" in ignored


def test_ci_builds_it():
    assert re.search(r"^make docs\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
