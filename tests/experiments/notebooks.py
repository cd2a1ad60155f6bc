"""Running a notebook's cells in a kernel of their own, in small, on the CPU; and its texts."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "colab"
NAMES = ("talk", "your_voice", "scale", "train_on_tpu")
HOW = "make notebooks-test"
LONGEST = 600  # seconds a cell may take; a whole notebook takes some two minutes on two free cores


def read(name: str) -> dict:
    """A notebook's JSON."""
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def sources(name: str, kind: str = "code") -> list[str]:
    """The texts of its cells of one kind."""
    return ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == kind]


def execute(cells: list[dict], home: Path) -> list[dict]:
    """Runs cells from top to bottom in a new kernel, in experiments/colab as a user's would be;
    returns them with their outputs. nbclient's CellExecutionError: one has failed.

    Args:
      home: folder of corpus and runs.
    """
    import nbformat
    from nbclient import NotebookClient

    given = {
        "cells": cells,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    wanted = {
        "MDMSPEECH_SMALL": "1",
        "MDMSPEECH_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "",  # the kernel's own, which shows pictures
        "XLA_FLAGS": "",  # one device, as users have
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        client = NotebookClient(
            nbformat.reads(json.dumps(given), as_version=4),
            timeout=LONGEST,
            kernel_name="python3",
            resources={"metadata": {"path": str(FOLDER)}},
        )
        return client.execute()["cells"]
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def outputs(cells: list[dict], kind: str) -> list[str]:
    """Of executed cells: "image/png", "text/html", ... of what was shown, or "printed"."""
    given = [output for cell in cells for output in cell.get("outputs", ())]
    if kind == "printed":
        return [one["text"] for one in given if one["output_type"] == "stream"]
    return [one["data"][kind] for one in given if kind in one.get("data", ())]


if __name__ == "__main__":  # seconds of each: python tests/experiments/notebooks.py HOME
    import time

    for name in sys.argv[2:] or NAMES:
        begun = time.monotonic()
        execute(read(name)["cells"], Path(sys.argv[1]))
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
