"""Fixtures of the training tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `import tiny`, also from the subprocess tests
