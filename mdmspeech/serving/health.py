"""Whether a server on this machine lives: `python -m mdmspeech.serving.health [URL]` ends with 0 if
it does, else with 1 and a reason. Containers ask so (see Dockerfile); it needs the standard library
only, and takes the key from where `mdmspeech serve` has it.
"""

import sys
import urllib.error
import urllib.request

from mdmspeech.errors import UserError
from mdmspeech.serving.settings import gather_keys

URL = "http://127.0.0.1:8000/health"
_PATIENCE = 5.0  # seconds


def problem(url: str = URL) -> str | None:
    """Why the server at `url` is not well; None: it is."""
    try:
        keys = gather_keys((), None)
        headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
        request = urllib.request.Request(url, headers=headers)
        # a proxy of the environment is for other addresses than this machine's
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_PATIENCE):
            return None
    except (UserError, urllib.error.URLError, OSError, ValueError) as error:
        return f"{url}: {error}"


def main(argv: list[str] | None = None) -> int:
    """The exit code."""
    told = problem(*(sys.argv[1:] if argv is None else argv)[:1])
    if told is not None:
        print(told, file=sys.stderr)
    return 0 if told is None else 1


if __name__ == "__main__":
    sys.exit(main())
