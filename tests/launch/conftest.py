"""`import dry_run` for the tests of this folder, and `import common` for what they test."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "launch"))
