"""NAME.py -> NAME.ipynb, for all notebooks here; without outputs, the same from everyone's hands.

make notebooks
python -m experiments.colab.make_notebooks [FOLDER]     into another folder
"""

import json
import sys
from pathlib import Path
from typing import Any

import jupytext

HERE = Path(__file__).parent
NAMES = ("talk", "your_voice", "scale", "train_on_tpu")
# what Colab is asked for; the others run on any machine
_ACCELERATOR = {"train_on_tpu": {"accelerator": "TPU"}}


def notebook(name: str) -> dict[str, Any]:
    """The notebook that a source gives, as JSON's objects (nbformat 4.5)."""
    source = jupytext.read(HERE / f"{name}.py", fmt="py:percent")
    cells = [
        {
            "cell_type": cell.cell_type,
            "id": f"{name}-{number:02d}",
            "metadata": {"cellView": "form"} if cell.source.startswith("# @title") else {},
            "source": cell.source.splitlines(keepends=True),
        }
        | ({"execution_count": None, "outputs": []} if cell.cell_type == "code" else {})
        for number, cell in enumerate(source.cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {
        "cells": cells,
        "metadata": about | _ACCELERATOR.get(name, {}),
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def text(name: str) -> str:
    """The file's text."""
    return json.dumps(notebook(name), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else HERE
    for name in NAMES:
        (folder / f"{name}.ipynb").write_text(text(name), encoding="utf-8", newline="\n")
        print(folder / f"{name}.ipynb")
