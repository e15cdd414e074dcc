"""The page of a run or a study that goes on, for browsers on this machine alone.

The server listens on the loopback address, answers nothing but GET and HEAD, and writes nothing. Whoever asks must know
a random token, which is in the address, and must ask by that address: a web page that is opened in the same browser can
do neither, not even if its name is made to lead here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nnas_core.errors import NnasError
from nnas_core.viewing.page import data_of, page_of
from nnas_core.viewing.view import View

__all__ = ["Server"]

_FRESH_S = 1.0
"""For so long what was read is not read again, however many pages ask."""

_PAUSE = 5
"""Times as long as reading took: a large study that takes seconds is read less often."""

_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Server:
    """Serves the page of a view that is read anew whenever a browser asks.

    Args:
        read: the view as it is now. Its errors are shown in the page, which asks again.

    Attributes:
        address: to be opened in a browser.
    """

    def __init__(self, read: Callable[[], View]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._view: View | None = None
        self._stale_at = 0.0
        self._token = secrets.token_urlsafe(24)
        outer = self

        class Handler(_Handler):
            server_of = outer

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self.address = f"http://{self.host}/{self._token}/"

    def serve(self) -> None:
        """Answers until ``stop``, or until a signal raises an error."""
        self._http.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Ends ``serve``, which another thread is in."""
        self._http.shutdown()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.server_close()

    def answer(self, host: str | None, path: str) -> tuple[int, str, bytes]:
        """The status, the kind and the content for a request.

        Args:
            host: the header of that name.
            path: with the token.
        """
        if host != self.host:
            return 421, "text/plain", b"ask by the address that nnas view printed\n"
        token, _, name = path.removeprefix("/").partition("/")
        known = (f"/{token}/", f"/{token}/view.json")  # the page asks for its data from where it is
        if not hmac.compare_digest(token.encode(), self._token.encode()) or path not in known:
            return 404, "text/plain", b"no such page; nnas view printed its address\n"
        try:
            view = self._now()
            if name:
                return 200, "application/json", data_of(view).encode()
            return 200, "text/html; charset=utf-8", page_of(view, served=True).encode()
        except NnasError as error:
            if name:
                return 200, "application/json", json.dumps({"error": str(error)}).encode()
            return 503, "text/plain; charset=utf-8", f"{error}\n".encode("utf-8", "backslashreplace")

    def _now(self) -> View:
        with self._lock:
            began = time.monotonic()
            if self._view is None or began > self._stale_at:
                self._view = self._read()
                took = time.monotonic() - began
                self._stale_at = began + max(_FRESH_S, _PAUSE * took)
            return self._view


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a browser went away before it had all: that is no error, and the library never prints."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server_of: Server
    protocol_version = "HTTP/1.1"
    server_version = "nnas"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        status, kind, content = self.server_of.answer(self.headers.get("Host"), self.path)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        is_known = status == 200 and self.headers.get("If-None-Match") == tag
        self.send_response(304 if is_known else status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("ETag", tag)
        if not is_known:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not is_known and self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the library never prints."""
