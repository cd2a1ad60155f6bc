"""Helpers of these tests beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `from planted_corpus import plant`
