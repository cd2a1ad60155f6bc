"""Sphinx's settings for `make docs`.

The whole repository is the source folder (`sphinx-build -c docs . build/docs`), so that a relative
link of a page leads to the same place on GitHub and in the site.
"""

import mdmspeech

project = "mdmspeech"
release = mdmspeech.__version__
author = "the authors of mdmspeech"
copyright = f"{author}, Apache-2.0"

root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "launch/README.md",
    "experiments/results/*.md",
    "experiments/colab/*.ipynb",
]
exclude_patterns = [".*", "build", "mdmspeech", "tests"]  # not looked through
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

nb_execution_mode = "off"
myst_heading_anchors = 4  # levels of headings that links may name, as on GitHub
default_role = "code"  # docstrings have `names` in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True  # attributes as a list

html_theme = "sphinx_book_theme"
html_title = "mdmspeech"
html_theme_options = {"navbar_persistent": []}  # the search stands in the sidebar
html_extra_path = ["site"]  # build/docs/index.html leads to the first page
html_show_sourcelink = False
