"""PyTorch and transformers are in an environment of their own (`make parity`); elsewhere their
files are not even read.
"""

import importlib.util
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
    collect_ignore = [
        "test_folders.py",
        "test_smollm2.py",
        "test_talker.py",
        "test_torch.py",
        "test_whisper.py",
    ]
