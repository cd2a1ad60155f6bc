"""Fixtures of the planning tests. libtpu compiles for TPUs on Linux x86-64; elsewhere there is none
to test with.
"""

import importlib.util
import platform
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import small`


@pytest.fixture(scope="session")
def libtpu():
    if importlib.util.find_spec("libtpu") is None:
        assert (sys.platform, platform.machine()) != ("linux", "x86_64"), (
            "libtpu is part of the dev extra: make .venv/.ready-dev"
        )
        pytest.skip("there is no libtpu for this machine")
