"""`python -m mdmspeech` is the console script."""

import sys

from mdmspeech.cli import main

sys.exit(main())
