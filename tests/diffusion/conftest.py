"""These tests compile much and compute little: half the optimisation is a third of the time."""

import pytest


@pytest.fixture(scope="package", autouse=True)
def _quick_compilation(quick_compilation_of_package):
    return
