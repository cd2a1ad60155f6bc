"""A metadata server of a Compute Engine VM on this machine: `with serving(attributes) as address`,
where address is for GCE_METADATA_IP.
"""

import contextlib
import http.server
import threading
from collections.abc import Iterator

_PREFIX = "/computeMetadata/v1/instance/attributes/"


@contextlib.contextmanager
def serving(attributes: dict[str, str], failures: int = 0) -> Iterator[str]:
    """attributes: name -> text; failures: so many requests are answered with 503 first."""
    left = [failures]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            text = attributes.get(self.path.removeprefix(_PREFIX))
            code = 200 if text is not None else 404
            if left[0]:
                left[0], code = left[0] - 1, 503
            if self.headers.get("Metadata-Flavor") != "Google":
                code = 403
            self.send_response(code)
            self.end_headers()
            if code == 200:
                self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
